// SPDX-License-Identifier: Apache-2.0
//
// The template thread makes the threads of all Ms but the first, and follows the machine's changes.
//
// The others may not. A locked G's thread has a signal mask, CPUs and a priority that what it makes
// would inherit. An understudy must not wait. And nobody who has a P, or is to hand one out, may
// call pthread_create or malloc, as a goroutine that was preempted in there holds its locks until
// it gets a P (persistentalloc.hpp). So this thread holds no P and no lock while it makes one: who
// wants an M puts the P on the idle list, says so (sched.mwanted), and the M takes it from there as
// any does that goes to sleep after another was refused (limits.cpp). If all there is to run is
// such goroutines, no M is wanted: each has its own, and gets the P at once (start_preempted).
#include <algorithm>
#include <vector>

#include "kernel/clock.hpp"
#include "kernel/cpus.hpp"
#include "kernel/futex.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::int64_t kFollowPeriodNs = 1'000'000'000;
constexpr std::int64_t kAskAgainNs = 10'000'000; // once refused; as sysmon at its slowest

// A few at once, so that a burst of blocks is met by few rounds; sysmon's trim takes back what was
// too many. False: one was refused.
bool make_spares() {
    const std::uint32_t more = std::clamp<std::uint32_t>(sched.mcount.load(kRelaxed) / 4, 1, 8);
    // A new M is idle only once its thread has come up and parked. Until then those who want one
    // ask again and again, each time for nothing: without the count of those on their way,
    // thousands were made in the time that the first needed. relaxed, both: a rough measure.
    const std::uint32_t there = sched.midle.load(kRelaxed) + sched.mborn.load(kRelaxed);
    for (std::uint32_t n = there; n < more; n++) {
        if (!newosproc()) return false;
    }
    return true;
}

// Our own mask stands for the process's: we are never bound to a CPU by ourselves.
void follow(kernel::CpuQuota& quota) {
    const std::vector<int> cpus = kernel::allowed_cpus();
    if (cpus.empty()) return;
    if (cpus != *sched.cpus.load(kRelaxed)) follow_cpus(cpus); // relaxed: only we change it
    if (sched.procs_fixed.load(kRelaxed)) return; // relaxed: looked at again with the world stopped
    const int n = kernel::procs_for(static_cast<int>(cpus.size()), quota.read());
    follow_procs(std::min(static_cast<std::uint32_t>(n), kMaxP));
}

} // namespace

void newm(P* p, bool spinning) {
    if (spinning) nmspinning().fetch_sub(1, kSeqCst);
    {
        LockGuard guard(sched.lock);
        pidleput(p);
    }
    sched.mwanted.store(true, kSeqCst);
    if (!m_to_be_had() && !release_reserve()) {
        thread_refused(0, true);
        return;
    }
    // On its way to sleep just now, one may have looked at mwanted before that (limits.cpp).
    if (sched.midle.load(kSeqCst) > 0) wake_sysmon();
    // One that is on its way from its birth will look: it takes itself from mborn before it does.
    // Asked all the same, the template thread had sysmon look again, that found the P idle and its
    // work undone and came here, and so the two went on and on until the new thread had a CPU.
    if (sched.mborn.load(kSeqCst) == 0) want_m();
}

void want_m() {
    if (sched.need_spare.exchange(true, kSeqCst)) return; // it has been told
    sched.templatenote.fetch_add(1, kSeqCst);
    kernel::futex_wake(&sched.templatenote, 1);
}

void template_thread() {
    kernel::CpuQuota quota;
    std::int64_t follow_when = kernel::nanotime() + kFollowPeriodNs;
    std::int64_t ask_when = 0;
    for (;;) {
        const std::uint32_t seq = sched.templatenote.load(kSeqCst);
        std::int64_t now = kernel::nanotime();
        const bool wanted = sched.need_spare.load(kSeqCst);
        if (wanted && now >= ask_when) {
            sched.need_spare.store(false, kSeqCst);
            if (make_spares()) {
                // A blocked P may be waiting that no understudy had an M for.
                sched.retake_now.store(true, kSeqCst);
                wake_sysmon();
            } else {
                // Nor is sysmon told: it would find the same work undone and ask for the same
                // again, and the two of them would keep a CPU busy for as long as it is refused.
                ask_when = kernel::nanotime() + kAskAgainNs;
            }
        } else {
            (void)kernel::futex_wait(&sched.templatenote, seq,
                                     wanted ? std::min(ask_when, follow_when) : follow_when);
        }
        now = kernel::nanotime();
        if (now < follow_when) continue;
        follow_when = now + kFollowPeriodNs;
        // relaxed: a hint. With nothing to run it can wait.
        if (npidle().load(kRelaxed) < sched.gomaxprocs.load(kRelaxed)) follow(quota);
    }
}

} // namespace baton::rt
