// SPDX-License-Identifier: Apache-2.0
//
// sched: what all Ms share, and the scheduler's own functions. Only src/runtime includes this.
//
// Locks: sched.lock guards runq, pidle, allp while it changes, gcwaiting's changes and stopwait.
//   gfree and the M table have leaf locks of their own. Idle Ms need no lock (mstart.cpp).
// Ordering: the counters a submitter of work and an M that gives up must not both miss are seq_cst;
//   see wakep (handoff.cpp) and findrunnable, which are written in the same shape.
#pragma once

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "assist/ownership.hpp"
#include "assist/probe.hpp"
#include "assist/records.hpp"
#include "assist/understudy.hpp"
#include "baton/stats.hpp"
#include "runtime/entry.hpp"
#include "runtime/gchain.hpp"
#include "runtime/histogram.hpp"
#include "runtime/lock.hpp"
#include "runtime/rand.hpp"
#include "runtime/runtime.hpp"
#include "runtime/stackcache.hpp"

namespace baton::rt {

// What the scheduler's own words are accessed with unless a comment says why less is enough: most
// of them take part in some "store mine, look at yours".
inline constexpr auto kSeqCst = std::memory_order_seq_cst;

inline constexpr std::uint32_t kMaxP = BATON_MAX_P - 1;
inline constexpr std::uint32_t kMaxM = BATON_MAX_M - 1;
inline constexpr std::int64_t kForcePreemptNs = 10'000'000; // a time slice, as the reference's

/// Where a woken M had better run: elsewhere than the waker, or where that is about to sleep.
enum class Where : std::uint8_t { kFar, kHere };

/// What a woken M without a P is to do.
enum MOrder : std::uint32_t { kOrderNone, kOrderStandby, kOrderExit, kOrderReserve };

/// Who moved a P from a blocked M to another, for the counters.
enum class By : std::uint8_t { kUnderstudy, kScan, kRingbuf, kSysmon, kCount };

/// What is kept for the next ones, and how much of it nobody needed lately. Under sched.glock.
template <class List>
struct Free {
    List list;
    std::uint32_t low = 0;     // the fewest there were in this period of the scavenger's
    std::uint32_t surplus = 0; // as many, of the last period, as are still to be given back
    bool emptying = false;     // a forced pass is under way: none of the surplus is to stay

    /// One, or none.
    auto pop() {
        auto* one = list.pop();
        took();
        return one;
    }
    /// Some were taken from the list itself.
    void took() { low = std::min(low, list.size()); }
};
using FreeGs = Free<GChains>;
using FreeStacks = Free<StackList>;

/// Idle Ms last seen on one CPU: a lock-free stack of M slots through M::idlelink.
struct alignas(64) IdleMs {
    std::atomic<std::uint64_t> head{0}; // {tag:48, slot:16}; the tag defeats ABA
    std::atomic<std::int32_t> n{0};
    // So many wakes after idleness are steered, as the kernel put one from here elsewhere.
    std::atomic<std::int32_t> strays{0};
    // A handoff the understudy of this CPU has committed and not yet woken; 0 none. Whoever comes
    // by wakes it too, lest a busy process keep the understudy from it (understudy_dispatch).
    std::atomic<std::uint32_t> pending{0};
};

struct Sched {
    Lock lock{Rank::kSched};
    GChains runq;
    GQueue hogq; // Gs whose slice was ended: behind all others, but for no longer than a slice
    bool hog_ran = false; // the last one taken was of these
    P* pidle = nullptr;
    P* allp[kMaxP] = {};
    std::atomic<std::uint32_t> gomaxprocs{0};

    std::atomic<std::int64_t> lastpoll{1};   // when the network was polled last; 0: a poll waits
    std::atomic<std::int64_t> poll_until{0}; // until when that one waits; 0: for ever
    std::atomic<bool> polling{false};        // somebody who works looks just now
    std::atomic<std::int64_t> submitter_takes_ns{0}; // not before then: wakep, handoff.cpp
    std::atomic<bool> needspinning{false};           // a submitter found no idle P to wake

    std::atomic<bool> gcwaiting{false}; // stop the world
    std::uint32_t stopwait = 0;
    std::atomic<std::uint32_t> stopnote{0};
    std::atomic<std::uint32_t> worldsema{1};

    // How often all that is idle goes back, and idle Ms are counted; tests want it sooner.
    std::atomic<std::int64_t> forced_pass_ns{120'000'000'000};
    std::atomic<std::int64_t> trim_period_ns{1'000'000'000};
    std::atomic<bool> sysmonwait{false}; // sysmon sleeps until somebody leaves idleness
    std::atomic<std::uint32_t> sysmonnote{0};
    std::atomic<bool> need_spare{false}; // somebody found no idle M
    std::atomic<std::uint32_t> templatenote{0};
    // A plain thread has work for a blocked P, or there is an M for one that had none.
    std::atomic<bool> retake_now{false};
    std::atomic<std::uint32_t> ncredit{0}; // Ms that came back from a call and go on without a P

    Lock glock{Rank::kAllg};
    FreeGs gfree;
    FreeStacks stackfree[kStackClasses]; // by size
    std::atomic<std::uint64_t> goidgen{0};
    std::atomic<std::int64_t> ngo_elsewhere{0}; // as P::ngo, of who had no P

    Lock mlock{Rank::kLeaf};
    M* allm[BATON_MAX_M] = {};
    std::uint32_t mslots = 0; // slots ever used
    std::uint32_t mfree = 0;  // slots of Ms that left, chained by idlelink
    std::atomic<std::uint32_t> mcount{0};
    std::atomic<std::uint32_t> mthere{0}; // of these, those whose thread has begun; none refused
    std::atomic<std::uint32_t> mpeak{0};
    std::atomic<std::uint32_t> midle{0}; // from just before an M is on an idle list to just after
    std::atomic<std::uint32_t> mborn{0}; // made, and not yet on an idle list
    // Idle Ms that are not in midle: for the first blocks, whose Ps are to wait for no thread to be
    // made. New work does not get them: where nothing has blocked yet, one P mostly does better.
    IdleMs mreserve;
    std::atomic<std::uint32_t> mlockedidle{0}; // Ms that wait for the G locked to them
    std::atomic<std::uint32_t> nhelpers{0};    // sysmon, the template thread, understudies
    std::atomic<std::uint32_t> maxmcount{0};   // 0 until it is set or the runtime starts
    std::atomic<bool> crash_at_limit{false};
    std::atomic<std::uint64_t> mrefused{0};
    std::atomic<bool> mwanted{false}; // one was refused while a P had use for it
    // Plain threads that wait in baton for a goroutine: how often one began to, and how often one
    // was woken. The second is raised before the wake, the first once the wait can be ended by a
    // wake alone; so the difference never counts a thread that runs (deadlock.cpp).
    std::atomic<std::uint64_t> plain_parks{0};
    std::atomic<std::uint64_t> plain_wakes{0};
    IdleMs* idle_ms = nullptr; // one per possible CPU
    sigset_t sigmask{}; // of the thread that started the runtime; every M gets it, whoever makes it
    std::uint32_t ncpu = 0;                             // possible ones
    std::atomic<const std::vector<int>*> cpus{nullptr}; // allowed ones, followed
    std::atomic<bool> procs_fixed{false};               // asked for, so no changes are followed
    std::atomic<bool> following{false};                 // a goroutine is about to change it

    assist::Records records{};
    assist::Probe* probe = nullptr; // with the probe tier only
    Assist tier = Assist::kSysmon;
    // Seconds of the monotonic clock, by sysmon; for G::waitsince, where the clock is too dear.
    std::atomic<std::uint32_t> coarse_s{0};
    std::atomic<bool> has_standby{false};

    std::atomic<std::uint64_t> handoffs[static_cast<int>(By::kCount)] = {};
    Histogram handoff_ns;
};
/// No destructor runs on it: Ms go on while static destructors do.
extern constinit Sched sched;
static_assert(std::is_trivially_destructible_v<Sched>);

// The counters shared with the probe, in the scheduler's record.
inline std::atomic_ref<std::uint32_t> npidle() {
    return std::atomic_ref(sched.records.sched->npidle);
}
inline std::atomic_ref<std::uint32_t> nmspinning() {
    return std::atomic_ref(sched.records.sched->nmspinning);
}
inline std::atomic_ref<std::uint32_t> runqsize() {
    return std::atomic_ref(sched.records.sched->runqsize);
}
inline std::atomic_ref<std::int32_t> nblocked() {
    return std::atomic_ref(sched.records.sched->nblocked);
}
inline std::atomic_ref<std::uint32_t> unpolled() {
    return std::atomic_ref(sched.records.sched->unpolled);
}

/// When the probe last saw p's M block; 0 once the handoff is accounted.
inline std::atomic_ref<std::uint64_t> blocked_ns(P* p) {
    return std::atomic_ref(p->rec->blocked_ns);
}
/// p's next time slice begins. Owner only.
inline void next_slice(P* p) {
    constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: see P::schedtick
    p->schedtick.store(p->schedtick.load(kRelaxed) + 1, kRelaxed);
}
/// How many Ps there are: the first so many of allp.
inline std::uint32_t procs() {
    // acquire: pairs with procresize. Who holds no P may look while the world stands, and sees the
    // new Ps with their number.
    return sched.gomaxprocs.load(std::memory_order_acquire);
}
/// Whether there is but one P: then its holder has no thieves and need wake nobody for its work.
inline bool only_p() {
    // relaxed: changes only while the world is stopped.
    return sched.gomaxprocs.load(std::memory_order_relaxed) == 1;
}
/// How many threads that only wait may stay awake: CPUs that no M with a P has work for. A guess.
/// Once the runtime has started.
inline std::int32_t spare_cpus() {
    constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: a guess
    const std::uint32_t busy =
        sched.gomaxprocs.load(kRelaxed) - npidle().load(kRelaxed) - nmspinning().load(kRelaxed);
    // acquire: pairs with the store in follow_cpus.
    const std::size_t cpus = sched.cpus.load(std::memory_order_acquire)->size();
    return static_cast<std::int32_t>(cpus) - static_cast<std::int32_t>(busy);
}
/// gp begins to wait.
inline void note_wait(G* gp) {
    // relaxed, both: minutes, for people.
    gp->waitsince.store(sched.coarse_s.load(std::memory_order_relaxed), std::memory_order_relaxed);
}
inline assist::Actor actor(M* m) { return {static_cast<std::uint16_t>(m->slot), m->rseq}; }
std::uint32_t current_cpu_slow() noexcept;
inline std::uint32_t current_cpu(M* m) noexcept {
    const std::uint32_t cpu = m->rseq->cpu_id; // out of range where there is no rseq
    return cpu < sched.ncpu ? cpu : current_cpu_slow();
}
// ---- runq.cpp ----
/// Puts gp on p's queue: `next` makes it runnext, kicking the old one to the tail. Owner only.
void runqput(P* p, G* gp, bool next);
/// Takes from p's queue; `inherit` tells that it goes on in the present time slice. Owner only.
G* runqget(P* p, bool& inherit);
bool runqempty(const P* p);
/// None on p's ring has run for long: their stacks are asked for before they do, those of the first
/// few have been. Owner only.
void runq_is_cold(P* p, std::uint32_t asked);
/// Between these runqempty(p) is false: what p's owner is to put on its queue is on none, and who
/// put it there before may have relied on an M that looks for work just now. Owner only.
inline void runq_moves(P* p) {
    // relaxed: before the release store or CAS by which something leaves a queue.
    p->moving.store(true, std::memory_order_relaxed);
}
inline void runq_moved(P* p) {
    // release: with runqempty, which sees what has been put there or that it moves.
    p->moving.store(false, std::memory_order_release);
}
inline std::uint32_t runqlen(const P* p) {
    constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: a hint for the probe and people
    return p->runqtail.load(kRelaxed) - p->runqhead.load(kRelaxed) +
           (p->runnext.load(kRelaxed) != nullptr);
}
/// Steals half of victim's queue into p's; returns one to run. `runnext_too` on the last pass.
G* runqsteal(P* p, P* victim, bool runnext_too);
void runqput_all(P* p, GQueue& q);
/// Has p itself something to do: Gs to run, or requests to hand to the kernel?
inline bool has_own_work(const P* p) {
    // relaxed: a P that is another's is looked at again, as with its queue.
    return !runqempty(p) || p->unsubmitted.load(std::memory_order_relaxed) != 0;
}
/// An idle P's work nobody could be started for (a refused thread); or its timer, which whoever
/// waited in the poll for it has left for a G that came first, to look there no more.
bool left_behind(const P* p, std::int64_t now);
// The global queue; sched.lock held.
void globrunqput(G* gp);
void globrunqput_hog(G* gp);
/// The first G there that is no hog; null if there is none.
G* globrunqget_other();
/// The next G that waits with its M in the signal handler; null if there is none.
G* globrunqget_preempted();
inline bool globrunqempty() { return sched.runq.empty() && sched.hogq.empty(); }
void globrunqput_all(GChains& q);
/// Takes from the global queue for p: at most `max`; with 0 a fair share of it, at most half a
/// ring. If it is not empty, first_of is to follow.
GQueue globrunqget(P* p, std::uint32_t max);
/// The first of q, or null; the rest goes to p's ring, which has room.
G* first_of(P* p, GQueue q);

// ---- schedule.cpp ----
[[noreturn]] void schedule(M* m);
void acquirep(M* m, P* p);
/// m has a P again, or its G has left it.
void end_credit(M* m);
P* releasep(M* m);
/// The same where m's record must not be touched, as who hands m its next P may name that there by
/// now (name_next). m cleared it itself while it was still sure to be alone.
P* leave_p(M* m);
/// p, handed off by a blocked M, runs a G now.
void account_handoff(P* p);
/// sched.lock held.
void pidleput(P* p);
P* pidleget(P* wanted = nullptr);
/// Puts a list of runnable Gs where Ms will find them, and starts Ms for them. Any thread.
void injectglist(GList& list);

// ---- findrunnable.cpp ----
G* findrunnable(M* m, bool& inherit);
/// Gets m, which has no P, one: to look for work with, or when it is woken.
void find_p(M* m);

// ---- pair.cpp ----
/// Will the watcher of p's pair see to the G just readied there, as it is the only one?
bool left_to_watcher(P* p);
inline bool pair_watched(P* p) {
    // relaxed: the second look counts.
    return p->pair_watcher.load(std::memory_order_relaxed) != 0 && left_to_watcher(p);
}
/// Is there nothing on p's queue but what its pair's watcher sees to?
bool seen_to(const P* p);
/// Is what victim runs next to be left to it? Takes a moment. This M, which looks for work, may be
/// the watcher after it.
bool runs_next_itself(P* victim);
/// m watches its pair no longer. `looks`: it goes on to look for work.
void end_pair(M* m, bool looks);
/// The watcher's look, now and then.
void look_at_pair(M* m);

// ---- mstart.cpp ----
/// Starts an idle or a new M for p, which the caller holds or has taken off the idle list.
void startm(P* p, bool spinning, Where where = Where::kFar);
/// A new M, which parks; with kOrderReserve in the reserve. False if there may be no more of them
/// or the kernel refuses its thread. On the template thread, or before there is one.
bool newosproc(MOrder order = kOrderNone);
/// Parks until it is given a P. `watched`: the P it has just passed on, and may get back at once.
void stopm(M* m, P* watched = nullptr);
/// Sleeps until m is handed a P or told what to do. Null: told.
P* mpark(M* m);
/// Has m been handed a P?
bool has_nextp(const M* m);
/// Leaves the runtime and ends the thread. m has no P.
[[noreturn]] void mexit(M* m);
/// An idle M that will wake on `cpu`: one last seen there, or one from elsewhere, or of the
/// reserve, steered. Null if there is none at all. The template thread makes one if none was on a
/// list.
M* mget_near(std::uint32_t cpu);
/// Takes back the steering, from m itself or of a parked m.
void unsteer(M* m);
/// The process may use these CPUs from now on: the Ms whose masks unsteer has set get this one. On
/// the template thread.
void rebind(const std::vector<int>* cpus);
/// An idle M last seen elsewhere than on `cpu`, or there if there is none.
M* mget_far(std::uint32_t cpu);
/// An idle M from the CPU that has most, if that is at least `least`.
M* mget_spare(std::int32_t least);
void mput(M* m, std::uint32_t cpu);
/// The reserve become idle Ms like others: there may be no more threads. False: there are none.
bool release_reserve();
void mwake(M* m);
/// What m's record says of the P that m has or is to get; null: none.
inline void note_p(M* m, const P* p) {
    // relaxed: sysmon wants no more than a recent value, and the probe reads it where m runs.
    std::atomic_ref(m->rec->p).store(p ? p->slot : 0, std::memory_order_relaxed);
}
/// Notes the P a parked or new m is about to get, in its record too: the probe must not take it for
/// an M that looks for work.
inline void name_next(M* m, P* p) {
    note_p(m, p);
    m->nextp.store(p, kSeqCst);
}
bool appoint_standby();
/// Attaches a thread that never runs Gs (sysmon, an understudy) to an M of its own.
M* attach_helper(shared::m_state role);
void help_pending(std::uint32_t cpu);

// ---- handoff.cpp ----
/// Work was published: gets an idle or blocked P running if nobody looks for work. Any thread.
void wakep(Where where = Where::kFar);
/// A claim to look for work (nmspinning) was in vain: who queued a G meanwhile has left it to the M
/// that was to look. Takes no lock, for the understudies' sake.
void give_back_claim();
/// p's M is about to block for long, or was found blocked and p was taken: p goes to an M that
/// needs it, or to the idle list. `spin`: or to one that looks for work, if none does.
void handoffp(P* p, bool spin = true);
/// Would anybody use p if its M lost it? What the probe and the understudy ask, too.
bool wanted(const P* p);
/// Takes a P from a blocked M for m itself: `old` first, then idle ones, then any. Null if none.
P* take_any(M* m, P* old);
/// The scan: a blocked P with work, for an M that found nothing else.
P* take_blocked_with_work(M* m);
/// Takes a P found in the kernel for an idle M, and wakes that. `cpu` is the caller's. Any thread
/// with an actor, the understudies included: takes no lock.
bool hand_blocked(P* p, assist::Word seen, const assist::Actor& me, std::uint32_t cpu, By by);
void note_taken(P* p, assist::Word seen, By by);
/// m has a P again and its CPU idled, so the understudy dozes there. If a block followed on each of
/// the last two such wakes, arms it before a G runs: who is to have the P then does not wait for
/// the arming. After fewer it would be in vain mostly, and cost each wake some microseconds.
void arm_after_idle(M* m) noexcept;
assist::Found understudy_dispatch(std::uint32_t p_slot, assist::Word seen, const assist::Actor& me,
                                  std::uint32_t cpu);
/// A parked M's turn at the ring buffer: returns with a P.
P* standby_wait(M* m);

// ---- locked.cpp ----
/// m's P goes to the only M that may run gp; m parks until it has a P again.
void startlockedm(M* m, G* gp);
/// Has a locked G that was readied on p run with an idle P at once, if there is one.
bool ready_locked(const P* p, G* gp);
/// m, which has no P, waits until its locked G, which is queued or will be, may run here.
void stoplockedm(M* m, P* watched = nullptr);
/// The parks, yields and ends of a locked G, which keeps its M and its stack's place.
void park_locked(M* m, G* gp, UnlockFn unlockf, void* lock);
void yield_locked(M* m, G* gp);
void gosched_locked(M* m, G* gp, bool hog);
void settle_locked(M* m, G* gp, bool hog);
/// p, which no M is to be had for, to the M of a G that was preempted. False: there is none.
bool start_preempted(P* p, bool spinning);
[[noreturn]] void goexit_locked(M* m);
/// m, on no list, stays awake for p to come back. The P it was handed, or null.
P* watch_unlisted(M* m, P* p);
/// ... and, on a list by now, for any.
void stay_awake(M* m);
/// Will a watcher see to what was just queued on p?
bool watched(const P* p);

// ---- template.cpp ----
/// Asks for a new M, which will take p, put on the idle list, and what there is to run.
void newm(P* p, bool spinning);
/// The same where there is no P to put there. Any thread; does not wait.
void want_m();
[[noreturn]] void template_thread();

// ---- sysmon.cpp ----
void sysmon(M* m);
void wake_sysmon();
/// Sets the coarse clock. Who ends sysmon's sleep does it too.
void tick_coarse_clock(std::int64_t now);

// ---- hooks.cpp ----
/// Hands this runtime to libbaton_preload.so, if the process has that.
void attach_hooks();

// ---- stw.cpp ----
void stop_the_world();
void start_the_world();
void gcstopm(M* m);
/// World stopped, or before the first M.
void procresize(std::uint32_t n);
/// When the machine offers another number of CPUs, or other ones. On the template thread.
void follow_procs(std::uint32_t n);
void follow_cpus(const std::vector<int>& cpus);

// ---- newproc.cpp ----
/// How many goroutines there are; exact while all Ps are idle and sched.lock is held.
std::int64_t gcount();
/// gp, which ends, leaves `next`, which has not begun, its stack, and is dead.
void inherit_stack(M* m, G* gp, G* next) noexcept;

// ---- gfree.cpp ----
/// A dead G, without a stack. Null and *error when the kernel refuses memory for one or for the
/// stack that it is promised. `p` may be null, here and below.
G* gfget(P* p, int* error) noexcept;
void gfput(P* p, G* gp) noexcept;
void gfpurge(P* p);
/// Has the scavenger (sysmon) anything to give back?
bool gfsurplus();
/// A period ends: the Gs and stacks that nobody needed throughout it are surplus; with `all`, all
/// that nobody holds, those on idle Ps included.
void gfperiod(bool all);
/// Gives one surplus stack or G back to the system. False: there is none.
bool gfscavenge();

// ---- limits.cpp ----
/// May there be so many Ms?
bool thread_allowed(std::uint32_t mcount);
/// No M could be made: the counter and, once, a line that says why. `error` is the kernel's, 0 if
/// it was the limit; `needed`: a P waits for the M.
void thread_refused(int error, bool needed);
/// Would an M wanted now be had?
bool m_to_be_had();
/// If one was refused, now that there is one, it is looked for again.
void heed_mwanted();
/// m goes on with the idle P whose work has waited longest. False: there is none, it keeps its own.
bool take_turn(M* m);
/// The limit in force, or the one the runtime will start with.
std::uint32_t max_threads();

// ---- deadlock.cpp ----
/// sysmon, when all Ps are idle: ends the process if nothing will ever run again.
void checkdead();

// ---- init.cpp ----
bool started() noexcept;

} // namespace baton::rt
