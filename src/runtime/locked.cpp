// SPDX-License-Identifier: Apache-2.0
//
// Goroutines locked to their thread (the reference's LockOSThread).
//
// A locked G never leaves its M, and nothing else runs there, not even the scheduler: it waits on
// its own stack, where it called, while its P goes on with another M. Whoever dequeues it hands its
// own P to that M (startlockedm) and parks.
//
//     M1, locked to A                         M2
//     A readies B, then parks
//     stoplockedm: P to M2, wait       --->   runs B, which readies A and parks
//     goes on with A                   <---   startlockedm: P to M1, stopm
//
// Each arrow is a futex wake and a sleep on either side in the reference. Here who passed its P on
// stays awake for some microseconds, as it is likely to get it back (watch), and a wake of an M
// that is awake is no system call. M2 is on no list meanwhile, which both would have to write to:
// M1 finds it by the P, and claims it. Nobody else is woken for what is queued on that P: were a
// third M to take B, each turn would cost a wake after all. Like an M that looks for work
// (findrunnable.cpp), a watcher looks once more after it has ceased to be one:
//
//     who queues a G on p                    the watcher of p
//     -------------------                    ----------------
//     publish the G                          p->watcher = 0
//     full barrier                           full barrier
//     p->watcher == 0?  then wakep           p's queue not empty?  then wakep
//
// How near the floor: two bare threads on two CPUs that hand over a value and a word, each a cache
// line, take 380 to 540 ns a round trip (benchmark locked), as long as two to three unlocked round
// trips. Ours, 1.7 to 2.4 us, has some ten lines each way: the P's, its record's, the channel's,
// the G's and what it waited for on its stack. So it is 12 to 17 unlocked ones, where the
// reference's is 22 to 30, and what helps is to ask for several lines at once.
// Three unlocked round trips, 360 to 600 ns, are not to be had: those two threads take 340 to 360
// for a word alone, 510 to 550 with three lines more to change on either side, asked for at once,
// and the channel, the G and its stack are as many whoever keeps the P; 620 to 640 with six, 760 to
// 820 with ten. So an M that kept its P while it is awake, and took its G straight, would save some
// 150 to 350 of ours.
// Tried in vain: asking as well for the channel that the G waits at; claiming a watcher without a
// look at it before; asking for the record of who is given a P before that is claimed.
#include "arch/x86_64/prefetch.hpp"
#include "arch/x86_64/walk.hpp"
#include "baton/run.hpp"
#include "kernel/clock.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::int64_t kWatchNs = 10'000; // how long work may wait for whoever watches
constexpr int kStackLines = 10;           // from the wait here to that of the G, and what it is for

bool worth_watching(M* m) { return spare_cpus() > 0 && m->watches.worth_it(); }

// Where the G of m is while it waits, for dumps: in the function that has one of these.
class StoppedHere {
public:
    [[gnu::always_inline]] explicit StoppedHere(M* m) : m_(m) {
        // relaxed: our own. Preempted it is where the signal came.
        if (m->stopped_at.load(kRelaxed)) return;
        arch::note_registers(&here_);
        mine_ = true;
        m->stopped_at.store(&here_, std::memory_order_release); // release: who reads it reads here_
    }
    ~StoppedHere() {
        if (mine_) m_->stopped_at.store(nullptr, kRelaxed); // relaxed: see snapshot.cpp
    }
    StoppedHere(const StoppedHere&) = delete;
    StoppedHere& operator=(const StoppedHere&) = delete;

private:
    M* m_;
    bool mine_ = false;
    arch::Registers here_;
};

// m's G is about to be seen by others, and its M to be handed a P: what m says of itself, and of
// its present P, is said before that.
void about_to_wait(M* m) {
    set_state(m, shared::M_LOCKED);
    note_p(m, nullptr);
}

void never_mind(M* m, G* gp) {
    note_p(m, m->p);
    set_state(m, shared::M_RUNTIME);
    gp->status.store(GStatus::kRunning, kRelaxed); // relaxed: see G::status
}

// The M that passed p on before, if it is still awake and nobody else's: then it is the caller's to
// give a P.
M* claim_watcher(const P* p) {
    // relaxed: a guess; it may be any M by now, or a locked one, which is never claimable.
    const std::uint32_t slot = p->watcher.load(kRelaxed);
    M* mp = slot != 0 ? sched.allm[slot] : nullptr;
    return mp && mp->claimable.load(kRelaxed) && mp->claimable.exchange(false, kSeqCst) ? mp
                                                                                        : nullptr;
}

// The record's line and the word are on their way before mp sees nextp, and looks at them.
void give_p(M* mp, P* p) {
    assist::hand_over(*p->rec, static_cast<std::uint16_t>(mp->slot));
    name_next(mp, p);
    mwake(mp);
}

// m, which may not look for work itself, gives up its P: to another M if there is work, and m is to
// watch it then; else to the idle list, whatever handoffp would have had others look for.
P* pass_on(M* m) {
    P* p = leave_p(m);
    if (!runqempty(p)) {
        const bool stay_awake = worth_watching(m);
        M* back = claim_watcher(p);
        p->watcher.store(stay_awake ? m->slot : 0, kRelaxed); // relaxed: goes along with the P
        if (back) {
            give_p(back, p);
        } else {
            startm(p, false);
        }
        return stay_awake ? p : nullptr;
    }
    p->watcher.store(0, kRelaxed); // relaxed: goes along with the P
    handoffp(p, false);
    return nullptr;
}

// m does not see to p's queue any longer. What it is about to run itself needs nobody.
void end_watch(M* m, P* p) {
    const bool back = m->nextp.load(kRelaxed) == p; // relaxed: then it is ours
    if (!back) {
        std::uint32_t mine = m->slot;
        p->watcher.compare_exchange_strong(mine, 0, kSeqCst);
    } // else whoever gave it back has put its own name there
    if (back ? runqlen(p) > 1 : !runqempty(p)) wakep();
}

// What m will write to once it has p comes at once, not one line after another: the P, and what its
// G finds changed, which are the G itself and, on a locked one's stack, what it waited for.
[[gnu::always_inline]] inline void fetch_ahead(const M* m, const P* p) {
    arch::prefetch_to_write(m->prec); // it will be the same, mostly
    arch::prefetch_to_write(p);
    arch::prefetch_to_write(&p->watcher);
    arch::prefetch_to_write(&p->runqhead);
    if (m->lockedg) {
        arch::prefetch_to_write(m->lockedg);
        const auto* top = static_cast<const std::byte*>(__builtin_frame_address(0));
        for (int line = 0; line < kStackLines; line++) arch::prefetch_to_write(top + 64 * line);
    } else if (const G* gp = p->runnext.load(kRelaxed)) { // relaxed: a guess
        arch::prefetch_to_write(gp);
    }
}

// Spins until m is handed a P. False: in vain.
bool look_for_p(const M* m, std::int64_t ns) {
    const std::int64_t until = kernel::nanotime() + ns;
    do {
        for (int i = 0; i < 16; i++) {
            const P* p = m->nextp.load(kRelaxed); // relaxed: has_nextp looks
            if (!p) continue;
            fetch_ahead(m, p);
            if (has_nextp(m)) return true;
        }
    } while (kernel::nanotime() < until);
    return false;
}

// m, locked, looks for a while, and sees to p's queue at first.
void watch(M* m, P* p) {
    bool got = look_for_p(m, kWatchNs);
    end_watch(m, p);
    got = got || look_for_p(m, Patience::kNs - kWatchNs);
    m->watches.note(got);
}

} // namespace

P* watch_unlisted(M* m, P* p) {
    const bool got = look_for_p(m, kWatchNs);
    end_watch(m, p);
    // seq_cst: with claim_watcher. Who was quicker gives m a P, if it has not yet.
    if (m->claimable.exchange(false, kSeqCst)) return nullptr;
    if (got) m->watches.note(true);
    return mpark(m);
}

void stay_awake(M* m) { m->watches.note(look_for_p(m, Patience::kNs - kWatchNs)); }

bool watched(const P* p) {
    // relaxed: the second look counts.
    if (p->watcher.load(kRelaxed) == 0) [[likely]]
        return false;
    std::atomic_thread_fence(kSeqCst); // see the head
    return p->watcher.load(kSeqCst) != 0;
}

// Another M woken for it would only wake its own.
bool ready_locked(const P* p, G* gp) {
    if (npidle().load(kRelaxed) == 0 || watched(p)) return false; // relaxed: else it is queued
    P* idle = nullptr;
    {
        LockGuard guard(sched.lock);
        if (!sched.gcwaiting.load(kRelaxed)) idle = pidleget(); // relaxed: changes under this lock
    }
    if (!idle) return false;
    next_slice(idle);
    give_p(gp->lockedm, idle);
    return true;
}

// What such a G holds may be what all others wait for, and the making of an M too.
bool start_preempted(P* p, bool spinning) {
    G* gp = nullptr;
    {
        LockGuard guard(sched.lock);
        // relaxed: changes under this lock
        if (!sched.gcwaiting.load(kRelaxed)) gp = globrunqget_preempted();
    }
    if (!gp) return false;
    if (spinning) give_back_claim();
    want_m();
    next_slice(p);
    give_p(gp->lockedm, p);
    return true;
}

void startlockedm(M* m, G* gp) {
    M* mp = gp->lockedm;
    P* p = releasep(m);
    const bool stay_awake = worth_watching(m);
    if (stay_awake) m->claimable.store(true, kRelaxed);   // relaxed: as the next
    p->watcher.store(stay_awake ? m->slot : 0, kRelaxed); // relaxed: goes along with the P
    give_p(mp, p);
    stopm(m, stay_awake ? p : nullptr);
}

void stoplockedm(M* m, P* watched) {
    end_credit(m);
    set_state(m, shared::M_LOCKED);
    sched.mlockedidle.fetch_add(1, kSeqCst);
    if (watched) watch(m, watched);
    acquirep(m, mpark(m));
    sched.mlockedidle.fetch_sub(1, kSeqCst);
    account_handoff(m->p);
    m->lockedg->status.store(GStatus::kRunning, kRelaxed); // relaxed: see G::status
}

void park_locked(M* m, G* gp, UnlockFn unlockf, void* lock) {
    const StoppedHere here(m);
    about_to_wait(m);
    if (unlockf && !unlockf(gp, lock)) return never_mind(m, gp);
    stoplockedm(m, m->p ? pass_on(m) : nullptr); // on credit there is none to pass on
}

void yield_locked(M* m, G* gp) {
    P* p = m->p;
    const std::int64_t when = p->timers.next_when.load(kRelaxed); // relaxed: our own, mostly
    if (when != 0 && kernel::nanotime() >= when) p->timers.run(kernel::nanotime());
    // relaxed: hints; what comes just now comes after the yield.
    if ((p->attention.load(kRelaxed) & kAttnSchedule) == 0 && runqsize().load(kRelaxed) == 0 &&
        runqempty(p)) {
        gp->status.store(GStatus::kRunning, kRelaxed); // relaxed: see G::status
        return;
    }
    const StoppedHere here(m);
    about_to_wait(m);
    runqput(p, gp, false);
    stoplockedm(m, pass_on(m));
}

// Also of a G that is preempted, in the handler: it has a while to wait, and watches nothing.
void gosched_locked(M* m, G* gp, bool hog) {
    const StoppedHere here(m);
    about_to_wait(m);
    {
        LockGuard guard(sched.lock);
        hog ? globrunqput_hog(gp) : globrunqput(gp);
    }
    handoffp(leave_p(m), false);
    stoplockedm(m);
}

// The end of settle: no P was to be had.
void settle_locked(M* m, G* gp, bool hog) {
    const StoppedHere here(m);
    about_to_wait(m);
    gp->status.store(GStatus::kRunnable, kRelaxed); // relaxed: see G::status
    {
        LockGuard guard(sched.lock);
        hog ? globrunqput_hog(gp) : globrunqput(gp);
    }
    // As in settle0: a P given up just before is seen here, and is another M's, which will
    // find the G and come to us.
    if (P* p = take_any(m, nullptr)) handoffp(p);
    stoplockedm(m);
}

// Its thread may be in any state by now, so nobody else shall have it.
void goexit_locked(M* m) {
    if (m->p) handoffp(releasep(m));
    m->lockedg = nullptr;
    m->lockedext = 0;
    mexit(m);
}

} // namespace baton::rt

namespace baton {

void lock_os_thread() noexcept {
    rt::M* m = rt::getm_or_null();
    if (!m) return;
    // No P and no queue is touched, so this is no runtime entry, and works inside blocking() too.
    m->lockedext++;
    m->lockedg = m->curg;
    m->curg->lockedm = m;
}

void unlock_os_thread() noexcept {
    rt::M* m = rt::getm_or_null();
    if (!m || m->lockedext == 0) return;
    if (--m->lockedext != 0) return;
    m->curg->lockedm = nullptr;
    m->lockedg = nullptr;
}

} // namespace baton
