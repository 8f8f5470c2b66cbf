// SPDX-License-Identifier: Apache-2.0
//
// schedule, execute, and the passing of Ps between Ms and the idle list.
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "runtime/switch.hpp"

namespace baton::rt {

namespace {

// Runs gp until it leaves; returns on g0.
void execute(M* m, G* gp, bool inherit) {
    if (!inherit) next_slice(m->p);
    account_handoff(m->p);
    switch_g0_to_g(m, gp);
    after_switch();
}

} // namespace

void schedule(M* m) {
    after_switch();
    for (;;) {
        if (!m->p) find_p(m); // its G ran on credit
        bool inherit = true;  // its switch has seen to the slice
        G* gp = m->lockednext;
        m->lockednext = nullptr;
        if (!gp) gp = findrunnable(m, inherit);
        if (m->pair) end_pair(m, m->spinning);
        if (m->spinning) {
            // Found work: one fewer looks for it, and if that was the last, another must look on
            // our behalf (wakep's other side).
            m->spinning = false;
            nmspinning().fetch_sub(1, kSeqCst);
            wakep();
        }
        if (gp->lockedm) {
            if (!inherit) next_slice(m->p);
            startlockedm(m, gp);
            continue;
        }
        execute(m, gp, inherit);
    }
}

void end_credit(M* m) {
    if (!m->on_credit) return;
    m->on_credit = false;
    sched.ncredit.fetch_sub(1, std::memory_order_relaxed); // relaxed: a bound, not a promise
}

void acquirep(M* m, P* p) {
    end_credit(m);
    m->p = p;
    m->prec = p->rec;
    note_p(m, p);
    set_state(m, m->spinning ? shared::M_SPINNING : shared::M_RUNTIME);
    // Handed off: by the probe's stamp, until the first G runs. relaxed: stamps for people.
    if (const std::uint64_t ns = blocked_ns(p).load(std::memory_order_relaxed)) {
        p->handoff_ns = static_cast<std::int64_t>(ns);
        blocked_ns(p).store(0, std::memory_order_relaxed); // relaxed: as above
    }
}

void account_handoff(P* p) {
    if (!p->handoff_ns) return;
    sched.handoff_ns.add(kernel::nanotime() - p->handoff_ns);
    p->handoff_ns = 0;
}

P* releasep(M* m) {
    note_p(m, nullptr);
    return leave_p(m);
}

P* leave_p(M* m) {
    P* p = m->p;
    m->p = nullptr;
    p->handoff_ns = 0;
    return p;
}

void pidleput(P* p) {
    assist::give_up(*p->rec, shared::P_IDLE);
    p->link = sched.pidle;
    sched.pidle = p;
    npidle().fetch_add(1, kSeqCst);
}

// The idle P `wanted` if it is idle, else the one put there last. It stays P_IDLE, held by being on
// no list, until it is handed over. sched.lock held.
P* pidleget(P* wanted) {
    P** link = &sched.pidle;
    if (wanted) {
        for (P** l = link; *l; l = &(*l)->link) {
            if (*l == wanted) {
                link = l;
                break;
            }
        }
    }
    P* p = *link;
    if (!p) return nullptr;
    *link = p->link;
    p->link = nullptr;
    const bool last = npidle().fetch_sub(1, kSeqCst) == 1;
    // relaxed: after the locked operation.
    if (sched.sysmonwait.load(std::memory_order_relaxed) && (last || sched.tier == Assist::kSysmon))
        wake_sysmon();
    return p;
}

void injectglist(GList& list) {
    if (list.empty()) return;
    P* p = current_p();
    // As many as idle Ps could run go where they find them; the rest are ours.
    const std::uint32_t share = p ? npidle().load(kSeqCst) : list.n;
    GChains out;
    while (G* gp = list.pop()) {
        gp->status.store(GStatus::kRunnable, std::memory_order_relaxed); // relaxed: see G::status
        if (out.size() < share) {
            out.push_back(gp);
        } else {
            runqput(p, gp, false);
        }
    }
    if (p) runq_is_cold(p, kAskAtOnce - 1); // see netpoll
    const std::uint32_t n = out.size();
    if (n != 0) {
        LockGuard guard(sched.lock);
        globrunqput_all(out);
    }
    // One wake-up each as far as there are idle Ps; they chain on from there.
    for (std::uint32_t i = 0; !p && i < n && npidle().load(kSeqCst) > 0; i++) {
        P* idle;
        {
            LockGuard guard(sched.lock);
            idle = pidleget();
        }
        if (!idle) break;
        startm(idle, false);
    }
    wakep();
}

} // namespace baton::rt
