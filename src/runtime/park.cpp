// SPDX-License-Identifier: Apache-2.0
//
// Parking and readying Gs: gopark, goready, goyield, gosched, and the must_park check.
#include "baton/go.hpp"
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/foreign.hpp"
#include "runtime/sched.hpp"
#include "runtime/start.hpp"
#include "runtime/switch.hpp"

#include <sched.h>

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

// The next G of this P if it can be had without any of schedule()'s other duties; else null, and g0
// does them. `inherit`: it goes on in the present time slice.
inline G* fast_next(P* p, bool& inherit) {
    // relaxed: a request seen one switch later does no harm.
    if ((p->attention.load(kRelaxed) & kAttnSwitch) != 0) return nullptr;
    // One in 61 looks at the global queue first, so that two Gs here cannot starve it.
    // relaxed: our own tick, and a hint.
    if (p->schedtick.load(kRelaxed) % 61 == 0 && runqsize().load(kRelaxed) != 0) return nullptr;
    // The clock costs 20 ns, so a P that has timers looks at every eighth switch. relaxed: a timer
    // set by another thread is seen a few switches later, as if set later.
    const std::int64_t when = p->timers.next_when.load(kRelaxed);
    if (when != 0 && (++p->polltick & 7) == 0 && kernel::nanotime() >= when) return nullptr;
    return runqget(p, inherit);
}

// Leaves gp's stack for that of `next`, or for g0; `after` runs there.
inline void leave_stack(M* m, G* gp, G* next, void (*after)(G*, M*), bool last) {
    m->prev = gp;
    m->after = after;
    if (next && !next->lockedm) [[likely]] {
        switch_g_to_g(m, gp, next, last);
    } else {
        m->lockednext = next;
        switch_g_to_g0(m, gp, last);
    }
}

// The same, of a G that will run again: returns when it does.
inline void switch_out(M* m, G* gp, void (*after)(G*, M*)) {
    P* p = m->p;
    bool inherit = false;
    G* next = p ? fast_next(p, inherit) : nullptr;
    if (next && !inherit) next_slice(p);
    leave_stack(m, gp, next, after, false);
    after_switch();
}

void park_commit(G* gp, M* m) {
    UnlockFn unlockf = m->waitunlockf;
    if (unlockf && !unlockf(gp, m->waitlock)) {
        goready(gp);
    }
}

void yield_commit(G* gp, M* m) {
    runqput(m->p, gp, false);
    runq_moved(m->p);
}

void gosched_commit(G* gp, M*) {
    LockGuard guard(sched.lock);
    globrunqput(gp);
}

void hog_commit(G* gp, M*) {
    LockGuard guard(sched.lock);
    globrunqput_hog(gp);
}

// The G may be running before these return, and what it waited at be gone.
bool unlock(G*, void* lock) {
    static_cast<Lock*>(lock)->unlock_last();
    return true;
}
void unlock_commit(G*, M* m) { static_cast<Lock*>(m->waitlock)->unlock_last(m->rseq); }

// Parks m's G, with `after`, or elsewhere with `unlockf`.
inline void park(M* m, void (*after)(G*, M*), UnlockFn unlockf, void* lock, WaitReason reason) {
    G* gp = m->curg;
    gp->waitreason = reason;
    note_wait(gp);
    gp->status.store(GStatus::kWaiting, kRelaxed); // relaxed: see G::status
    if (gp->lockedm) [[unlikely]]
        return park_locked(m, gp, unlockf, lock);
    m->waitlock = lock;
    switch_out(m, gp, after);
}

} // namespace

void gopark(UnlockFn unlockf, void* lock, WaitReason reason) {
    M* m = getm_or_null();
    if (!m) [[unlikely]]
        return foreign_park(unlockf, lock, reason);
    m->waitunlockf = unlockf;
    park(m, park_commit, unlockf, lock, reason);
}

void goparkunlock(Lock& lock, WaitReason reason) {
    M* m = getm_or_null();
    if (!m) [[unlikely]]
        return foreign_park(unlock, &lock, reason);
    park(m, unlock_commit, unlock, &lock, reason);
}

void goready(G* gp) {
    if (gp->forks != forks) [[unlikely]]
        return; // a channel of the parent's still names it
    if (gp->foreign) [[unlikely]]
        return foreign_ready(gp);
    gp->status.store(GStatus::kRunnable, kRelaxed); // relaxed: see G::status
    if (P* p = current_p()) {
        if (gp->lockedm && ready_locked(p, gp)) return;
        runqput(p, gp, true);
        if (!only_p() && !watched(p) && !pair_watched(p)) wakep();
        return;
    }
    {
        LockGuard guard(sched.lock);
        globrunqput(gp);
    }
    wakep();
}

bool goexit1(M* m, G* gp) {
    gp->status.store(GStatus::kDead, kRelaxed); // relaxed: see G::status
    P* p = m->p;
    bool inherit = false;
    // A locked G that ends takes its M along, by way of g0.
    G* next = p && !gp->lockedm ? fast_next(p, inherit) : nullptr;
    if (next && !inherit) next_slice(p);
    // Not from below a callable that lies on the stack: room that the next one would miss.
    if (next && !next->sched.sp && gp->closure == gp->room) {
        inherit_stack(m, gp, next);
        become(m, next);
        *m->eh = {};
        return true;
    }
    leave_stack(m, gp, next, goexit0, true);
    __builtin_unreachable();
}

void goyield() {
    M* m = getm();
    G* gp = m->curg;
    gp->status.store(GStatus::kRunnable, kRelaxed); // relaxed: see G::status
    if (gp->lockedm) [[unlikely]]
        return yield_locked(m, gp);
    runq_moves(m->p); // the next one leaves the queue before this one can be put there
    switch_out(m, gp, yield_commit);
}

void gosched(bool hog) {
    M* m = getm();
    G* gp = m->curg;
    gp->status.store(GStatus::kRunnable, kRelaxed); // relaxed: see G::status
    if (gp->lockedm) return gosched_locked(m, gp, hog);
    m->prev = gp;
    m->after = hog ? hog_commit : gosched_commit;
    switch_g_to_g0(m, gp);
    after_switch();
}

G* must_park(const char* what) {
    M* m = getm_or_null();
    if (!m && forked_from_goroutine() && !started())
        fatal("%s in a forked child, where the goroutine that forked is a plain thread: call it "
              "inside baton::run or baton::go",
              what);
    if (!m) return foreign_g();
    if (!m->curg) fatal("%s on a thread of the runtime's own", what);
    if (in_bracket(m))
        fatal("%s inside baton::blocking in goroutine %llu: a goroutine has no processor there; "
              "move the call out of the bracket",
              what, static_cast<unsigned long long>(m->curg->goid));
    return m->curg;
}

const char* to_string(WaitReason reason) noexcept {
    switch (reason) {
    case WaitReason::kNone:
        return "";
    case WaitReason::kSleep:
        return "sleep";
    case WaitReason::kChanReceive:
        return "chan receive";
    case WaitReason::kChanReceiveNil:
        return "chan receive (nil chan)";
    case WaitReason::kChanSend:
        return "chan send";
    case WaitReason::kChanSendNil:
        return "chan send (nil chan)";
    case WaitReason::kSelect:
        return "select";
    case WaitReason::kSelectNoCases:
        return "select (no cases)";
    case WaitReason::kSemacquire:
        return "semacquire";
    case WaitReason::kMutexLock:
        return "sync.Mutex.Lock";
    case WaitReason::kRWMutexRLock:
        return "sync.RWMutex.RLock";
    case WaitReason::kRWMutexLock:
        return "sync.RWMutex.Lock (other writers)";
    case WaitReason::kRWMutexDrain:
        return "sync.RWMutex.Lock";
    case WaitReason::kCondWait:
        return "sync.Cond.Wait";
    case WaitReason::kWaitGroupWait:
        return "sync.WaitGroup.Wait";
    case WaitReason::kOnceDo:
        return "sync.Once.Do";
    case WaitReason::kSemaphoreAcquire:
        return "sync.Semaphore.Acquire";
    case WaitReason::kLatchWait:
        return "sync.Latch.Wait";
    case WaitReason::kBarrierWait:
        return "sync.Barrier.Wait";
    case WaitReason::kIoWait:
        return "IO wait";
    case WaitReason::kFdReadLock:
        return "IO read lock";
    case WaitReason::kFdWriteLock:
        return "IO write lock";
    case WaitReason::kFileWait:
        return "file I/O";
    case WaitReason::kFileTurn:
        return "file I/O (too many at once)";
    case WaitReason::kLibcWait:
        return "libc wait";
    case WaitReason::kStackDump:
        return "stack dump";
    case WaitReason::kStoppingTheWorld:
        return "stopping the world";
    }
    return "?";
}

} // namespace baton::rt

namespace baton {

void yield() noexcept {
    rt::M* m = rt::getm_or_null();
    if (!m) {
        ::sched_yield();
        return;
    }
    if (!rt::in_gcode(m)) [[unlikely]] { // where it may yield, or dies
        rt::must_park("yield");
        rt::goyield();
        return;
    }
    rt::enter_runtime(m);
    if (!m->p) rt::settle(m); // which is a yield already
    rt::goyield();
    rt::leave_runtime(rt::getm());
}

std::uint64_t goid() noexcept {
    rt::M* m = rt::getm_or_null();
    return m && m->curg ? m->curg->goid : 0;
}

} // namespace baton
