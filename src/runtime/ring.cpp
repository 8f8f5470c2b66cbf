// SPDX-License-Identifier: Apache-2.0
//
// Rings: an io_uring for each P that has had use for one. A G fills an entry of its P's ring and
// parks; entries are handed to the kernel together (ring_round); whoever schedules takes what has
// completed and readies its G.
//
//     a G on P                      P's scheduling                    anybody
//     fill an entry                 look at the completions           netpoll: the same, of all
//     attention |= kAttnRing        (two loads)                       rings, when there is no work
//     park                          hand over the entries, once no
//                                   G is left to run, or after 20 us;
//                                   who finds no room does so, too
//
// While a P has requests under way every switch on it passes through findrunnable, which
// kAttnRing is for; without any there is nothing to look at. Who gives a P up hands over what it
// has, and a P whose M blocks with some left is wanted by others as if a G were queued there. When
// all Ps are idle the ring's descriptor wakes the netpoller.
//
// Whose the ring is. The kernel finishes most requests in the thread that submitted them, as "task
// work". What becomes of that while the M which submitted is elsewhere, on Linux 6.18, the
// completion of a pipe's read:
//
//     the submitter       default               COOP_TASKRUN          DEFER_TASKRUN
//     in futex, read      25-150 us, woken      30-70 us, woken       not until it enters
//     in epoll_wait       the same, and its     the same, EINTR       not until it enters
//                         call ends with EINTR
//     computes            interrupted           at the next tick      not until it enters
//
// So a P may lose its M with requests under way: they complete even where that M sleeps, in any
// sleep but an uninterruptible one, where they wait as long as it does. COOP_TASKRUN spares an M
// that computes the interrupts; while its P looks (kAttnRing) it enters the kernel often enough.
// When an M ends the kernel gives up its requests (kGivenUp). A call that the
// kernel never starts again after a signal (epoll_wait, semop) may end with EINTR in a bracket of
// the submitter.
//
// Rejected:
//   SINGLE_ISSUER, DEFER_TASKRUN  a ring that belongs to an M is stranded when that blocks
//   SQPOLL   no M has a part in it, but it costs a CPU: fio, 64 reads of 4 KiB under way: 95 k/s
//            and 80 % of a CPU more, against 113 k/s
//   one ring for all Ps   they would queue for its lock, here and in the kernel
//   a system call for each request   entries that go together cost one, and one doorbell of the
//            disk
#include "runtime/ring.hpp"

#include <algorithm>
#include <cerrno>

#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "kernel/syscall.hpp"
#include "kernel/uring.hpp"
#include "runtime/entry.hpp"
#include "runtime/file_calls.hpp"
#include "runtime/limit.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/persistentalloc.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

struct Ring {
    kernel::Uring uring;
    bool is_open = false;
    std::atomic<bool> reaping{false}; // somebody takes completions
    std::int64_t empty_ns = 0;        // when a round last left no entry behind
    // Requests issued less those that completed. Also what orders a request before its completion,
    // for the language: released by the issuer, acquired by who reaps.
    std::atomic<std::uint32_t> under_way{0};
    Ring* next = nullptr; // all there are
};

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed; // each use says why

constexpr unsigned kEntries = 32;       // so many are handed over at once at most
constexpr unsigned kCompletions = 1024; // what more there is the kernel keeps
constexpr std::int64_t kCollectNs = 20'000;
constexpr int kSubmitTries = 1000;
constexpr std::int64_t kCancelAgainNs = 1'000'000;
constexpr std::int64_t kCancelAgainMostNs = 100'000'000;

std::atomic<Ring*> g_rings{nullptr};

/// One request, on the stack of its G.
struct Request {
    Lock lock{Rank::kLeaf};
    bool done = false;
    int result = 0;
    G* g = nullptr;         // who is parked for it
    std::uint64_t wait = 0; // which of its waits that is (limit.hpp); 0: one that nobody else ends
    Ring* ring = nullptr;
};

bool open_ring(Ring* ring) {
    if (ring->uring.open(kEntries, kCompletions) < 0) return false;
    if (netpoll_watch(ring->uring.fd()) != 0) {
        ring->uring.close();
        return false;
    }
    ring->uring.limit_workers(std::max(1U, file_threads() / procs()));
    ring->is_open = true;
    Ring* head = g_rings.load(kRelaxed); // relaxed: the CAS confirms it
    do {
        ring->next = head;
        // release: pairs with the acquire in rings_reap. relaxed: we look again.
    } while (!g_rings.compare_exchange_weak(head, ring, std::memory_order_release, kRelaxed));
    return true;
}

/// What this P has lost to a lack of descriptors or memory may be had the next time.
bool ensure_ring(P* p) {
    if (!p->ring && kernel::features().io_uring) p->ring = persistent_new<Ring>();
    return p->ring && (p->ring->is_open || open_ring(p->ring));
}

/// What completed goes to the end of p's queue.
void queue(P* p, GQueue& ready) {
    for (G* gp = ready.head; gp; gp = gp->schedlink)
        gp->status.store(GStatus::kRunnable, kRelaxed); // relaxed: see G::status
    runqput_all(p, ready);
}

/// The request is done: its G, if that is the caller's to ready.
G* complete(Request* request, int result) {
    Lock& lock = request->lock;
    lock.lock();
    request->done = true;
    request->result = result;
    G* gp = request->g;
    const std::uint64_t wait = request->wait;
    if (gp && wait != 0 && !claim_wait(gp, wait)) gp = nullptr; // given up; it looks for itself
    lock.unlock_last(); // the G may be running, and the request be gone
    return gp;
}

/// Takes what has completed, unless somebody else does.
GQueue reap(Ring* ring) {
    GQueue ready;
    std::uint32_t n = 0;
    const auto take = [&](const io_uring_cqe& cqe) {
        n++;
        // acquire: pairs with the release in issue.
        (void)ring->under_way.load(std::memory_order_acquire);
        if (G* gp = complete(reinterpret_cast<Request*>(cqe.user_data), cqe.res))
            ready.push_back(gp);
    };
    // Who comes while we take finds the flag set and leaves: so a look again after it is cleared.
    // seq_cst, all: its look at the completions came before its look at the flag.
    while (ring->uring.has_completed() && !ring->reaping.exchange(true, kSeqCst)) {
        const std::uint32_t before = n;
        if (ring->uring.wants_entering()) (void)ring->uring.enter(0, -1);
        ring->uring.each_completed(take);
        ring->reaping.store(false, kSeqCst);
        // What is left to be had by entering is another thread's to deliver.
        if (n == before && !ring->uring.has_untaken()) break;
    }
    if (n > 0) {
        ring->under_way.fetch_sub(n, kRelaxed); // relaxed: a count
        netpoll_drop_waiters(static_cast<std::int32_t>(n));
    }
    return ready;
}

/// The caller's P, whose ring has room; null where there is none. Who is on credit waits for one:
/// to make a blocking call instead would be to come back on credit, again and again.
P* p_with_room() {
    M* m = getm_or_null();
    if (!m || in_bracket(m)) return nullptr;
    if (!m->p) settle(m);
    P* p = current_p();
    if (!p || !ensure_ring(p)) return nullptr;
    if (p->ring->uring.unsubmitted() == kEntries) ring_submit(p);
    return p;
}

void issue(P* p, Request* request, void (*fill)(io_uring_sqe*, const void*), const void* arg) {
    Ring* ring = p->ring;
    io_uring_sqe* sqe = ring->uring.next();
    fill(sqe, arg);
    sqe->user_data = reinterpret_cast<std::uint64_t>(request);
    request->ring = ring;
    ring->under_way.fetch_add(1, std::memory_order_release); // release: pairs with reap
    netpoll_add_waiter();
    // relaxed: the owner's alone to write; others ask whether it is 0.
    p->unsubmitted.store(ring->uring.unsubmitted(), kRelaxed);
    if ((p->attention.load(kRelaxed) & kAttnRing) == 0) // relaxed: the owner's own bit
        p->attention.fetch_or(kAttnRing, kSeqCst);
}

/// Parks until it is done or given up. request->lock held.
void wait_for(Request* request, const Limit* limit) {
    request->g = getg();
    request->wait = limit ? limit->number() : 0;
    if (limit) {
        park_limited(request->lock, WaitReason::kFileWait);
    } else {
        goparkunlock(request->lock, WaitReason::kFileWait);
    }
}

/// Issues it and waits, for as long as `limit` allows. False: there is no ring.
bool issue_and_wait(Request* request, void (*fill)(io_uring_sqe*, const void*), const void* arg,
                    Limit* limit) {
    Entry entry;
    P* p = p_with_room();
    if (!p) return false;
    if (limit) limit->arm();
    // From before it is issued: who takes the completion waits until the G has parked.
    request->lock.lock();
    issue(p, request, fill, arg);
    wait_for(request, limit);
    if (limit) limit->disarm();
    return true;
}

/// The wait was given up. The buffer is the kernel's for as long as the request is: gives that up
/// too, until it is done. Once is not always enough: it may not have been handed over yet.
void cancel(Request* request) {
    for (std::int64_t pause = kCancelAgainNs;; pause = std::min(2 * pause, kCancelAgainMostNs)) {
        Limit limit(kernel::nanotime() + pause, {});
        Entry entry;
        (void)request->ring->uring.cancel(reinterpret_cast<std::uint64_t>(request));
        limit.arm();
        request->lock.lock();
        if (request->done) {
            request->lock.unlock();
            limit.disarm();
            return;
        }
        wait_for(request, &limit);
        limit.disarm();
    }
}

} // namespace

long ring_call(void (*fill)(io_uring_sqe*, const void*), const void* arg, const Until& until) {
    const bool limited = until.when_ns() != Until::kNever || until.token().stop_possible();
    Request request;
    detail::WaitEnd end = detail::WaitEnd::kDone;
    if (limited) {
        Limit limit(until);
        if (!issue_and_wait(&request, fill, arg, &limit)) return kNoRing;
        end = wait_end(limit.g());
    } else if (!issue_and_wait(&request, fill, arg, nullptr)) {
        return kNoRing;
    }
    if (end != detail::WaitEnd::kDone) cancel(&request);
    if (request.result != -ECANCELED && request.result != -EINTR) return request.result;
    return end != detail::WaitEnd::kDone ? -detail::wait_error(end).value() : kGivenUp;
}

void rings_cancel_fd(int fd) {
    Entry entry;
    // acquire: pairs with open_ring.
    for (Ring* r = g_rings.load(std::memory_order_acquire); r; r = r->next) {
        // relaxed: what is issued from now on is not meant.
        if (r->under_way.load(kRelaxed) != 0) (void)r->uring.cancel_fd(fd);
    }
}

std::uint32_t rings_in_flight() noexcept {
    std::uint32_t n = 0;
    // acquire: pairs with open_ring. relaxed: a count for people.
    for (const Ring* r = g_rings.load(std::memory_order_acquire); r; r = r->next)
        n += r->under_way.load(kRelaxed);
    return n;
}

void ring_submit(P* p) {
    if (p->unsubmitted.load(kRelaxed) == 0) return; // relaxed: see issue
    Ring* ring = p->ring;
    for (int i = 0; ring->uring.unsubmitted() != 0; i++) {
        const long rc = ring->uring.submit();
        if (rc >= 0 || rc == -EINTR) continue;
        // No memory, or (-EBUSY) too many completions that nobody has taken.
        GQueue ready = reap(ring);
        queue(p, ready);
        if (i == kSubmitTries) fatal("io_uring_enter failed with errno %ld", -rc);
    }
    p->unsubmitted.store(0, kRelaxed); // relaxed: see issue
}

void ring_round(P* p) {
    Ring* ring = p->ring;
    GQueue ready = reap(ring);
    if (!ready.empty()) {
        const bool several = ready.n > 1;
        queue(p, ready);
        if (several) wakep();
    }
    const std::uint32_t n = ring->uring.unsubmitted();
    const std::int64_t now = kernel::nanotime();
    if (n != 0 && (runqempty(p) || now - ring->empty_ns > kCollectNs)) ring_submit(p);
    if (ring->uring.unsubmitted() == 0) ring->empty_ns = now;
    // relaxed: only the owner raises it.
    if (n == 0 && ring->under_way.load(kRelaxed) == 0) p->attention.fetch_and(~kAttnRing, kSeqCst);
}

void rings_reap(GList& list) {
    // acquire: pairs with open_ring.
    for (Ring* ring = g_rings.load(std::memory_order_acquire); ring; ring = ring->next) {
        GQueue ready = reap(ring);
        while (G* gp = ready.pop()) list.push(gp);
    }
}

void rings_forget() {
    // relaxed: the child has one thread.
    for (Ring* ring = g_rings.load(kRelaxed); ring; ring = ring->next) ring->uring.close();
    g_rings.store(nullptr, kRelaxed); // relaxed: as above
}

} // namespace baton::rt
