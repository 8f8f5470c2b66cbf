// SPDX-License-Identifier: Apache-2.0
//
// Passing Ps on: from blocked Ms to those who need one, and to new work.
//
// A P whose M blocked passes on when somebody would use it (wanted). If nobody would, it stays
// where it is, in P_BLOCKED, and its M finds it again for nothing; but it counts as idle: a
// submitter of work that finds no idle P looks for a blocked one (nblocked).
//
// Who takes blocked Ps, best first: the understudy of the CPU; an M that lost its own P or ran out
// of work (the scan); the M woken through the ring buffer; wakep; sysmon. All by assist::take.
#include <poll.h>

#include "assist/asleep.hpp"
#include "kernel/clock.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kWakeLooks = 4; // then sysmon sees to it
// Submitters take blocked Ps for their work no oftener than this, for each P there is. Under load
// there are others to do it, all cheaper (the list at the head), while each wake across CPUs costs
// what several Gs do: without the bound a server lost a quarter of its requests to them.
constexpr std::int64_t kSubmitterTakesNs = 4'000'000;

bool has_work(const P* p) { return has_own_work(p) || runqsize().load(kSeqCst) != 0; }

// Moves a blocked P to m. seen is its word.
bool take_for(M* m, P* p, assist::Word seen, By by) {
    const assist::Actor me = actor(m);
    if (!assist::take(*p->rec, seen, me.slot, me)) return false;
    note_taken(p, seen, by);
    return true;
}

P* take_idle(M* m, P* wanted) {
    if (npidle().load(kSeqCst) == 0) return nullptr; // seq_cst: a second look after queueing a G
    P* p;
    {
        LockGuard guard(sched.lock);
        if (sched.gcwaiting.load(kRelaxed)) return nullptr; // relaxed: changes under this lock
        p = pidleget(wanted);
    }
    if (p) assist::hand_over(*p->rec, static_cast<std::uint16_t>(m->slot));
    return p;
}

// A blocked P; those without work first if `any`, only those with work if not.
P* take_blocked(M* m, bool any) {
    if (nblocked().load(kSeqCst) <= 0 ||
        sched.gcwaiting.load(kRelaxed)) // relaxed: stop_the_world repeats
        return nullptr;
    for (int pass = any ? 0 : 1; pass < 2; pass++) {
        for (std::uint32_t i = 0; i < procs(); i++) {
            P* p = sched.allp[i];
            const assist::Word seen = assist::load(*p->rec);
            if (!seen.marked() || seen.taker != 0) continue;
            if (pass == 0 ? has_own_work(p) : !any && !has_work(p)) continue;
            if (take_for(m, p, seen, By::kScan)) return p;
        }
    }
    return nullptr;
}

// May a submitter take a blocked P now? What it may not take another does, at the latest sysmon.
bool may_take_blocked() {
    // relaxed, both: a bound, not a promise.
    return nblocked().load(kRelaxed) > 0 &&
           kernel::nanotime() >= sched.submitter_takes_ns.load(kRelaxed);
}

// Is there no P for new work? Then whoever goes idle next is to look for it.
bool left_to_who_idles() {
    // seq_cst, and below: the second shape in findrunnable.cpp.
    if (npidle().load(kSeqCst) != 0 || may_take_blocked()) return false;
    if (sched.needspinning.load(kRelaxed)) return true; // relaxed: still set, not yet heeded
    sched.needspinning.store(true, kSeqCst);
    return npidle().load(kSeqCst) == 0;
}

void put_back(M* m, std::uint32_t cpu) {
    m->near = 0;
    unsteer(m);
    mput(m, cpu);
}

// Finds an M for new work: an idle P goes to it, or a blocked one.
bool start_spinning_m(Where where) {
    P* p = nullptr;
    {
        LockGuard guard(sched.lock);
        if (!sched.gcwaiting.load(kRelaxed)) p = pidleget(); // relaxed: changes under this lock
    }
    if (p) {
        startm(p, true, where);
        return true;
    }
    if (!may_take_blocked()) return false;
    M* m = getm_or_null();
    if (!m) { // a plain thread has no part in the ownership protocol
        sched.retake_now.store(true, kSeqCst);
        wake_sysmon();
        return false;
    }
    for (std::uint32_t i = 0; i < procs(); i++) {
        P* q = sched.allp[i];
        const assist::Word seen = assist::load(*q->rec);
        if (!seen.marked() || seen.taker != 0) continue;
        const assist::Actor me = actor(m);
        if (!assist::take(*q->rec, seen, me.slot, me)) continue;
        note_taken(q, seen, By::kScan);
        // relaxed: as in may_take_blocked.
        sched.submitter_takes_ns.store(kernel::nanotime() + kSubmitterTakesNs / procs(), kRelaxed);
        startm(q, true);
        return true;
    }
    return false;
}

} // namespace

bool wanted(const P* p) {
    // The probe asks the same of the records (bpf/handoff.bpf.c). relaxed: whoever is missed here
    // is seen by wakep, which looks at nblocked after publishing work, or by sysmon.
    if (has_own_work(p) || runqsize().load(kRelaxed) != 0) return true;
    if (nmspinning().load(kRelaxed) != 0) return false;
    return npidle().load(kRelaxed) == 0 || unpolled().load(kRelaxed) != 0;
}

void note_taken(P* p, assist::Word seen, By by) {
    if (seen.marked()) nblocked().fetch_sub(1, kSeqCst);
    // relaxed: counters for people, and a guess; the new owner may run already.
    std::atomic_ref(p->rec->handoffs).fetch_add(1, kRelaxed);
    p->armscore.store(kArmScore, kRelaxed);
    if (seen.state == shared::P_OFFCPU || seen.state == shared::P_RUN)
        p->attention.fetch_or(kAttnArm, kRelaxed); // unannounced
    if (seen.state == shared::P_RUN)               // its M may be back and overwrite it: a stamp
        std::atomic_ref(sched.records.m[seen.owner].credit_ns)
            .store(static_cast<std::uint64_t>(kernel::nanotime()), kRelaxed);
    sched.handoffs[static_cast<int>(by)].fetch_add(1, kRelaxed);
}

void wakep(Where where) {
    std::atomic_thread_fence(kSeqCst);            // the submitter's barrier (findrunnable.cpp)
    if (nmspinning().load(kRelaxed) != 0) return; // relaxed: after the fence
    // The probe raises nblocked, marks the word, and then looks at nmspinning: it may have seen our
    // claim while we saw the word unmarked. An M that is about to give up its P may have seen it,
    // too. So a claim given back in vain is followed by another look, and only then is whoever goes
    // idle told to look (the reference does that first, under sched.lock).
    for (int i = 0; i < kWakeLooks && !left_to_who_idles(); i++) {
        std::uint32_t none = 0;
        if (!nmspinning().compare_exchange_strong(none, 1)) return;
        if (start_spinning_m(where)) return;
        nmspinning().fetch_sub(1, kSeqCst);
    }
}

void handoffp(P* p, bool spin) {
    if (has_work(p)) {
        startm(p, false);
        return;
    }
    std::uint32_t none = 0;
    if (spin && npidle().load(kSeqCst) == 0 && nmspinning().compare_exchange_strong(none, 1)) {
        startm(p, true);
        return;
    }
    {
        LockGuard guard(sched.lock);
        if (globrunqempty() && unpolled().load(kSeqCst) == 0) {
            pidleput(p);
            p = nullptr;
        }
    }
    if (p) {
        startm(p, false);
    } else if (sched.needspinning.load(kSeqCst)) { // the second shape in findrunnable.cpp
        wakep();
    }
}

void give_back_claim() {
    nmspinning().fetch_sub(1, kSeqCst);
    sched.needspinning.store(true, kSeqCst); // the second shape in findrunnable.cpp
    if (npidle().load(kSeqCst) == 0) return;
    sched.retake_now.store(true, kSeqCst);
    wake_sysmon();
}

P* take_any(M* m, P* old) {
    if (old) {
        const assist::Word seen = assist::load(*old->rec);
        // Another M lost its P to us fairly only if the kernel blocked it.
        if (seen.marked() && seen.taker == 0 &&
            !sched.gcwaiting.load(kRelaxed) && // relaxed: stop_the_world takes it from us again
            take_for(m, old, seen, By::kScan))
            return old;
    }
    if (P* p = take_idle(m, old)) return p;
    return take_blocked(m, true);
}

P* take_blocked_with_work(M* m) { return take_blocked(m, false); }

bool hand_blocked(P* p, assist::Word seen, const assist::Actor& me, std::uint32_t cpu, By by) {
    M* m = mget_near(cpu);
    if (!m) return false;
    const bool spin = !has_work(p);
    std::uint32_t none = 0;
    if (spin && !nmspinning().compare_exchange_strong(none, 1)) {
        put_back(m, cpu);
        return false;
    }
    // The new owner is named in the one store that takes the P: were the understudy to own it for a
    // moment, losing the CPU just then would keep the P from everybody.
    IdleMs& here = sched.idle_ms[cpu];
    m->spinning = spin;
    name_next(m, p);
    here.pending.store(m->slot, kSeqCst);
    const bool taken = assist::take(*p->rec, seen, static_cast<std::uint16_t>(m->slot), me);
    if (taken) {
        note_taken(p, seen, by);
        mwake(m);
    } else {
        name_next(m, nullptr);
        m->spinning = false;
        put_back(m, cpu);
        if (spin) give_back_claim();
    }
    here.pending.store(0, kSeqCst);
    return taken;
}

assist::Found understudy_dispatch(std::uint32_t p_slot, assist::Word seen, const assist::Actor& me,
                                  std::uint32_t cpu) {
    using assist::Found;
    P* p = sched.allp[p_slot - 1];
    if (!p || sched.gcwaiting.load(kRelaxed) || !wanted(p)) // relaxed: stop repeats
        return Found::kNothing;
    const bool running = seen.state == shared::P_RUN;
    if (running) {
        // relaxed: a guess. Without it its M says on no leaving the runtime which CPU it is on.
        if ((p->attention.load(kRelaxed) & kAttnArm) == 0) return Found::kNothing;
        if (!assist::claim_asleep(sched.records, *p->rec, seen, me)) return Found::kAwake;
    }
    if (hand_blocked(p, seen, me, cpu, By::kUnderstudy)) return Found::kTaken;
    if (running) assist::unclaim(*p->rec, seen);
    return Found::kNothing;
}

P* standby_wait(M* m) {
    struct Ctx {
        M* m;
        P* got;
    } ctx{m, nullptr};
    auto on_event = [](void* c, const shared::wake_event& ev) {
        auto* x = static_cast<Ctx*>(c);
        if (ev.p == 0 || ev.p > procs() || sched.gcwaiting.load(kRelaxed)) return; // relaxed: hint
        P* p = sched.allp[ev.p - 1];
        const assist::Word seen = assist::load(*p->rec);
        if (!seen.marked() || seen.taker != 0 || !wanted(p)) return;
        if (!x->got) {
            if (take_for(x->m, p, seen, By::kRingbuf)) x->got = p;
        } else {
            (void)hand_blocked(p, seen, actor(x->m), current_cpu(x->m), By::kRingbuf);
        }
    };
    shared::sched_rec* rec = sched.records.sched;
    std::atomic_ref(rec->standby).store(1, kSeqCst);
    while (!ctx.got) {
        sched.probe->consume(on_event, &ctx);
        if (ctx.got) break;
        pollfd pfd{sched.probe->events_fd(), POLLIN, 0};
        (void)::poll(&pfd, 1, -1);
    }
    std::atomic_ref(rec->standby).store(0, kSeqCst);
    sched.has_standby.store(false,
                            kSeqCst); // the next M that parks takes its place, or sysmon sends one
    return ctx.got;
}

} // namespace baton::rt
