// SPDX-License-Identifier: Apache-2.0
//
// findrunnable: where an M gets its next G from, in the reference's order (but for steal_stalled),
// and how it goes to sleep without missing one.
//
// Looking for work ("spinning") and being woken for it are two sides of one protocol; both do their
// own store first, then a full barrier, then look at what the other stores:
//
//     a submitter (goready, newproc, inject)       an M that stops spinning
//     --------------------------------------      ------------------------
//     publish the G on a queue                     nmspinning--
//     full barrier                                 full barrier
//     nmspinning == 0?  then wake a P              any queue non-empty?  then spin again
//
// If both looked too early, each would have seen the other's store: the G cannot be left with all
// Ms asleep. The same shape once more for needspinning, also where the last look finds work and no
// P for it (pidleget_spinning): an M that does not spin, as somebody does, may give one up just
// then.
//
//     a submitter that sees no idle P              an M that goes idle without having spun
//     ------------------------------              ---------------------------------------
//     needspinning = true                          put the P on the idle list
//     full barrier                                 full barrier
//     an idle P after all?  then wake it           needspinning?  then take a P and spin
//
// A Spin model holds these, and the pairs of pair.cpp, to be needed (tests/model/wakep.pml).
//
// And an M that finds nothing looks for a blocked P with work before it sleeps (the scan): under
// saturation most handoffs happen there, for nothing.
#include <immintrin.h>

#include <algorithm>

#include "kernel/clock.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/ring.hpp"
#include "runtime/sched.hpp"
#include "runtime/steal_order.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kStealPasses = 4;
// How many due timers are run before Gs are, again: as many as leave the ring half empty. More
// would spill into the global queue, where one in 61 is served while the ring has some.
constexpr std::uint32_t kTimersMax = 64;
std::uint32_t timers_at_once(const P* p) {
    const std::uint32_t queued = std::min(runqlen(p), kRunqSize / 2 - 1);
    return std::min(kRunqSize / 2 - queued, kTimersMax);
}

// Runs due timers, p's first of which was due at `when`; or those of some other P that are overdue
// by more: its M may wait for a CPU meanwhile, and nobody be idle who would see to them.
constexpr std::int64_t kOverdueNs = 1'000'000;
void run_timers(M* m, P* p, std::int64_t when, std::int64_t now) {
    P* other = sched.allp[fastrand(m) % procs()];
    const std::int64_t its = other->timers.next_when.load(kRelaxed); // relaxed: a hint
    P* at = its != 0 && std::min(when, now) - its > kOverdueNs ? other : p;
    at->timers.run(now, timers_at_once(p));
}

void become_spinning(M* m) {
    m->spinning = true;
    nmspinning().fetch_add(1, kSeqCst);
    sched.needspinning.store(false, kSeqCst);
    set_state(m, shared::M_SPINNING);
}

// What others have asked of this P's holder. True: the P is gone and another one is held now.
bool heed_attention(M* m, P* p) {
    // relaxed: each request is repeated until it is met, or harmless when late.
    const std::uint32_t what = p->attention.load(kRelaxed) & kAttnSchedule;
    if (what == 0) return false;
    if (what & kAttnStop) {
        gcstopm(m);
        return true;
    }
    p->attention.fetch_and(~what, kSeqCst);
    if (what & kAttnPreempt) {
        // The slice is over: the pair that shares it through runnext goes behind the others.
        if (G* next = p->runnext.exchange(nullptr, kSeqCst)) runqput(p, next, false);
        next_slice(p);
    }
    return (what & kAttnTurn) != 0 && take_turn(m);
}

// Null as well while another M looks: its Gs come by the queues.
G* poll_network() {
    // relaxed: a hint; and a flag that says no more than that somebody looks.
    if (sched.polling.load(kRelaxed) || sched.polling.exchange(true, kRelaxed)) return nullptr;
    std::int64_t last = sched.lastpoll.load(kSeqCst);
    GList list = netpoll(0);
    sched.polling.store(false, kRelaxed); // relaxed: as above
    // Not if somebody has begun to wait there meanwhile, which its 0 says.
    if (last != 0) sched.lastpoll.compare_exchange_strong(last, kernel::nanotime());
    G* gp = list.pop();
    if (gp) gp->status.store(GStatus::kRunnable, kRelaxed); // relaxed: see G::status
    injectglist(list);
    return gp;
}

// Four passes over the others' queues; the last takes due timers and runnext as well.
G* steal_work(M* m, bool& new_work) {
    P* p = m->p;
    G* found = nullptr;
    for (int pass = 0; pass < kStealPasses && !found && !new_work; pass++) {
        const bool last = pass == kStealPasses - 1;
        in_random_order(procs(), fastrand(m), [&](std::uint32_t i) {
            P* victim = sched.allp[i];
            if (sched.gcwaiting.load(kRelaxed)) { // relaxed: seen again at the top
                new_work = true;
                return true;
            }
            if (victim == p) return false;
            if (last) {
                const std::int64_t when =
                    victim->timers.next_when.load(kRelaxed); // relaxed: a hint
                if (when != 0 && when <= kernel::nanotime()) {
                    victim->timers.run(kernel::nanotime(), kTimersMax);
                    if (!runqempty(p)) {
                        new_work = true;
                        return true;
                    }
                }
            }
            found = runqsteal(p, victim, last);
            return found != nullptr;
        });
    }
    return found;
}

// Steals from a P that has taken nothing off its queue since m looked last: as likely as not the
// kernel has given the CPU of its M to somebody else, for milliseconds. (One that runs a long G is
// no loss either.) That comes before the network, where under load there is always something, so
// that nobody would come to steal. One P is looked at each time.
G* steal_stalled(M* m, P* p) {
    const std::uint32_t n = procs();
    if (n == 1) return nullptr;
    // relaxed, both: a hint; runqsteal looks again.
    const bool stalled =
        m->stalled && m->stalled != p && m->stalled->runqhead.load(kRelaxed) == m->stalled_head;
    G* gp = stalled ? runqsteal(p, m->stalled, false) : nullptr;
    if (!gp) m->stalled = sched.allp[(p->slot + fastrand(m) % (n - 1)) % n];
    m->stalled_head = m->stalled->runqhead.load(kRelaxed); // relaxed: as above
    // As after any theft: who looked at one of the two queues before it and at the other one after
    // has seen none of these.
    if (gp && !runqempty(p)) wakep();
    return gp;
}

// When the first timer of any P is due; 0 for none.
std::int64_t first_timer() {
    std::int64_t first = 0;
    const std::uint32_t n = procs();
    for (std::uint32_t i = 0; i < n; i++) {
        const std::int64_t when =
            sched.allp[i]->timers.next_when.load(kSeqCst); // seq_cst: with wake_netpoller
        if (when != 0 && (first == 0 || when < first)) first = when;
    }
    return first;
}

// As pidleget, for work that was found: if there is none, whoever gives one up next looks for it.
// sched.lock held, as by who does.
P* pidleget_spinning(P* wanted) {
    P* p = pidleget(wanted);
    if (!p) sched.needspinning.store(true, kSeqCst); // see the head
    return p;
}

// An idle P to go on with, if there is one: `wanted` if that is one.
bool take_idle(M* m, bool spin, P* wanted = nullptr) {
    P* p;
    {
        LockGuard guard(sched.lock);
        if (sched.gcwaiting.load(kRelaxed)) return false; // relaxed: changes under this lock
        p = spin ? pidleget_spinning(wanted) : pidleget(wanted);
    }
    if (!p) return false;
    assist::hand_over(*p->rec, static_cast<std::uint16_t>(m->slot));
    acquirep(m, p);
    if (spin) become_spinning(m);
    return true;
}

// The last look at all queues, of an M that ceases to look for work. `its`: whose, if it is a P's.
bool any_work(P** its) {
    if (runqsize().load(kSeqCst) != 0) return true;
    const std::uint32_t n = procs();
    for (std::uint32_t i = 0; i < n; i++) {
        *its = sched.allp[i];
        if (has_own_work(*its) && !seen_to(*its)) return true;
    }
    return false;
}

// For one without a P, before it sleeps. True: it has a P again.
bool work_after_all(M* m) {
    P* its = nullptr;
    // Gs can be stolen, requests only be handed over by who holds the P.
    return any_work(&its) && take_idle(m, true, its);
}

// Waits for the network and the first timer, as the one M that does. True: it has a P, and perhaps
// *found.
bool blocking_poll(M* m, std::int64_t until, G** found) {
    if (sched.lastpoll.exchange(0, kSeqCst) == 0) return false; // another one does
    if (m->pair) end_pair(m, false);
    sched.poll_until.store(until, kSeqCst);
    unpolled().store(0, kSeqCst);
    // A timer set since first_timer was looked at finds lastpoll 0 and breaks the poll; look again
    // for one set before that.
    const std::int64_t first = first_timer();
    if (first != 0 && (until == 0 || first < until)) {
        until = first;
        sched.poll_until.store(until, kSeqCst);
    }
    std::int64_t delay = -1;
    if (until != 0) delay = std::max<std::int64_t>(until - kernel::nanotime(), 0);
    set_state(m, shared::M_IDLE);
    GList list = netpoll(delay);
    sched.poll_until.store(0, kSeqCst);
    unpolled().store(1, kSeqCst);
    sched.lastpoll.store(kernel::nanotime(), kSeqCst);
    if (!take_idle(m, false)) {
        if (P* p = take_any(m, nullptr)) {
            acquirep(m, p);
        } else {
            injectglist(list);
            return false;
        }
    }
    arm_after_idle(m);
    *found = list.pop();
    // relaxed: see G::status
    if (*found) (*found)->status.store(GStatus::kRunnable, kRelaxed);
    if (*found) {
        injectglist(list);
    } else {
        become_spinning(m);
    }
    return true;
}

// From the global queue, as globrunqget. What comes with the first goes to p's ring once the lock
// is free: to look at Gs that have not run for long takes a while.
G* take_global(P* p, std::uint32_t max) {
    GQueue q;
    {
        LockGuard guard(sched.lock);
        q = globrunqget(p, max);
    }
    return first_of(p, q);
}

// One in 61 is seldom where each takes its whole time slice: then one each kOverdueGlobalNs. Not a
// hog, whose turn would come before those on p's queue that have just been woken.
constexpr std::int64_t kOverdueGlobalNs = 50'000'000;
G* take_overdue(P* p) {
    const std::int64_t now = kernel::nanotime();
    if (now < p->overdue_when) return nullptr;
    p->overdue_when = now + kOverdueGlobalNs;
    LockGuard guard(sched.lock);
    return globrunqget_other();
}

bool look_for_answer(const P* p) {
    const std::int64_t until = kernel::nanotime() + Patience::kNs;
    for (std::int64_t now = 0; now < until; now = kernel::nanotime()) {
        for (int i = 0; i < 16; i++) {
            if (runqsize().load(kRelaxed) != 0) return true; // relaxed: seen again under the lock
            _mm_pause();
        }
        // relaxed, both: looked at again by the caller.
        const std::int64_t when = p->timers.next_when.load(kRelaxed);
        if ((p->attention.load(kRelaxed) & kAttnSwitch) != 0 || (when != 0 && when <= now)) break;
    }
    return false;
}

// A plain thread that m's last G talked to, and that is awake, may have an answer soon. That goes
// by the global queue, and finds in m one who looks for work and need not be woken. Nor is another
// woken in m's place if it was all there is.
G* linger(M* m) {
    if (!m->answered) return nullptr;
    m->answered = false;
    if (!m->lingers.worth_it()) return nullptr;
    G* gp = look_for_answer(m->p) ? take_global(m->p, 0) : nullptr;
    m->lingers.note(gp != nullptr);
    if (!gp) return nullptr;
    m->spinning = false;
    nmspinning().fetch_sub(1, kSeqCst); // seq_cst: the spinner's full barrier, see the head
    P* its = nullptr;
    if (any_work(&its)) wakep();
    return gp;
}

// Gives up the P, having found nothing; sleeps until there is one again. May come back with a G.
G* give_up_and_wait(M* m) {
    ring_submit(m->p); // which was to wait for Gs that others have stolen since
    GQueue q;
    {
        LockGuard guard(sched.lock);
        if (sched.gcwaiting.load(kRelaxed)) return nullptr; // relaxed: changes under this lock
        q = globrunqget(m->p, 0);
        if (q.empty() && !m->spinning && sched.needspinning.load(kSeqCst)) {
            become_spinning(m);
            return nullptr;
        }
        if (q.empty()) pidleput(releasep(m));
    }
    if (!q.empty()) return first_of(m->p, q);
    const bool was_spinning = m->spinning;
    if (was_spinning) {
        m->spinning = false;
        nmspinning().fetch_sub(1, kSeqCst); // seq_cst: the spinner's full barrier, see the head
        if (work_after_all(m)) return nullptr;
    } else if (sched.needspinning.load(kSeqCst) &&
               take_idle(m, true)) { // seq_cst: the second shape
        return nullptr;
    }
    const std::int64_t until = first_timer();
    G* found = nullptr;
    if (until == 0 && !netpoll_any_waiters()) {
        unpolled().store(0, kSeqCst);
        if (first_timer() != 0 || netpoll_any_waiters()) note_unpolled(); // begun meanwhile
    } else {
        if (blocking_poll(m, until, &found)) return found;
        // Another M waits already: it must not wait past our timer.
        const std::int64_t its = sched.poll_until.load(kSeqCst);
        if (until != 0 && (its == 0 || its > until) && sched.lastpoll.load(kSeqCst) == 0)
            netpollbreak();
    }
    find_p(m);
    return nullptr;
}

} // namespace

void find_p(M* m) {
    if (P* p = take_blocked_with_work(m)) {
        acquirep(m, p);
        become_spinning(m); // until it has a G: there may be more than one
        return;
    }
    stopm(m);
}

G* findrunnable(M* m, bool& inherit) {
    for (;;) {
        P* p = m->p;
        if (heed_attention(m, p)) continue;
        if (p->attention.load(kRelaxed) & kAttnRing) ring_round(p);   // relaxed: its owner's bit
        const std::int64_t when = p->timers.next_when.load(kRelaxed); // relaxed: our own, mostly
        if (when != 0) {
            const std::int64_t now = kernel::nanotime();
            if (now >= when) run_timers(m, p, when, now);
        }
        inherit = false;
        // Now and then the global queue first, or two Gs that ready each other would starve it.
        // relaxed: our own tick, and a hint.
        if (runqsize().load(kRelaxed) != 0) {
            G* gp = p->schedtick.load(kRelaxed) % 61 == 0 ? take_global(p, 1) : take_overdue(p);
            if (gp) return gp;
        }
        if (G* gp = runqget(p, inherit)) return gp;
        if (runqsize().load(kRelaxed) != 0) { // relaxed: looked at again before sleeping
            if (G* gp = take_global(p, 0)) return gp;
        }
        if (netpoll_any_waiters() && sched.lastpoll.load(kRelaxed) != 0) { // relaxed: a hint
            if (G* gp = steal_stalled(m, p)) return gp;
            if (G* gp = poll_network()) return gp;
        }
        // At most half as many look as work: the rest would only fight.
        if (m->spinning || 2 * nmspinning().load(kRelaxed) < procs() - npidle().load(kRelaxed)) {
            if (!m->spinning) become_spinning(m); // relaxed above: a bound, not a promise
            bool new_work = false;
            if (G* gp = steal_work(m, new_work)) return gp;
            if (new_work) continue;
            if (G* gp = linger(m)) return gp;
        }
        if (G* gp = give_up_and_wait(m)) return gp;
    }
}

// There is something to wait for and perhaps nobody who does: a blocked P is wanted for that.
void note_unpolled() {
    if (sched.lastpoll.load(kSeqCst) != 0) unpolled().store(1, kSeqCst);
}

void wake_poller() {
    // seq_cst: the waiter was counted before, and an M that goes to sleep gives up its P, and
    // lastpoll if it held that, and then looks for waiters. One of the two sees the other.
    if (sched.lastpoll.load(kSeqCst) == 0) return;
    note_unpolled();
    wakep();
}

// A timer was set for `when`: whoever waits for the first one must not wait past it.
void wake_netpoller(std::int64_t when) {
    // seq_cst: the timer was published in next_when before; blocking_poll sets lastpoll to 0 and
    // then reads next_when. One of the two sees the other.
    if (sched.lastpoll.load(kSeqCst) == 0) {
        const std::int64_t until = sched.poll_until.load(kSeqCst);
        if (until == 0 || until > when) netpollbreak();
    } else {
        note_unpolled();
        wakep();
    }
}

} // namespace baton::rt
