// SPDX-License-Identifier: Apache-2.0
//
// sysmon: a thread without a P that looks after what nobody else notices.
//
//   retake     Ps whose M is in the kernel: the floor where there is no probe, else a watchdog
//   preempt    Gs that have run for 10 ms while others wait; those that had a CPU for as long and
//              do not heed it are sent a signal, as are Ms that have run as long without their P
//              (preempt.cpp)
//   netpoll    when no M has polled for 10 ms
//   trim       idle Ms that were not needed for a while leave
//   deadlock   when nothing will ever run again the process ends and says why
//   crash      what a process that fails has to tell is printed from here
//   scavenge   so do dead Gs with their stacks: 4 % of a CPU at most, 10 % when all Ps are idle;
//              and every two minutes all that is kept for later (hoard.hpp)
//
// What it waits for would keep Ps from everybody: so nothing here calls malloc
// (persistentalloc.hpp) or makes a thread (template.cpp).
//
// It sleeps 20 us to 10 ms between rounds, as the reference's; with the probe it starts at 1 ms, as
// blocks are announced. When all Ps are idle it sleeps longer (deep_sleep).
#include <algorithm>
#include <utility>

#include "assist/asleep.hpp"
#include "kernel/clock.hpp"
#include "kernel/futex.hpp"
#include "kernel/sleeper.hpp"
#include "runtime/crash.hpp"
#include "runtime/hoard.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/persistentalloc.hpp"
#include "runtime/preempt.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::int64_t kMaxDelayNs = 10'000'000;
constexpr std::int64_t kBusyDelayNs = 5'000'000;   // while Gs run: how late a slice's begin is seen
constexpr std::int64_t kLookAgainNs = 2'500'000;   // at one that was not seen to compute
constexpr std::int64_t kHeedNs = 500'000;          // an M that makes runtime calls heeds by then
constexpr std::int64_t kMostSliceNs = 400'000'000; // of one kept off the CPU
constexpr std::int64_t kHogDelayNs = 1'000'000;    // while one does not
constexpr std::int64_t kTurnNs = 5'000'000; // how long a P keeps its M while others have none
constexpr std::int64_t kRareNs = 1'000'000; // looks so far apart are rare
constexpr std::int64_t kIdleDelayNs = 100'000'000;
constexpr std::int64_t kLongIdleNs = 2'000'000'000; // after so long
constexpr std::int64_t kLongIdleDelayNs = 500'000'000;
constexpr std::int64_t kIdleForNs = 200'000'000;
constexpr std::int64_t kProbeGraceNs = 200'000; // what understudy and ring buffer may take
constexpr int kTrimWindow = 10;                 // rounds of trim_period_ns an M must have been idle
constexpr int kTrimAtOnce = 16;
constexpr std::int64_t kScavengePeriodNs = 1'000'000'000;
constexpr std::int64_t kScavengeAtOnceNs = 200'000;

/// What was seen of a P at the last look.
struct Seen {
    std::uint32_t schedtick = 0;
    std::int64_t schedwhen = 0;
    std::int64_t asked = 0;   // when the end of the slice was told; 0: it lasts
    std::uint32_t runner = 0; // the thread that has it; 0: not looked at
    std::int64_t cpu_ns = 0;  // what that had used of a CPU when the slice began
    std::uint32_t syscalltick = 0;
    bool left_behind = false;
};

class Sysmon {
public:
    explicit Sysmon(M* m) : m_(m) {}
    [[noreturn]] void run();

private:
    void wait();
    bool deep_sleep();
    void poll(std::int64_t now);
    bool retake(std::int64_t now, bool asked);
    bool retake_p(P* p, Seen& s, std::int64_t now, bool asked);
    void look_at(std::int64_t when) { next_look_ = std::min(next_look_, when); }
    bool look_at_running(P* p, Seen& s, assist::Word w, std::int64_t now);
    void look_at_idle(Seen& s, std::int64_t now);
    bool take_from_sleeper(P* p, assist::Word w);
    bool pass_on(P* p, assist::Word w, const assist::Actor& me);
    bool slice_over(P* p, Seen& s, assist::Word w, std::int64_t now);
    void end_slice(P* p, Seen& s, assist::Word w, std::int64_t now);
    void note_runner(Seen& s, assist::Word w, std::int64_t now);
    std::int64_t still_due(const Seen& s, assist::Word w, std::int64_t now) const;
    bool long_in_kernel(P* p, Seen& s, assist::Word w, std::int64_t now);
    void trim(std::int64_t now);
    void scavenge(std::int64_t now);
    // When the next one is. relaxed: a setting.
    std::int64_t forced_pass() const {
        return scavenge_forced_ + sched.forced_pass_ns.load(kRelaxed);
    }

    M* m_;
    Seen seen_[kMaxP];
    std::int64_t delay_ = 0;
    std::int64_t next_look_ = 0;  // when a slice ends, or a hog is to be seen to
    std::int64_t hogs_until_ = 0; // one was sent a signal lately
    std::int64_t idle_since_ = 0; // all Ps were, at each look; 0: they are not
    int idle_rounds_ = 0;
    std::int64_t turns_when_ = 0; // Ps may be told again that others have no M
    std::int64_t trim_when_ = 0;
    std::uint32_t trim_low_[kTrimWindow] = {};
    int trim_at_ = 0;
    std::int64_t scavenge_when_ = 0;
    std::int64_t scavenge_period_ = 0;
    std::int64_t scavenge_forced_ = kernel::nanotime();
    bool note_came_ = false;
    bool look_again_ = false; // a wanted P was seen in the kernel for the first time
};

// Of the thread that has the P.
std::uint32_t tid_of(assist::Word w) {
    const M* m = sched.allm[w.owner];
    // relaxed: a guess; the thread may have gone.
    return m ? std::atomic_ref(m->rec->tid).load(kRelaxed) : 0;
}

std::int64_t least_delay() { return sched.tier == Assist::kProbe ? 1'000'000 : 20'000; }

void Sysmon::run() {
    std::fill(std::begin(trim_low_), std::end(trim_low_), 0u);
    for (;;) {
        wait();
        if (crash_requested()) serve_crash();
        const std::int64_t now = kernel::nanotime();
        tick_coarse_clock(now);
        const bool asked = sched.retake_now.exchange(false, kSeqCst);
        poll(now);
        next_look_ = kernel::kForever;
        end_long_credit(now);
        idle_rounds_ = retake(now, asked) ? 0 : idle_rounds_ + 1;
        trim(now);
        scavenge(now);
        if (sched.probe && !sched.has_standby.load(kRelaxed)) appoint_standby(); // relaxed: a hint
        if (m_to_be_had()) heed_mwanted();
        // Work in the global queue and a P nobody could be started for (a refused thread); or an
        // understudy's claim (give_back_claim). relaxed: hints.
        if ((runqsize().load(kRelaxed) != 0 || sched.needspinning.load(kRelaxed)) &&
            npidle().load(kRelaxed) != 0) {
            sched.needspinning.store(false, kSeqCst); // before the wake: it may be said again there
            wakep();
        }
    }
}

void Sysmon::wait() {
    if (deep_sleep()) {
        idle_rounds_ = 0;
        delay_ = least_delay();
        return;
    }
    if (idle_rounds_ == 0 || note_came_) {
        delay_ = least_delay();
    } else if (idle_rounds_ > 50 || sched.tier == Assist::kProbe) {
        delay_ = std::min(delay_ * 2, kMaxDelayNs);
    }
    // Calls that are shorter than the sleep between two looks are never seen twice, and would keep
    // their Ps for ever: so the second look comes soon. With the probe others see to them.
    const bool again = look_again_ && sched.tier != Assist::kProbe;
    look_again_ = false;
    const std::int64_t now = kernel::nanotime();
    std::int64_t until = now + (again ? least_delay() : delay_);
    const std::uint32_t seq = sched.sysmonnote.load(kSeqCst);
    // relaxed: wake_sysmon raises the note after it, as with the others
    if (sched.retake_now.load(kRelaxed) || crash_requested()) return;
    std::int64_t most = idle_since_ == 0 ? kBusyDelayNs : kMaxDelayNs;
    if (now < hogs_until_) most = kHogDelayNs;
    until = std::min(until, now + most);
    note_came_ = kernel::futex_wait(&sched.sysmonnote, seq, std::min(until, next_look_)) == 0;
}

// An M is to be made or found, and can be.
bool m_wanted() { return sched.mwanted.load(kSeqCst) && m_to_be_had(); }

// All Ps idle: a look each 100 ms will do, each 500 ms after two seconds. Plain threads go to sleep
// for ever without a word, memory is to be given back, Ms are to leave. In the tier that needs us
// for each handoff somebody who takes a P ends it; in the others that begins after 200 ms only, and
// who takes the last idle P ends it, as that may be a hog: to wake us sooner would put us on the
// CPU in the very moment that the M with the P blocks, before the understudy. True if it slept.
bool Sysmon::deep_sleep() {
    const std::uint32_t procs = sched.gomaxprocs.load(kRelaxed); // relaxed: a hint
    const std::int64_t now = kernel::nanotime();
    if (npidle().load(kSeqCst) < procs || m_wanted()) {
        idle_since_ = 0;
        return false;
    }
    if (idle_since_ == 0) idle_since_ = now;
    checkdead();
    if (sched.tier != Assist::kSysmon && now - idle_since_ < kIdleForNs) return false;
    const std::uint32_t seq = sched.sysmonnote.load(kSeqCst);
    sched.sysmonwait.store(true, kSeqCst);
    // seq_cst: pidleget lowers npidle and then looks at sysmonwait; we look the other way round.
    const bool idle = npidle().load(kSeqCst) == procs && !m_wanted() && !crash_requested();
    std::int64_t until = now + (now - idle_since_ < kLongIdleNs ? kIdleDelayNs : kLongIdleDelayNs);
    if (gfsurplus()) until = std::min(until, scavenge_when_);
    if (hoards_any()) until = std::min(until, forced_pass());
    if (idle) (void)kernel::futex_wait(&sched.sysmonnote, seq, until);
    sched.sysmonwait.store(false, kSeqCst);
    return idle;
}

void Sysmon::poll(std::int64_t now) {
    std::int64_t last = sched.lastpoll.load(kSeqCst);
    if (last == 0 || now - last < kMaxDelayNs || !netpoll_any_waiters()) return;
    if (!sched.lastpoll.compare_exchange_strong(last, now)) return;
    GList list = netpoll(0);
    injectglist(list);
}

bool Sysmon::retake(std::int64_t now, bool asked) {
    bool any = false;
    const std::uint32_t n = procs(); // Ps that go meanwhile stay in memory
    for (std::uint32_t i = 0; i < n; i++) any |= retake_p(sched.allp[i], seen_[i], now, asked);
    return any;
}

// Whether the P's present time slice has lasted 10 ms. Then its holder has been asked to let others
// run.
bool Sysmon::slice_over(P* p, Seen& s, assist::Word w, std::int64_t now) {
    const std::uint32_t tick = p->schedtick.load(kRelaxed); // relaxed: see P::schedtick
    if (tick != s.schedtick) {
        s.schedtick = tick;
        s.schedwhen = now;
        s.asked = 0;
        s.runner = 0;
        if (delay_ >= kRareNs) note_runner(s, w, now);
        look_at(now + kForcePreemptNs);
        return false;
    }
    if (s.runner == 0) note_runner(s, w, now);
    if (now - s.schedwhen < kForcePreemptNs) {
        look_at(s.schedwhen + kForcePreemptNs);
        return false;
    }
    if (s.asked == 0) {
        s.asked = now;
        p->attention.fetch_or(kAttnPreempt, kSeqCst);
    }
    return true;
}

// A slice is over, and its holder was asked. If it made no runtime call since, and others wait for
// this very P, it gets the signal. An idle P should have come for those long since: nobody could be
// started for it (a refused thread), or this is the first look since somebody can.
void Sysmon::end_slice(P* p, Seen& s, assist::Word w, std::int64_t now) {
    if (npidle().load(kRelaxed) != 0) { // relaxed: a hint; there is a next look
        if (!runqempty(p)) wakep();
        return;
    }
    if (!preemption()) return;
    // relaxed, both: hints, as above.
    const std::int64_t when = p->timers.next_when.load(kRelaxed);
    const bool timer_due = when != 0 && when <= now;
    if (runqempty(p) && runqsize().load(kRelaxed) == 0 && !timer_due) {
        if (when != 0) look_at(when);
        return;
    }
    if (now < s.asked + kHeedNs) {
        look_at(s.asked + kHeedNs);
        return;
    }
    if (const std::int64_t due = still_due(s, w, now); due > 0) {
        look_at(now + std::max(due, kHeedNs));
        return;
    }
    p->attention.fetch_or(kAttnPreempt, kSeqCst);
    if (!preemptone(p)) {
        look_at(now + kLookAgainNs);
        return;
    }
    hogs_until_ = now + 2 * kForcePreemptNs;
}

// Not at the first look if looks are frequent, as it costs 0.6 us: at the second one, of slices
// that last so long.
void Sysmon::note_runner(Seen& s, assist::Word w, std::int64_t now) {
    s.runner = tid_of(w);
    s.cpu_ns = kernel::cpu_ns_of(s.runner) - (now - s.schedwhen);
}

// What the thread has yet to get of its slice: a CPU, if other processes want them all. A goroutine
// that is sent away while it waits for one has done next to nothing, but holds a thread from then
// on, and a lock in a library perhaps, for which the next one waits and is sent away, until all
// have begun and none goes on: 200 that fetch by https came to 100 to 215 threads so, of 15 to 21.
// One that sleeps is not spared: it may do so for what another one that was sent away holds. Nor
// for ever, as who yields the CPU until something is so hardly uses any.
std::int64_t Sysmon::still_due(const Seen& s, assist::Word w, std::int64_t now) const {
    const std::uint32_t tid = tid_of(w);
    if (tid != s.runner || now - s.schedwhen >= kMostSliceNs) return 0;
    const std::int64_t due = kForcePreemptNs - (kernel::cpu_ns_of(tid) - s.cpu_ns);
    return due > 0 && kernel::sleeps_in(tid) == kernel::kAwake ? due : 0;
}

// Whether a P in the kernel has been there long enough. A G that goes from one call straight into
// the next shows another tick at each look: the end of its slice is what ends that.
bool Sysmon::long_in_kernel(P* p, Seen& s, assist::Word w, std::int64_t now) {
    const bool over = slice_over(p, s, w, now);
    // relaxed: written by the owner alone; all that matters is whether it moved.
    const std::uint32_t tick = std::atomic_ref(p->rec->syscalltick).load(kRelaxed);
    const bool seen_before = tick == s.syscalltick;
    s.syscalltick = tick;
    if (w.marked()) // the probe says so; leave it to the quicker ones for a while
        return      // relaxed: a stamp
            now - static_cast<std::int64_t>(blocked_ns(p).load(kRelaxed)) >= kProbeGraceNs;
    return seen_before || over;
}

// One that runs, or whose M sleeps in G code. True if it was taken.
bool Sysmon::look_at_running(P* p, Seen& s, assist::Word w, std::int64_t now) {
    // An owner that was named but not woken (an understudy lost the CPU in between).
    M* owner = sched.allm[w.owner];
    if (owner && owner->nextp.load(kRelaxed) == p) mwake(owner); // relaxed: repeated next round
    const std::uint32_t tick = s.schedtick;
    const bool over = slice_over(p, s, w, now);
    // Looking often, only if no other G has run since the last look.
    if ((tick == s.schedtick || delay_ >= kRareNs) && take_from_sleeper(p, w)) return true;
    if (over) end_slice(p, s, w, now);
    return false;
}

// The floor for blocks that nobody announced, where no probe sees them.
bool Sysmon::take_from_sleeper(P* p, assist::Word w) {
    if (!assist::sees_sleepers || sched.gcwaiting.load(kSeqCst) || !wanted(p)) return false;
    const assist::Actor me = actor(m_);
    return assist::claim_asleep(sched.records, *p->rec, w, me) && pass_on(p, w, me);
}

bool Sysmon::pass_on(P* p, assist::Word w, const assist::Actor& me) {
    if (!assist::take(*p->rec, w, me.slot, me)) return false;
    note_taken(p, w, By::kSysmon);
    handoffp(p);
    return true;
}

// An idle P that somebody should have come for. Still there at the next look, and no M to be had:
// then those there are take turns (limits.cpp).
void Sysmon::look_at_idle(Seen& s, std::int64_t now) {
    wakep();
    const bool again = std::exchange(s.left_behind, true);
    // relaxed: a hint; there is a next look.
    if (!again || now < turns_when_ || !sched.mwanted.load(kRelaxed)) return;
    turns_when_ = now + kTurnNs;
    const std::uint32_t n = procs();
    for (std::uint32_t i = 0; i < n; i++) sched.allp[i]->attention.fetch_or(kAttnTurn, kSeqCst);
}

// `asked`: an M was made as an understudy had none for a blocked P, or a plain thread has work; no
// need to make sure.
bool Sysmon::retake_p(P* p, Seen& s, std::int64_t now, bool asked) {
    const assist::Word w = assist::load(*p->rec);
    if (w.state == shared::P_RUN) return look_at_running(p, s, w, now);
    if (w.state == shared::P_IDLE && left_behind(p, now)) {
        look_at_idle(s, now);
    } else {
        s.left_behind = false;
    }
    if (!w.in_kernel() || w.taker != 0 || sched.gcwaiting.load(kSeqCst)) return false;
    if (!long_in_kernel(p, s, w, now) && !asked) {
        look_again_ |= wanted(p);
        return false;
    }
    return wanted(p) && pass_on(p, w, actor(m_));
}

void Sysmon::trim(std::int64_t now) {
    const std::uint32_t idle = sched.midle.load(kRelaxed); // relaxed: a rough measure
    trim_low_[trim_at_] = std::min(trim_low_[trim_at_], idle);
    if (now < trim_when_) return;
    trim_when_ = now + sched.trim_period_ns.load(kRelaxed); // relaxed: changed by tests alone
    // The fewest that were idle at any look of the window were needed by nobody.
    const std::uint32_t low = *std::min_element(std::begin(trim_low_), std::end(trim_low_));
    const std::uint32_t keep = 2 * sched.gomaxprocs.load(kRelaxed) + 2; // relaxed: a rough measure
    int leave = low > keep ? std::min<int>(static_cast<int>(low - keep), kTrimAtOnce) : 0;
    for (; leave > 0; leave--) {
        M* m = mget_spare(1);
        if (!m) break;
        m->order.store(kOrderExit, kSeqCst);
        mwake(m);
    }
    trim_at_ = (trim_at_ + 1) % kTrimWindow;
    trim_low_[trim_at_] = sched.midle.load(kRelaxed); // relaxed: a rough measure
}

void Sysmon::scavenge(std::int64_t now) {
    const bool force = now >= forced_pass();
    if (force || now >= scavenge_period_) {
        gfperiod(force);
        if (force) {
            hoards_pass();
            scavenge_forced_ = now;
        }
        scavenge_period_ = now + kScavengePeriodNs;
    }
    if (now < scavenge_when_) return;
    std::int64_t spent = 0;
    while (spent < kScavengeAtOnceNs && gfscavenge()) spent = kernel::nanotime() - now;
    const bool idle = npidle().load(kRelaxed) == sched.gomaxprocs.load(kRelaxed); // relaxed: a hint
    // What it took longer than that was others' turn on the CPU.
    spent = std::min(spent, 2 * kScavengeAtOnceNs);
    scavenge_when_ = now + spent * (idle ? 10 : 25);
}

} // namespace

void sysmon(M* m) {
    auto* s = persistent_new<Sysmon>(m);
    if (!s) fatal("no memory for sysmon");
    s->run();
}

void tick_coarse_clock(std::int64_t now) {
    const auto seconds = static_cast<std::uint32_t>(now / 1'000'000'000);
    // relaxed, both: see note_wait. Written but once a second, as every park reads it.
    if (sched.coarse_s.load(kRelaxed) != seconds) sched.coarse_s.store(seconds, kRelaxed);
}

void wake_sysmon() {
    tick_coarse_clock(kernel::nanotime());
    sched.sysmonnote.fetch_add(1, kSeqCst);
    kernel::futex_wake(&sched.sysmonnote, 1);
}

} // namespace baton::rt
