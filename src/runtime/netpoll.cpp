// SPDX-License-Identifier: Apache-2.0
//
// Poll descriptors in use: their waits, their deadlines, their end. Who speaks to the kernel is an
// engine (pollengine.hpp). rg and wg of a descriptor, one word for each direction, say:
//
//   nil       no notification, nobody waits
//   ready     a notification that nobody has consumed; the next wait takes it and does not park
//   wait      a G is about to park: it commits by putting its own address in, or a notification or
//             an eviction comes first and it does not park
//   a G       parked; whoever changes the word to ready or nil readies it
//   any       a G waits for this and others (netpoll_any.cpp)
//
// Locks: PollDesc::lock guards the deadlines and `closing`; waiting and notifying go without. No G
// is readied under it.
//
// Ordering: a waiter must not miss a deadline or an eviction (seq_cst, both sides):
//
//     waiter                                        evict, deadline, set_deadline, cut
//     (A) word = wait                               (B) info |= closing, expired or cut
//     (A) reads info: set?  then it does not park   (B) reads the word: nil?  then nobody waits
//
// With less, both could read the old values from before the other's store: the G parks for ever.
// And what netpoll knew when it noted an event (PollDesc::hangup) is seen by who consumes the note:
// release in netpollunblock, acquire in netpollblock and poll_reset.
#include "runtime/netpoll.hpp"

#include <cerrno>
#include <cstddef>
#include <new>

#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "runtime/entry.hpp"
#include "runtime/foreign.hpp"
#include "runtime/netpoll_any.hpp"
#include "runtime/polldesc.hpp"
#include "runtime/pollengine.hpp"
#include "runtime/ring.hpp"

namespace baton::rt {

namespace {

constexpr auto kSeqCst = std::memory_order_seq_cst;  // where the head of this file says so
constexpr auto kRelaxed = std::memory_order_relaxed; // each use says why

constexpr std::uint32_t kRead = kReadExpired | kReadTimedOut | kReadStopped;
constexpr std::uint32_t kWrite = kWriteExpired | kWriteTimedOut | kWriteStopped;

// The one in use; null before the start, and in a forked child.
const PollEngine* g_engine = nullptr;
std::atomic<std::uint32_t> g_wake_sig{0};
std::atomic<std::int32_t> g_waiters{0};
// Of descriptors, by number: is it a PollDesc's own? No more than the kernel's default limit.
constexpr int kOwnMost = 1 << 20;
std::atomic<bool> g_own[kOwnMost];

// relaxed: who asks has the number from who opened it, or uses a descriptor that is not its own.
void note_own(int fd, bool own) {
    if (fd >= 0 && fd < kOwnMost) g_own[fd].store(own, kRelaxed);
}

/// What Info says. pd->lock held; (B) of the head's ordering.
void publish_info(PollDesc* pd) {
    std::uint32_t info = 0;
    if (pd->closing) info |= kClosing;
    if (pd->rd < 0) info |= kReadExpired;
    if (pd->wd < 0) info |= kWriteExpired;
    if (pd->rcut != 0) info |= pd->rcut == ETIMEDOUT ? kReadTimedOut : kReadStopped;
    if (pd->wcut != 0) info |= pd->wcut == ETIMEDOUT ? kWriteTimedOut : kWriteStopped;
    pd->info.store(info, kSeqCst);
}

/// gopark's last step: the G is off its stack. False when a notification or an eviction was first.
bool netpollblockcommit(G* gp, void* word) {
    auto* gpp = static_cast<std::atomic<std::uintptr_t>*>(word);
    // Counted before anybody can find and uncount it, so it never falls below zero. seq_cst: with
    // wake_poller; an M looks at it itself before it goes to sleep.
    netpoll_add_waiter();
    std::uintptr_t wait = kPdWait;
    // release: pairs with the acquire in netpollunblock: who takes the G finds it saved.
    if (gpp->compare_exchange_strong(wait, reinterpret_cast<std::uintptr_t>(gp),
                                     std::memory_order_release, kRelaxed)) {
        if (gp->foreign) wake_poller();
        return true;
    }
    netpoll_drop_waiters(1);
    return false;
}

/// True if the descriptor became ready; false if woken otherwise: poll_error tells.
bool netpollblock(PollDesc* pd, PollMode mode) {
    std::atomic<std::uintptr_t>& gpp = poll_word(pd, mode);
    for (;;) {
        std::uintptr_t old = kPdReady;
        // acquire: pairs with the release in netpollunblock (hangup). relaxed: nothing was had.
        if (gpp.compare_exchange_strong(old, kPdNil, std::memory_order_acquire, kRelaxed))
            return true;
        if (old != kPdNil)
            fatal("two goroutines wait on one descriptor and direction (word %zx)", old);
        // seq_cst: (A). relaxed on failure: it has become ready, and we look again.
        if (gpp.compare_exchange_strong(old, kPdWait, kSeqCst, kRelaxed)) break;
    }
    if (poll_error(pd, mode) == 0) gopark(netpollblockcommit, &gpp, WaitReason::kIoWait);
    // acquire: pairs with the release in netpollunblock.
    const std::uintptr_t old = gpp.exchange(kPdNil, std::memory_order_acquire);
    if (old > kPdWait) fatal("a poll descriptor still names a goroutine (word %zx)", old);
    return old == kPdReady;
}

/// Notes that the descriptor is ready, or takes whoever waits off it without. The G to ready, or
/// null. (B) of the head's ordering when not ioready: then pd->lock is held.
G* netpollunblock(PollDesc* pd, PollMode mode, bool ioready) {
    std::atomic<std::uintptr_t>& gpp = poll_word(pd, mode);
    std::uintptr_t old = gpp.load(kSeqCst);
    for (;;) {
        if (old == kPdReady) return nullptr;
        if (old == kPdNil && !ioready) return nullptr; // the next wait looks at info first
        // release: pairs with the acquire in netpollblock and poll_reset. acquire: with the release
        // in netpollblockcommit. On failure acquire too: the same value may be taken next.
        if (gpp.compare_exchange_weak(old, ioready ? kPdReady : kPdNil, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
            break;
    }
    if (old == kPdAny) {
        if (!ioready) return any_ended(pd, mode);
        LockGuard guard(pd->lock);
        return any_ended(pd, mode);
    }
    if (old <= kPdWait) return nullptr; // one about to park sees it and does not
    netpoll_drop_waiters(1);
    return reinterpret_cast<G*>(old);
}

void ready_both(G* reader, G* writer) {
    if (reader) goready(reader);
    if (writer) goready(writer);
}

/// A deadline has come. Timers of an earlier deadline or use carry another number.
void deadline_passed(PollDesc* pd, std::uintptr_t seq, bool read, bool write) {
    G* reader = nullptr;
    G* writer = nullptr;
    {
        LockGuard guard(pd->lock);
        if (seq != (read ? pd->rseq : pd->wseq)) return;
        if (read) {
            pd->rd = -1;
            pd->rrun = false;
        }
        if (write) {
            pd->wd = -1;
            pd->wrun = false;
        }
        publish_info(pd);
        if (read) reader = netpollunblock(pd, PollMode::kRead, false);
        if (write) writer = netpollunblock(pd, PollMode::kWrite, false);
    }
    ready_both(reader, writer);
}

void read_deadline(void* pd, std::uintptr_t seq, std::int64_t) {
    deadline_passed(static_cast<PollDesc*>(pd), seq, true, false);
}
void write_deadline(void* pd, std::uintptr_t seq, std::int64_t) {
    deadline_passed(static_cast<PollDesc*>(pd), seq, false, true);
}
void both_deadlines(void* pd, std::uintptr_t seq, std::int64_t) {
    deadline_passed(static_cast<PollDesc*>(pd), seq, true, true);
}

/// Arms, moves or stops one timer: `when` 0 means that none is wanted. pd->lock held.
void adjust_timer(PollDesc* pd, bool read, std::int64_t when, Timer::Fn f) {
    bool& running = read ? pd->rrun : pd->wrun;
    std::uintptr_t& seq = read ? pd->rseq : pd->wseq;
    Timer& timer = read ? pd->rt : pd->wt;
    seq++; // whatever is armed or about to fire is stale
    if (when > 0) {
        timer_reset(&timer, when, f, pd, seq);
        running = true;
    } else if (running) {
        timer_stop(&timer);
        running = false;
    }
}

// The list is for run queues: a plain thread is woken here.
void list_ready(GList& list, G* gp) {
    if (gp) gp->foreign ? foreign_ready(gp) : list.push(gp);
}

/// From the parent of a forked child, in use there or not: who had its lock is gone, and who
/// waited.
void take_over(PollDesc* pd) {
    // relaxed: a forked child's first start, and it has one thread.
    const std::uint32_t seq = pd->fdseq.load(kRelaxed);
    const int fd = pd->fd;
    const bool own = pd->own;
    new (pd) PollDesc;
    pd->fdseq.store(seq, kRelaxed); // relaxed: as above
    pd->fd = fd;
    pd->own = own;
    // -EBADF and the like: it was about to be closed.
    if (fd < 0 || g_engine->add(pd) != 0) polldesc_free(pd);
}

} // namespace

int netpollinit(Poller poller) {
    if (g_engine) return 0; // a start that failed later is tried again
    const bool uring = poller == Poller::kUring && kernel::features().io_uring;
    const PollEngine* engine = uring ? &kUringEngine : &kEpollEngine;
    if (const int rc = engine->start(); rc < 0) return rc;
    g_engine = engine;
    // Those a forked child has from its parent.
    polldesc_each(take_over);
    return 0;
}

void netpoll_forget() {
    if (g_engine) g_engine->forget();
    g_engine = nullptr;
    // relaxed, both: the child has one thread.
    g_wake_sig.store(0, kRelaxed);
    g_waiters.store(0, kRelaxed);
    polldesc_forget();
}

/// Only a poll that waited consumes the wake-up: a mere look would else take it from the poll it
/// was meant for.
///
///     netpollbreak                                  the poll that was woken
///     (C) publishes its work (a timer)              (D) wake_sig = 0
///     (C) wake_sig is 1 already? then that is all   (D) the caller looks at timers and queues
///
/// seq_cst on both: else each could miss what the other stored, and the work waits for the next
/// wake-up.
GList netpoll(std::int64_t delay_ns) {
    GList list;
    if (g_engine->poll(delay_ns, list)) g_wake_sig.exchange(0, kSeqCst); // (D)
    rings_reap(list);
    // One of them runs at once, and the others before those that follow (injectglist).
    const G* gp = list.head;
    for (std::uint32_t i = 0; gp && i < kAskAtOnce; i++, gp = gp->schedlink)
        prefetch_stack(gp->sched.sp, kColdLines);
    return list;
}

std::atomic<std::uintptr_t>& poll_word(PollDesc* pd, PollMode mode) {
    return mode == PollMode::kRead ? pd->rg : pd->wg;
}

int poll_error(const PollDesc* pd, PollMode mode) {
    const std::uint32_t info = pd->info.load(kSeqCst);
    if (info & kClosing) return EBADF;
    const std::uint32_t over = info & (mode == PollMode::kRead ? kRead : kWrite);
    if (over == 0) return 0;
    return over & (kReadStopped | kWriteStopped) ? ECANCELED : ETIMEDOUT;
}

const char* netpoll_engine() noexcept { return g_engine ? g_engine->name : ""; }

int netpoll_watch(int fd) { return -g_engine->watch(fd); }

void netpoll_add_waiter() noexcept {
    if (g_waiters.fetch_add(1, kSeqCst) == 0) note_unpolled();
}

void netpoll_drop_waiters(std::int32_t n) noexcept {
    // relaxed: who waited is in the hands of an M that runs, so nobody has to see this soon.
    g_waiters.fetch_sub(n, kRelaxed);
}

void netpollbreak() {
    // (C) of netpoll. seq_cst on failure too: it is the second load there.
    std::uint32_t none = 0;
    if (g_wake_sig.compare_exchange_strong(none, 1, kSeqCst, kSeqCst)) g_engine->wake();
}

void netpoll_expect(std::uint64_t tag) {
    // relaxed: a hint. Gs are never unmapped.
    const std::uintptr_t reader = desc_of(tag)->rg.load(kRelaxed);
    if (reader <= kPdAny) return;
    const auto* g = reinterpret_cast<const std::byte*>(reader);
    for (int line = 0; line < 2; line++) __builtin_prefetch(g + std::ptrdiff_t{64} * line, 1);
}

void netpollready(GList& list, std::uint64_t tag, std::uint32_t events) {
    PollDesc* pd = desc_of(tag);
    // acquire: pairs with the release in polldesc_free. A use that ends after this look gets a
    // notification too many, which costs it one attempt in vain.
    if (pd->fdseq.load(std::memory_order_acquire) != (tag & kSeqMask)) return;
    // relaxed: published by the release in netpollunblock.
    if (events & kPollHangup) pd->hangup.store(true, kRelaxed);
    if (events & (EPOLLIN | kPollHangup))
        list_ready(list, netpollunblock(pd, PollMode::kRead, true));
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        list_ready(list, netpollunblock(pd, PollMode::kWrite, true));
}

bool netpoll_any_waiters() noexcept {
    return g_waiters.load(kSeqCst) > 0; // seq_cst: with wake_poller
}

bool poll_is_own(int fd) noexcept {
    return fd >= 0 && fd < kOwnMost && g_own[fd].load(kRelaxed); // relaxed: as in note_own
}

PollDesc* poll_open(int fd, int* err, bool own) {
    Entry entry;
    PollDesc* pd = polldesc_alloc();
    if (!pd) {
        *err = ENOMEM;
        return nullptr;
    }
    {
        LockGuard guard(pd->lock);
        pd->fd = fd;
        pd->closing = pd->rrun = pd->wrun = false;
        pd->armed = 0;
        pd->rd = pd->wd = 0;
        pd->rcut = pd->wcut = 0;
        pd->rseq++;
        pd->wseq++;
        // relaxed: no G waits, and events of this use come after the engine has it. A stale event
        // can only leave a notification too many.
        pd->hangup.store(false, kRelaxed);
        pd->rg.store(kPdNil, kRelaxed); // relaxed: as above
        pd->wg.store(kPdNil, kRelaxed); // relaxed: as above
        publish_info(pd);
    }
    *err = -g_engine->add(pd);
    pd->own = own && *err == 0;
    if (pd->own) note_own(fd, true);
    if (*err == 0) return pd;
    polldesc_free(pd);
    return nullptr;
}

void poll_close(PollDesc* pd) {
    Entry entry;
    if (pd->own) note_own(pd->fd, false);
    if (!g_engine) { // a forked child that has no runtime (yet)
        pd->fd = -1;
        return;
    }
    // relaxed: poll_evict came before, in this thread's past; waiters have left.
    if (!(pd->info.load(kRelaxed) & kClosing) || pd->rg.load(kRelaxed) > kPdReady ||
        pd->wg.load(kRelaxed) > kPdReady) // relaxed: as above
        fatal("a poll descriptor was closed while in use (descriptor %d)", pd->fd);
    g_engine->remove(pd);
    polldesc_free(pd);
}

int poll_reset(PollDesc* pd, PollMode mode) {
    if (const int err = poll_error(pd, mode)) return err;
    std::atomic<std::uintptr_t>& gpp = poll_word(pd, mode);
    // acquire: pairs with the release in netpollunblock: who erases a notification sees the hangup
    // it told of. relaxed first look: a word still nil has nothing to erase, and saves 5 ns; what
    // comes later stays and cuts the next wait short.
    if (gpp.load(kRelaxed) != kPdNil) gpp.exchange(kPdNil, std::memory_order_acquire);
    return 0;
}

bool poll_rearms() noexcept { return g_engine->arm != nullptr; }

int poll_rearm(PollDesc* pd, PollMode mode) {
    Entry entry;
    LockGuard guard(pd->lock);
    pd->armed |= mode == PollMode::kRead ? EPOLLIN : EPOLLOUT;
    // A direction that nobody waits for is left out: it would be reported at once.
    return -g_engine->arm(pd, pd->armed | (kPollInterest & ~(EPOLLIN | EPOLLOUT)));
}

void poll_disarm(PollDesc* pd, PollMode mode) {
    Entry entry;
    LockGuard guard(pd->lock);
    pd->armed &= ~(mode == PollMode::kRead ? EPOLLIN : EPOLLOUT);
}

int poll_wait(PollDesc* pd, PollMode mode) {
    Entry entry;
    for (;;) {
        if (const int err = poll_error(pd, mode)) return err;
        // False without an error: a deadline woke us and was moved before we ran. Wait again.
        if (netpollblock(pd, mode)) return 0;
    }
}

bool poll_hangup(const PollDesc* pd) noexcept {
    // relaxed: ordered by the acquire of the reset or wait that came before.
    return pd->hangup.load(kRelaxed);
}

void poll_set_deadline(PollDesc* pd, std::int64_t when_ns, bool read, bool write) {
    G* reader = nullptr;
    G* writer = nullptr;
    Entry entry;
    if (when_ns != 0 && when_ns <= kernel::nanotime()) when_ns = -1;
    {
        LockGuard guard(pd->lock);
        if (pd->closing) return;
        const std::int64_t rd0 = pd->rd;
        const std::int64_t wd0 = pd->wd;
        const bool combo0 = rd0 > 0 && rd0 == wd0;
        if (read) pd->rd = when_ns;
        if (write) pd->wd = when_ns;
        publish_info(pd);
        // One timer does for both when they are the same.
        const bool combo = pd->rd > 0 && pd->rd == pd->wd;
        if (pd->rd != rd0 || combo != combo0)
            adjust_timer(pd, true, pd->rd, combo ? both_deadlines : read_deadline);
        if (pd->wd != wd0 || combo != combo0)
            adjust_timer(pd, false, combo ? 0 : pd->wd, write_deadline);
        if (pd->rd < 0) reader = netpollunblock(pd, PollMode::kRead, false);
        if (pd->wd < 0) writer = netpollunblock(pd, PollMode::kWrite, false);
    }
    ready_both(reader, writer);
}

std::uint64_t poll_limit_begin(PollDesc* pd, PollMode mode) {
    Entry entry;
    LockGuard guard(pd->lock);
    return mode == PollMode::kRead ? ++pd->rlimit : ++pd->wlimit;
}

void poll_limit_end(PollDesc* pd, PollMode mode) {
    Entry entry;
    LockGuard guard(pd->lock);
    const bool read = mode == PollMode::kRead;
    ++(read ? pd->rlimit : pd->wlimit);
    int& cut = read ? pd->rcut : pd->wcut;
    if (cut == 0) return;
    cut = 0;
    publish_info(pd);
}

void poll_cut(PollDesc* pd, PollMode mode, std::uint64_t number, int err) {
    G* waiter = nullptr;
    {
        LockGuard guard(pd->lock);
        const bool read = mode == PollMode::kRead;
        int& cut = read ? pd->rcut : pd->wcut;
        if (number != (read ? pd->rlimit : pd->wlimit) || cut != 0) return;
        cut = err;
        publish_info(pd);
        waiter = netpollunblock(pd, mode, false);
    }
    if (waiter) goready(waiter);
}

void poll_evict(PollDesc* pd) {
    G* reader = nullptr;
    G* writer = nullptr;
    Entry entry;
    if (!g_engine) return; // a forked child that has no runtime (yet): nobody waits
    {
        LockGuard guard(pd->lock);
        if (pd->closing) fatal("a poll descriptor was closed twice (descriptor %d)", pd->fd);
        pd->closing = true;
        publish_info(pd);
        adjust_timer(pd, true, 0, nullptr);
        adjust_timer(pd, false, 0, nullptr);
        reader = netpollunblock(pd, PollMode::kRead, false);
        writer = netpollunblock(pd, PollMode::kWrite, false);
    }
    ready_both(reader, writer);
}

} // namespace baton::rt
