// SPDX-License-Identifier: Apache-2.0
//
// Pairs: Gs of one P that ready each other, and how they are left together without being forgotten.
//
// Who readies a G mostly parks next, and then its P runs that G at once. It need not: it may as
// well compute for long, and then another P is to have the G soon. So goready wakes an M each time.
// For two that pass values through a channel this is a futex call and a thread's sleep every few
// us, for a thief that comes too late; or in time, and then each value goes from CPU to CPU.
//
// So a thief that finds nothing but what P is about to run next sets P's mark, waits a moment, and
// takes it only if nothing was readied there meanwhile. Else it leaves P alone and goes to sleep,
// as its watcher: it wakes now and then, without a P, and counts what was readied since. While
// the mark stands goready wakes nobody for a G that is alone on the queue, and says so in the
// count. Where too little happens the watcher takes back the mark and has somebody look, as it does
// when it is given a P, or anything else to do.
//
//     who readies a G on p                   the watcher of p
//     --------------------                   ----------------
//     p->runnext = gp                        p->pair_watcher = 0
//     full barrier                           full barrier
//     p->pair_watcher == 0?  then wakep      p's queue not empty?  then wakep
//
// If both looked too early the G would wait for as long as the other one computes. The same again
// for an M that ceases to look for work (any_work) and passes over a marked P. (A Spin model of it:
// tests/model/wakep.pml.)
//
// Pairs that take longer than kTurnNs from one to the other are worth a second CPU, as a wake costs
// half that. Two looks and a moment pass at most until one is parted whose first computes on all of
// a sudden. The looks get rarer, as on a busy machine the watcher may be on the pair's own CPU.
//
// Rejected: the moment alone, at each wake (the reference's, of 3 us): a stream through a buffer of
// 128 made 20,000 futex calls a second, and used 1.3 times the CPU; a pair that exchanges a value
// each us took 1.1 to 1.3 times as long. That the same G is in place after the moment as a sign
// that it has not run: of a pair it is half the time.
#include <algorithm>

#include <sys/syscall.h>

#include "kernel/syscall.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::int64_t kTurnNs = 10'000;      // how long one of a pair takes at most
constexpr std::int64_t kFirstLookNs = 20'000; // then after twice that each time
constexpr std::int64_t kLookNs = 80'000;

// At most one G waits on p, the next to run, and p has nothing else to do.
bool only_next(const P* p) {
    return p->runqtail.load(kSeqCst) == p->runqhead.load(kSeqCst) && !p->moving.load(kSeqCst) &&
           p->unsubmitted.load(kRelaxed) == 0; // relaxed: as in has_own_work
}

// As one who still looks for work, so that nobody is woken in its place. On a busy machine the
// other one has no more of this CPU than that: it is to be enough for a burst through a buffer.
void wait_a_moment() {
    constexpr timespec kMoment{0, 10'000};
    (void)kernel::raw_syscall(SYS_nanosleep, &kMoment, nullptr);
}

} // namespace

bool left_to_watcher(P* p) {
    if (!only_next(p)) return false;
    // relaxed, both: written by the owner alone; the watcher only wants to see it move.
    p->unwoken.store(p->unwoken.load(kRelaxed) + 1, kRelaxed);
    return p->pair_watcher.load(kSeqCst) != 0; // seq_cst: see the head, after runqput's exchange
}

bool seen_to(const P* p) { return p->pair_watcher.load(kSeqCst) != 0 && only_next(p); }

bool runs_next_itself(P* victim) {
    M* m = getm();
    if (m->pair && m->pair != victim) { // one is as many as it can watch
        wait_a_moment();
        return false;
    }
    if (!m->pair) {
        std::uint32_t none = 0;
        if (!victim->pair_watcher.compare_exchange_strong(none, m->slot, kSeqCst)) return true;
        m->pair = victim;
        m->pair_ns = kFirstLookNs;
    }
    m->pair_seen = victim->unwoken.load(kRelaxed); // relaxed, below too: see left_to_watcher
    wait_a_moment();
    const std::uint32_t seen = victim->unwoken.load(kRelaxed);
    if (seen == m->pair_seen) {
        end_pair(m, true);
        return false;
    }
    m->pair_seen = seen;
    return true;
}

void end_pair(M* m, bool looks) {
    P* p = m->pair;
    m->pair = nullptr;
    p->pair_watcher.store(0, kSeqCst); // seq_cst, and in runqempty: see the head
    // Here: m is about to sleep again, and leaves this CPU to whoever was last seen on it, which
    // mostly is m. Another CPU may be the computing one's.
    if (!looks && !runqempty(p)) wakep(Where::kHere);
}

void look_at_pair(M* m) {
    const std::uint32_t seen = m->pair->unwoken.load(kRelaxed); // relaxed: see left_to_watcher
    if ((seen - m->pair_seen) * kTurnNs < m->pair_ns) return end_pair(m, false);
    m->pair_seen = seen;
    m->pair_ns = std::min(m->pair_ns * 2, kLookNs);
}

} // namespace baton::rt
