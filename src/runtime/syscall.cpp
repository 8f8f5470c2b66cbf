// SPDX-License-Identifier: Apache-2.0
//
// entersyscall and exitsyscall: a G about to block in the kernel leaves its P where others can take
// it, and comes back for it.
//
// Nothing here may touch errno on the way through, and a G that comes back on another thread takes
// its errno along.
#include <cerrno>

#include "baton/run.hpp"
#include "runtime/sched.hpp"
#include "runtime/switch.hpp"

namespace baton::rt {

namespace {

constexpr std::uint32_t kArmAnyway = 64; // one call in so many tries again

// This thread's errno. Not inlined and opaque, as the address must be found anew after a park.
[[gnu::noinline]] int& thread_errno() {
    int* e = &errno;
    asm volatile("" : "+r"(e));
    return *e;
}

// The understudy of this CPU dozes. Waking it costs 1.3 us, so only where that has paid lately.
[[gnu::noinline, gnu::cold]] M* arm(M* m, P* p, std::uint32_t cpu) {
    // relaxed: a guess, and our own count.
    if (p->armscore.load(std::memory_order_relaxed) > 0 || p->rec->syscalltick % kArmAnyway == 0) {
        p->armscore.fetch_sub(1, std::memory_order_relaxed); // relaxed: as above
        assist::understudies.arm(cpu);
    }
    return m;
}

inline M* leave_p(M* m, P* p, std::uint32_t cpu) {
    shared::p_rec* rec = m->prec;
    rec->runq = runqlen(p);
    // relaxed: ours alone to write; sysmon wants to see it move.
    std::atomic_ref tick(rec->syscalltick);
    tick.store(tick.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    set_state(m, shared::M_SYSCALL);
    assist::enter(*rec, static_cast<std::uint16_t>(m->slot), static_cast<std::uint16_t>(cpu));
    // From here on the P may be another's. relaxed: understudy.hpp, (A).
    if (assist::understudies.cpu(cpu).armed.load(std::memory_order_relaxed) == 0)
        return arm(m, p, cpu);
    return m;
}

// Where rseq does not tell the CPU.
[[gnu::noinline, gnu::cold]] M* entersyscall_slow(M* m) { return leave_p(m, m->p, current_cpu(m)); }

// Queues the G that came back to no P; then its M has one after all, or sleeps.
void exitsyscall0(G* gp, M* m) {
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

// Honours what others asked of this P meanwhile: another G first.
[[gnu::noinline]] void gosched_keeping_errno() {
    const int saved = thread_errno();
    gosched();
    thread_errno() = saved;
}

[[gnu::noinline]] void exitsyscall_slow(M* m, P* old) {
    bool was_blocked = false;
    if (assist::reclaim(*old->rec, actor(m), was_blocked)) {
        if (was_blocked) {
            nblocked().fetch_sub(1, kSeqCst);
            blocked_ns(old).store(0, std::memory_order_relaxed); // relaxed: a stamp for people
        }
        set_state(m, shared::M_RUNNING);
    } else {
        const int saved = thread_errno();
        G* gp = m->curg;
        m->p = nullptr;
        m->rec->p = 0;
        help_pending(current_cpu(m));
        if (P* p = take_any(m, old)) {
            acquirep(m, p);
        } else {
            m->prev = gp;
            m->after = exitsyscall0;
            switch_g_to_g0(m, gp);
            after_switch();
        }
        thread_errno() = saved;
    }
    // relaxed: a request seen one call later does no harm.
    if (getm()->p->attention.load(std::memory_order_relaxed) != 0) gosched_keeping_errno();
}

} // namespace

} // namespace baton::rt

namespace baton::detail {

// Both are straight lines without a frame: every cold case is a tail call. The M found on the way
// in is handed to the way out, where each dependent load would delay the return of a cheap call.

void* entersyscall() noexcept {
    using namespace rt;
    M* m = getm_or_null();
    if (!m || m->in_syscall) return nullptr;
    m->in_syscall = true;
    const std::uint32_t cpu = m->rseq->cpu_id;
    if (cpu >= sched.ncpu) return entersyscall_slow(m);
    return leave_p(m, m->p, cpu);
}

void exitsyscall(void* entered) noexcept {
    using namespace rt;
    auto* m = static_cast<M*>(entered);
    m->in_syscall = false;
    if (!assist::leave_fast(*m->prec, static_cast<std::uint16_t>(m->slot), m->rseq))
        return exitsyscall_slow(m, m->p);
    set_state(m, shared::M_RUNNING);
    // relaxed: a request seen one call later does no harm.
    if (m->p->attention.load(std::memory_order_relaxed) != 0) gosched_keeping_errno();
}

} // namespace baton::detail
