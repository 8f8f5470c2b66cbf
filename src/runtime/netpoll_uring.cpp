// SPDX-License-Identifier: Apache-2.0
//
// The io_uring engine: a multishot poll request for each descriptor, all in one ring, whose
// completions are the events.
//
// Rejected: receiving and accepting by the ring (multishot, with provided buffers), and sending. A
// server without a runtime, whose threads have a ring each, against one whose threads have an epoll
// each (2 CPUs, wrk beside it, Linux 6.18; medians of the ratios of eight rounds):
//
//     requests/s, CPU for each       64 connections    512 connections
//     received; sent by a call       0.97x, 1.08x      1.16x, 0.90x
//     received and sent              0.98x, 1.05x      1.16x, 0.85x
//     the same, DEFER_TASKRUN        0.89x, 1.08x      1.00x, 0.92x
//
// Two shorter sets had 0.89-1.11x at 64 connections, 0.70-1.21x at 512: the differences are hardly
// larger than the noise. And there connections stay with a thread. Here a G moves, and what its
// connection receives would still be put down by the thread that first asked for it, woken for
// that alone if it sleeps; each byte would be copied once more, as a read brings its own buffer,
// and what was received and not read be kept for close and release. So it is with an accept, which
// is one call in all of a connection's.
// Linked timeouts: one adds 0.7 us to a wait in the ring (a receive 2.5 -> 3.2 us, a poll 2.4 ->
// 3.1, medians of seven), a timer of the P's heap 0.35; and a deadline may be set while somebody
// waits, which would be one more call for each.
//
// Why it is not what `auto` means: an event is noted by the thread that submitted the request, and
// that is the M which happened to accept the connection: it is woken, if it sleeps, only to write
// down what another one waits for. An epoll's event is noted by who caused it. README.md has the
// figures. For the same reason a poll request ends when its M does; it is made anew.
//
// Locks: g_sq_lock guards the entries, a leaf.
// Ordering: who waits must not sleep through a wake-up that another poll has found (seq_cst):
//
//     the poll that waits                           a poll that does not, and finds the wake-up
//     (E) waiting = true                            (F) kept = true
//     (E) kept? then it does not sleep              (F) waiting? then it wakes once more
#include <atomic>
#include <cerrno>

#include <sys/stat.h>

#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "kernel/syscall.hpp"
#include "kernel/uring.hpp"
#include "runtime/lock.hpp"
#include "runtime/pollengine.hpp"

namespace baton::rt {

namespace {

using kernel::raw_syscall;

constexpr auto kSeqCst = std::memory_order_seq_cst;
constexpr unsigned kEntries = 64;
constexpr unsigned kCompletions = 4096;
constexpr std::int64_t kCancelNs = 10'000'000; // at most

// No tags of descriptors': those have a number in the low bits, which is never 0. From kWatchFirst
// on what is above those says which descriptor is watched.
constexpr std::uint64_t kWakeTag = 0;
constexpr std::uint64_t kWatchFirst = 1;

kernel::Uring g_ring;
constinit Lock g_sq_lock{Rank::kLeaf};
std::atomic<bool> g_taking{false};  // somebody takes completions
std::atomic<bool> g_waiting{false}; // (E), (F)
std::atomic<bool> g_kept{false};    // (E), (F)

/// Hands one entry to the kernel. 0 or -errno. g_sq_lock held.
template <class Fill>
int submit(Fill fill) {
    io_uring_sqe* sqe = g_ring.next(); // there is room: each is handed over at once
    fill(sqe);
    long rc;
    do rc = g_ring.submit();
    while (rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
    return rc < 0 ? static_cast<int>(rc) : 0;
}

int submit_poll(int fd, std::uint32_t events, std::uint64_t tag) {
    return submit([=](io_uring_sqe* sqe) {
        io_uring_prep_poll_multishot(sqe, fd, events);
        sqe->user_data = tag;
    });
}

int start() {
    const int rc = g_ring.open(kEntries, kCompletions);
    if (rc < 0) return rc;
    new (&g_sq_lock) Lock(Rank::kLeaf); // a parent's thread may have held it
    for (auto* flag : {&g_taking, &g_waiting, &g_kept}) flag->store(false, kSeqCst);
    return 0;
}

void forget() { g_ring.close(); }

int add(PollDesc* pd) {
    // As epoll answers, for whom a regular file is not a thing to wait for.
    struct stat st;
    if (const long rc = raw_syscall(__NR_fstat, pd->fd, &st); rc < 0) return static_cast<int>(rc);
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) return -EPERM;
    const LockGuard guard(g_sq_lock);
    return submit_poll(pd->fd, kPollInterest, tag_of(pd));
}

// The request holds the file, which close(2) alone would leave open. POLL_REMOVE would not do: it
// fails for a request whose event is just being noted.
//
// The thread that made the request ends it, mostly at once, but after the cancel has returned, and
// on a CPU that idled it first has to wake. Until then it is found again, and the file open: a
// listener's port would still be taken after its close.
void remove(PollDesc* pd) {
    const std::uint64_t tag = tag_of(pd);
    long rc;
    {
        const LockGuard guard(g_sq_lock); // with poll_again
        rc = g_ring.cancel(tag);
    }
    const std::int64_t until = kernel::nanotime() + kCancelNs;
    while (rc == 0 && kernel::nanotime() < until) {
        (void)raw_syscall(__NR_sched_yield);
        rc = g_ring.cancel(tag);
    }
}

int watch(int fd) {
    const LockGuard guard(g_sq_lock);
    return submit_poll(fd, EPOLLIN, (static_cast<std::uint64_t>(fd) + kWatchFirst) << kSeqBits);
}

void wake() {
    const LockGuard guard(g_sq_lock);
    (void)submit([](io_uring_sqe* sqe) {
        io_uring_prep_nop(sqe);
        sqe->user_data = kWakeTag;
    });
}

/// A request has ended: with its M, or for want of room for an event. Unless that was asked for, it
/// is made again. Between poll_evict and the end of this use of the descriptor it is not (remove
/// takes the lock after that).
void poll_again(std::uint64_t tag) {
    if ((tag & kSeqMask) == 0) {
        (void)watch(static_cast<int>((tag >> kSeqBits) - kWatchFirst));
        return;
    }
    PollDesc* pd = desc_of(tag);
    const LockGuard guard(g_sq_lock);
    // acquire: pairs with the release in polldesc_free.
    if (pd->fdseq.load(std::memory_order_acquire) != (tag & kSeqMask)) return;
    if ((pd->info.load(kSeqCst) & kClosing) == 0) (void)submit_poll(pd->fd, kPollInterest, tag);
}

/// Takes what has completed. True: a wake-up was among it.
bool take(GList& list) {
    bool woken = false;
    const auto event = [&](const io_uring_cqe& cqe) {
        const std::uint64_t tag = cqe.user_data;
        if (tag == kWakeTag) woken = true;
        const bool of_desc = (tag & kSeqMask) != 0;
        if (of_desc && cqe.res > 0) netpollready(list, tag, static_cast<std::uint32_t>(cqe.res));
        const bool ended = (cqe.flags & IORING_CQE_F_MORE) == 0;
        if (ended && tag != kWakeTag) poll_again(tag);
    };
    if (g_ring.wants_entering()) (void)g_ring.enter(0, -1);
    polldesc_see_all();
    g_ring.each_completed(event);
    return woken;
}

bool poll(std::int64_t delay_ns, GList& list) {
    const bool waits = delay_ns != 0;
    bool woken = false;
    if (waits) {
        g_waiting.store(true, kSeqCst); // (E)
        woken = g_kept.exchange(false, kSeqCst);
        const long rc = woken ? 0 : g_ring.enter(1, delay_ns);
        if (rc == -EBADF || rc == -EINVAL || rc == -EFAULT)
            fatal("io_uring_enter failed with errno %ld; is descriptor %d closed?", -rc,
                  g_ring.fd());
        g_waiting.store(false, kSeqCst);
    }
    // Once more after others were let in again: who came meanwhile has left it to us.
    bool found = false;
    for (int looks = 0; looks < 2 && g_ring.has_completed(); looks++) {
        if (g_taking.exchange(true, kSeqCst)) break;
        found |= take(list);
        g_taking.store(false, kSeqCst);
    }
    if (waits || !found) return waits && (woken || found);
    g_kept.store(true, kSeqCst); // (F)
    if (g_waiting.load(kSeqCst)) wake();
    return false;
}

} // namespace

const PollEngine kUringEngine{"uring", start, forget, add, remove, nullptr, watch, poll, wake};

} // namespace baton::rt
