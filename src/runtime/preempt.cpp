// SPDX-License-Identifier: Apache-2.0
//
// Preemption of a G that computes and makes no runtime call: SIGURG to its M, as the reference
// does.
//
// The reference saves the G's registers and runs it on another thread later. That cannot be done to
// C++ code: it may be in malloc, hold the address of a thread_local, or be in a static initialiser.
// So the G keeps its M: in the handler it is queued, the P is handed off, and the M waits, as one
// locked to its G does (locked.cpp), until a scheduler has dequeued the G and hands it a P. Then
// the handler returns. Nothing moves between threads but the P; the price is a parked M per hog.
//
//     sysmon, or who stops the world         M, in G code
//     P::attention says why
//     M::signalled, tgkill           --->    handler: in G code still, attention still set?
//                                            the G to the global queue, the P to another M
//                                            waits on the alternate signal stack, which is the M's
//                                            own; returns to where it was
//
// The handler does what leave_runtime does at the end of a call, and no more: it allocates nothing
// (an M that has to be made is made by the template thread), and takes runtime locks only, which G
// code never holds. An M that runs on credit is sent the same signal, for want of a P.
//
// A call that the kernel does not restart after a handler (nanosleep, poll, epoll_wait and the
// like), or that ends with a part of what it was to do (write), must not see the signal: an M that
// sleeps in one is left alone. The probe tells that it sleeps; without it, and on credit, /proc
// does. Those that sleep elsewhere without a probe to take their P are sent it: what they sleep for
// may be held by a preempted G.
//
// Between that look and the signal the M may still begin such a call, or go on in one. With the
// probe the handler mends that (broken_call.hpp). Without it only who has not slept for some time
// of computing is sent it, or holds up others for long, so that few see EINTR or a short count: one
// that copies for so long, or that was never asleep when it was looked at.
#include "runtime/preempt.hpp"

#include <csignal>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>

#include "arch/x86_64/walk.hpp"
#include "assist/asleep.hpp"
#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "kernel/sleeper.hpp"
#include "kernel/syscall.hpp"
#include "runtime/ask.hpp"
#include "runtime/broken_call.hpp"
#include "runtime/sched.hpp"
#include "runtime/sigurg.hpp"
#include "runtime/tsan_signal.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::int64_t kLongCreditNs = 10'000'000;        // as long as a time slice
constexpr std::int64_t kCreditPeriodNs = 5'000'000;       // between two looks at all Ms,
constexpr std::int64_t kCreditPeriodPerMNs = 10'000;      // which cost 0.1 us each,
constexpr std::int64_t kCreditPeriodPerAskedNs = 240'000; // or 2.4 where /proc is asked
// A copy into the largest of sockets' buffers takes as long.
constexpr std::int64_t kComputesNs = 2'000'000;
// With one that has a P others wait for, and that sleeps now and then: for a lock, mostly, as
// sleeping long enough to be seen would have cost it the P.
constexpr std::int64_t kPatienceNs = 4'000'000;

bool enabled = false;

// In the handler, on an M in G code.
void preempt_here(M* m, const void* context) {
    G* gp = m->curg;
    G* const lockedg = m->lockedg; // it may be so anyway, or be about to
    M* const lockedm = gp->lockedm;
    m->lockedg = gp;
    gp->lockedm = m;
    // release: who reads it reads the context.
    m->stopped_at.store(arch::registers_of(context), std::memory_order_release);
    enter_runtime(m);
    // As a hog in any case: those are who gets a P when there is no M for one (start_preempted).
    if (!m->p) { // on credit
        settle_locked(m, gp, true);
    } else if ((m->p->attention.load(kRelaxed) & kAttnSchedule) != 0) { // relaxed: set before
        gosched(true);
    }
    m->stopped_at.store(nullptr, kRelaxed); // relaxed: see snapshot.cpp
    m->lockedg = lockedg;
    gp->lockedm = lockedm;
    set_state(m, shared::M_RUNNING);
}

bool must_not_see(long nr) {
    switch (nr) {
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case 441: // epoll_pwait2
    case SYS_pause:
    case SYS_rt_sigtimedwait:
    case SYS_rt_sigsuspend:
    case SYS_msgrcv:
    case SYS_msgsnd:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_io_getevents:
    case SYS_io_pgetevents:
    case SYS_io_uring_enter:
    case SYS_write: // and the others that may have done a part
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendfile:
        return true;
    default:
        return false;
    }
}

// Does the thread sleep where the signal would be seen?
bool must_not_wake(std::uint32_t tid) {
    return must_not_see(kernel::sleeps_in(tid)); // or awake
}

// Has it computed since the last look, without a sleep? Then it is hardly in a call. Or has it had
// `patience` by now, from the first of a row of looks?
bool computes(M* m, std::uint32_t tid, std::int64_t patience) {
    const kernel::Effort effort = kernel::effort_of(tid);
    const std::int64_t now = kernel::nanotime();
    // relaxed, all of them: those who look may disturb each other, and look again.
    if (m->seen_sleeps.exchange(effort.sleeps, kRelaxed) == effort.sleeps)
        return effort.cpu_ns - m->seen_cpu_ns.load(kRelaxed) >= kComputesNs;
    // relaxed, all four: as above.
    m->seen_cpu_ns.store(effort.cpu_ns, kRelaxed);
    const std::int64_t last = m->seen_last_ns.exchange(now, kRelaxed);
    if (now - last > kForcePreemptNs) m->seen_first_ns.store(now, kRelaxed);
    return now - m->seen_first_ns.load(kRelaxed) >= patience;
}

shared::m_state peek_state(const M* m) {
    return std::atomic_ref(m->rec->state).load(kRelaxed); // relaxed: a guess, see signal_m
}

bool signal_m(M* m, std::int64_t patience) {
    // relaxed: the handler looks again. A thread that has gone meanwhile is no thread of ours, or
    // one whose handler finds nothing to do.
    const std::uint32_t tid = std::atomic_ref(m->rec->tid).load(kRelaxed);
    if (tid == 0 || !keep_urg()) return false;
    // With the probe the state of an M that holds a P tells; that of one on credit does not.
    if ((!sched.probe || peek_state(m) == shared::M_CREDIT) && must_not_wake(tid)) return false;
    if (!sched.probe && patience > 0 && !computes(m, tid, patience)) return false;
    m->signalled.store(true, kSeqCst);
    return kernel::raw_syscall(SYS_tgkill, ::getpid(), tid, SIGURG) == 0;
}

// Where no probe says M_CREDIT: back in G code, its P was taken meanwhile, and it has not looked
// yet.
bool lost_unawares(const M* m) {
    if (!assist::sees_sleepers || peek_state(m) != shared::M_RUNNING) return false;
    // relaxed: a guess, as the state.
    const std::uint32_t its = std::atomic_ref(m->rec->p).load(kRelaxed);
    return its != 0 && assist::load(sched.records.p[its]).owner != m->slot;
}

bool sleeps(const M* m) {
    // relaxed: see signal_m.
    return kernel::sleeps_in(std::atomic_ref(m->rec->tid).load(kRelaxed)) != kernel::kAwake;
}

} // namespace

bool preemptone(P* p, bool now) {
    if (!enabled) return false;
    const assist::Word w = assist::load(*p->rec);
    M* m = w.state == shared::P_RUN ? sched.allm[w.owner] : nullptr;
    return m && peek_state(m) == shared::M_RUNNING && signal_m(m, now ? 0 : kPatienceNs);
}

void preemptall(const P* but, bool now) {
    const std::uint32_t n = sched.gomaxprocs.load(kRelaxed); // relaxed: P structs stay
    for (std::uint32_t i = 0; i < n; i++) {
        P* p = sched.allp[i];
        // relaxed: set by the caller itself.
        if (p != but && (p->attention.load(kRelaxed) & kAttnStop) != 0) preemptone(p, now);
    }
}

void end_long_credit(std::int64_t now) {
    static std::int64_t next = 0; // sysmon's alone
    if (!enabled || now < next) return;
    std::uint32_t n, asked = 0;
    {
        LockGuard guard(sched.mlock);
        n = sched.mslots;
    }
    for (std::uint32_t slot = 1; slot <= n; slot++) {
        M* m = sched.allm[slot];
        const bool unawares = lost_unawares(m);
        if (!unawares && peek_state(m) != shared::M_CREDIT) continue;
        // relaxed: written by the probe before the state; else a stamp.
        const std::uint64_t since = std::atomic_ref(m->rec->credit_ns).load(kRelaxed);
        if (now - static_cast<std::int64_t>(since) < kLongCreditNs) continue;
        asked++;
        // Asleep it needs no P, and given one would keep it there.
        if (!sleeps(m)) signal_m(m, kernel::kForever);
    }
    next = now + kCreditPeriodNs + n * kCreditPeriodPerMNs + asked * kCreditPeriodPerAskedNs;
}

bool preemption() noexcept { return enabled; }

bool may_interrupt(const M* m) {
    // relaxed: see signal_m.
    const std::uint32_t tid = std::atomic_ref(m->rec->tid).load(kRelaxed);
    return enabled && keep_urg() && tid != 0 && kernel::features().sleepers &&
           !kernel::why_no_sleepers() && !must_not_wake(tid);
}

bool heed_urg(siginfo_t* info, void* context) {
    M* m = getm_or_null();
    const int saved = errno;
    const bool late = was_put_off();
    const bool asked = m && info->si_code == SI_TKILL && answer_stack(m, context);
    const bool signalled = m && info->si_code == SI_TKILL && m->signalled.exchange(false, kSeqCst);
    if (!asked && !signalled) return late;
    BrokenCall call(m, context);
    if (signalled && in_gcode(m)) preempt_here(m, context);
    call.finish();
    errno = saved;
    return true;
}

bool lose_urg() {
    M* m = getm_or_null();
    return m && m->signalled.exchange(false, kSeqCst);
}

void install_preemption() { enabled = take_urg(); }

} // namespace baton::rt
