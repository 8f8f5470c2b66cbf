// SPDX-License-Identifier: Apache-2.0
//
// entersyscall and exitsyscall: a G about to block in the kernel leaves its P where others can take
// it, and comes back for it.
//
// Nothing here may touch errno on the way through, and a G that comes back on another thread takes
// its errno along.
#include <cerrno>
#include <cstddef>

#include "baton/run.hpp"
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "runtime/start.hpp"
#include "runtime/switch.hpp"

namespace baton::rt {

namespace {

constexpr std::uint32_t kArmAnyway = 64; // one call in so many tries again
constexpr std::uint32_t kReturnsMost = 16;
constexpr std::uint32_t kWakesLooked = 3; // the last two, a bit each

// This thread's errno. Not inlined and opaque, as the address must be found anew after a park.
[[gnu::noinline]] int& thread_errno() {
    int* e = &errno;
    asm volatile("" : "+r"(e));
    return *e;
}

// The understudy of this CPU dozes. Waking it costs 1.3 us, so only where that has paid lately, or
// if `anyway`. False if it has not.
bool arm(P* p, std::uint32_t cpu, bool anyway = false) noexcept {
    // relaxed: a guess, and our own count.
    if (p->armscore.load(std::memory_order_relaxed) <= 0 && !anyway) return false;
    p->armscore.fetch_sub(1, std::memory_order_relaxed); // relaxed: as above
    assist::understudies.arm(cpu);
    return true;
}

[[gnu::noinline, gnu::cold]] M* arm_for_syscall(M* m, P* p) noexcept {
    // relaxed: one in so many is all that matters; the P may be another's, which counts too.
    const std::uint32_t tick = std::atomic_ref(p->rec->syscalltick).load(std::memory_order_relaxed);
    (void)arm(p, m->call_cpu, tick % kArmAnyway == 0);
    return m;
}

// A field of this thread's M. The kernel begins a call when all before it is done, and what is
// before it here is mostly loads that wait for each other: so none waits for the M's address.
#define BATON_OWN(field) arch::gs_load<decltype(M::field), offsetof(M, field)>()

// m->call and m->armed are those of the CPU it is on, as far as anybody knows.
inline M* leave_p(M* m, shared::p_rec* rec) noexcept {
    P* p = BATON_OWN(p);
    // relaxed: our own. Requests to hand over are work for the next M as well.
    rec->runq = runqlen(p) + p->unsubmitted.load(std::memory_order_relaxed);
    // relaxed: ours alone to write; sysmon wants to see it move.
    std::atomic_ref tick(rec->syscalltick);
    tick.store(tick.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    assist::enter(*rec, BATON_OWN(call));
    // From here on the P may be another's. relaxed: understudy.hpp, (A).
    if (BATON_OWN(armed)->load(std::memory_order_relaxed) == 0) return arm_for_syscall(m, p);
    return m;
}

// On another CPU than the last time, or where rseq does not tell.
[[gnu::noinline, gnu::cold]] M* entersyscall_elsewhere(M* m) noexcept {
    m->call_cpu = current_cpu(m);
    m->call = assist::call_word(static_cast<std::uint16_t>(m->slot),
                                static_cast<std::uint16_t>(m->call_cpu));
    m->armed = &assist::understudies.cpu(m->call_cpu).armed;
    return leave_p(m, m->prec);
}

// Queues the G that has no P; then its M has one after all, or sleeps.
void settle0(G* gp, M* m) {
    gp->status.store(GStatus::kRunnable, std::memory_order_relaxed); // relaxed: see G::status
    {
        LockGuard guard(sched.lock);
        globrunqput(gp);
    }
    // The G is published (seq_cst, in globrunqput); now look once more for an idle or takeable P:
    // who gave one up before it could see the G is seen here.
    if (P* p = take_any(m, nullptr)) {
        acquirep(m, p);
        return;
    }
    stopm(m);
}

// Gets m a P without waiting: the one it had if that is still there, or another.
bool regain_p(M* m) {
    P* old = m->p;
    bool was_marked = false;
    if (old && assist::reclaim(*old->rec, actor(m), was_marked)) {
        if (was_marked) {
            nblocked().fetch_sub(1, kSeqCst);
            blocked_ns(old).store(0, std::memory_order_relaxed); // relaxed: a stamp for people
        }
        return true;
    }
    m->p = nullptr;
    help_pending(current_cpu(m));
    P* p = take_any(m, old);
    if (p) acquirep(m, p);
    return p != nullptr;
}

// A P that goes from one M that comes back to the next runs none of its queue, and who comes back
// takes what is blocked and has work. So now and then the queue comes first.
bool queue_first(P* p) {
    const std::uint32_t tick = p->schedtick.load(std::memory_order_relaxed); // relaxed: our own
    if (p->returns_tick != tick) {
        p->returns_tick = tick;
        p->returns = 0;
    }
    return ++p->returns >= kReturnsMost && !runqempty(p);
}

// On credit: if it still has no P there is none to leave, and blocking keeps none from anybody.
[[gnu::noinline, gnu::cold]] M* entersyscall_on_credit(M* m) noexcept {
    enter_runtime(m);
    if (!m->p) {
        set_state(m, shared::M_CREDIT);
        return nullptr;
    }
    set_state(m, shared::M_SYSCALL);
    return entersyscall_elsewhere(m);
}

void stamp_credit(M* m) {
    // relaxed: a stamp, which who took the P may be setting just now.
    std::atomic_ref(m->rec->credit_ns)
        .store(static_cast<std::uint64_t>(kernel::nanotime()), std::memory_order_relaxed);
}

// One for each P: more would only take the CPUs from those who have Ps.
bool begin_credit(M* m) {
    // relaxed: a bound, not a promise.
    const std::uint32_t most = sched.gomaxprocs.load(std::memory_order_relaxed);
    if (sched.ncredit.load(std::memory_order_relaxed) >= most) return false;
    sched.ncredit.fetch_add(1, std::memory_order_relaxed); // relaxed: as above
    m->on_credit = true;
    stamp_credit(m);
    return true;
}

[[gnu::noinline]] void exitsyscall_slow(M* m) noexcept {
    if (!getm_or_null()) return; // it forked inside, and this is the child
    set_state(m, shared::M_RUNTIME);
    const int saved = thread_errno();
    if (regain_p(m)) {
        if (queue_first(m->p)) gosched(false);
        leave_runtime(getm());
    } else if (begin_credit(m)) {
        set_state(m, shared::M_CREDIT);
    } else {
        settle(m);
        leave_runtime(getm());
    }
    thread_errno() = saved;
}

} // namespace

void arm_after_idle(M* m) noexcept {
    P* p = m->p;
    // relaxed: a guess; counted by whoever takes the P.
    const std::uint64_t now = std::atomic_ref(p->rec->handoffs).load(std::memory_order_relaxed);
    const std::uint32_t blocked = now != p->wake_handoffs ? 1 : 0;
    p->wake_handoffs = now;
    p->wakes_blocked = (p->wakes_blocked << 1 | blocked) & kWakesLooked;
    if (p->wakes_blocked != kWakesLooked) return;
    const std::uint32_t cpu = current_cpu(m);
    // relaxed: looked at again by the call that blocks.
    if (assist::understudies.cpu(cpu).armed.load(std::memory_order_relaxed) == 0) (void)arm(p, cpu);
}

void enter_on_credit(M* m) noexcept {
    if (!getm_or_null()) goroutine_returned_in_child();
    const int saved = thread_errno();
    const bool had = m->p != nullptr;
    if (!regain_p(m) && had && !sched.probe) // which tells when it came back
        stamp_credit(m);
    thread_errno() = saved;
}

void settle(M* m) noexcept {
    const int saved = thread_errno();
    note_p(m, nullptr);
    G* gp = m->curg;
    if (gp->lockedm) {
        settle_locked(m, gp, false);
    } else {
        m->prev = gp;
        m->after = settle0;
        switch_g_to_g0(m, gp);
        after_switch();
    }
    thread_errno() = saved;
}

void leave_runtime_slow() noexcept {
    M* m = getm();
    if (!m->p) {
        // relaxed: see stamp_credit.
        const std::uint64_t since =
            std::atomic_ref(m->rec->credit_ns).load(std::memory_order_relaxed);
        const auto used = kernel::nanotime() - static_cast<std::int64_t>(since);
        if (used < kCreditNs) {
            set_state(m, shared::M_CREDIT);
            return;
        }
        settle(m);
        m = getm();
    }
    // relaxed, all three: see leave_runtime, and guesses.
    const std::uint32_t what = m->p->attention.load(std::memory_order_relaxed);
    if (what & kAttnArm) {
        const std::uint32_t cpu = current_cpu(m);
        // relaxed: the understudy's guess; the probe overwrites it.
        std::atomic_ref(m->rec->cpu).store(cpu, std::memory_order_relaxed);
        if (assist::understudies.cpu(cpu).armed.load(std::memory_order_relaxed) == 0 &&
            !arm(m->p, cpu))
            m->p->attention.fetch_and(~kAttnArm, std::memory_order_relaxed); // relaxed: as above
    }
    if (what & kAttnSchedule) {
        const int saved = thread_errno();
        gosched((what & kAttnPreempt) != 0);
        thread_errno() = saved;
    }
    set_state(getm(), shared::M_RUNNING);
}

} // namespace baton::rt

namespace baton::detail {

// Both are straight lines without a frame: every cold case is a tail call. The M found on the way
// in is handed to the way out, where each dependent load would delay the return of a cheap call.

void* entersyscall() noexcept {
    using namespace rt;
    M* m = getm_or_null();
    if (!m) return nullptr;
    if (BATON_OWN(rec)->state != shared::M_RUNNING) [[unlikely]]
        return in_gcode(m) ? entersyscall_on_credit(m) : nullptr;
    set_state(m, shared::M_SYSCALL);
    shared::p_rec* rec = BATON_OWN(prec);
    // relaxed: see holds_p.
    if (std::atomic_ref(rec->word).load(std::memory_order_relaxed) != BATON_OWN(run)) [[unlikely]]
        return entersyscall_on_credit(m);
    if (BATON_OWN(rseq)->cpu_id != BATON_OWN(call_cpu)) [[unlikely]]
        return entersyscall_elsewhere(m);
    return leave_p(m, rec);
}

void exitsyscall(void* entered) noexcept {
    using namespace rt;
    auto* m = static_cast<M*>(entered);
    if (!assist::leave_fast(*m->prec, m->call, m->run, m->rseq, m->call_cpu))
        return exitsyscall_slow(m);
    // As leave_runtime, which also asks for the P. relaxed: see there.
    if (m->p->attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
        return leave_runtime_slow();
    set_state(m, shared::M_RUNNING);
}

} // namespace baton::detail
