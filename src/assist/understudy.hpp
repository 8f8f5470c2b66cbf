// SPDX-License-Identifier: Apache-2.0
//
// The understudy: one thread per CPU, pinned there, in the scheduling class SCHED_IDLE, and
// runnable.
//
// While an M runs on that CPU the understudy never gets it. When the kernel blocks that M, the
// kernel itself switches to the understudy: no wake-up, no interrupt. It finds the P in the kernel,
// passes it to a parked M by a futex wake, which on its own CPU is a plain switch, and looks on.
//
//   armed   runnable, waiting for its CPU or looking; looks for at most 5 us at a time
//   dozing  asleep on a futex; an M entering a system call on this CPU arms it, or one that wakes
//           here from idleness and will do so soon (arm_after_idle)
//
// It never runs Gs and never keeps a P: SCHED_IDLE is idle only inside its own scheduling group,
// and a holder in that class stalls for as long as anybody else wants the CPU.
//
// Threads: arm from the M on that CPU, the rest from the understudies themselves.
// Ordering: (A) an M stores its word and then loads `armed`; the understudy clears `armed` and then
//   loads the words. Both run on one CPU, which sees its own stores in order, and a switch between
//   them is a full barrier; an M that migrates in between has crossed such a switch. So no fence is
//   needed on the M's side. The understudy re-checks only words of its own CPU: with any word,
//   arming and dozing chase each other for ever.
// Rejected: promotion, the understudy running the first G itself. As a thread that becomes an M
//   for good it needs CAP_SYS_NICE to leave SCHED_IDLE again. Tried here without: it runs one G,
//   in SCHED_IDLE, and passes the P on when that comes to the scheduler. For a block with one G
//   in line and nothing else about that pays (handoff, quiet: p50 1.7 us in place of 2.7, p99 6
//   for 12). On a saturated machine, and without neighbours at that (handoff_load, medians of
//   three, blocks of 2 ms and 50 us), it does not: 0.62x and 0.83x of the items, p99 16x and
//   1.4x, as Gs that block take the understudy along; and if it passes the P on before such a
//   call, 0.80x and 0.90x, p99 1.7x and 1.4x, CPU beyond the items 1.2x: whoever wakes there
//   preempts it, and finds no P.
//   Looking for longer than 5 us: 45 % of a CPU taken from a busy process of another group.
//   sched_yield between two looks, for an M that gave it the CPU by a sched_yield of its own: it
//   dozed in 5 of 13,000 such rounds in place of 4,600, and as many were slow. What makes them so
//   is that the kernel wakes the M that blocked on a CPU that idles, and it has to come back from
//   there for the next block: 8 us in place of 2.3 with steering (mget_near).
//   Steering otherwise. Between bare threads an M comes over by it in 5.8 us, 2.2 of which are the
//   two affinity calls, in 3.9 by the synchronous wake of a pipe, and in 1.6 if it was here last:
//   a pipe for each M would not pay. M bound until its next park, or longer: threads and children
//   that its Gs start inherit that. Left there and woken there: 5.5 us if that CPU idled just now,
//   15 to 35 else.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "assist/ownership.hpp"
#include "assist/records.hpp"

namespace baton::assist {

/// What the understudies share with the Ms, one per CPU.
struct alignas(64) Cpu {
    std::atomic<std::uint32_t> armed{1}; // 1 armed, 0 dozing; the futex it dozes on
    std::atomic<bool> idled{false};      // its understudy has passed nothing on since it dozed
    std::atomic<bool> ours{false};       // the process may use this CPU, as far as is known
    std::atomic<std::uint64_t> arms{0};
    std::atomic<std::uint64_t> dozes{0};
    /// Not yet up: who started it waits, or nobody does. Up, and to be put in SCHED_IDLE.
    static constexpr std::uint32_t kPending = ~0u, kAlone = ~1u, kUp = ~2u;
    std::atomic<std::uint32_t> start{kPending}; // then how its thread came up: 0 or an errno
    std::atomic<int> tid{0};                    // of the thread, 0 while there is none
};

/// What came of a look at a P.
enum class Found : std::uint8_t {
    kNothing, // nobody needs it, or another was first
    kAwake,   // its M had to be asked for, which takes a while, and does not sleep
    kTaken,
};

/// What the runtime gives the understudies.
struct UnderstudyHooks {
    /// Called first on each understudy's thread: its identity for the ownership protocol.
    Actor (*attach)();
    /// Passes the P to an M if anybody needs it. `seen` is the word as found; in RUN it is to be
    /// found out whether its M sleeps.
    Found (*dispatch)(std::uint32_t p_slot, Word seen, const Actor& me, std::uint32_t cpu);
    /// P slots 1 to this are in use.
    const std::atomic<std::uint32_t>* procs;
};

class Understudies {
public:
    /// Starts one on each CPU the process may use. 0, or -errno of the first that could not be had
    /// (those started stay). `by_probe`: take only what the probe has marked blocked; otherwise
    /// whatever is in a system call, as its M cannot be running while we are, or sleeps in G code,
    /// if its M said that it is on this CPU.
    [[nodiscard]] int start(const Records& records, const UnderstudyHooks& hooks, bool by_probe);

    /// The process may use these CPUs from now on: each has an understudy, pinned there, if start
    /// was called. Those of others stay, go where the process may, and are never armed.
    void follow(const std::vector<int>& cpus) noexcept;

    /// The process ends. The kernel reports that only when each of its threads has had a CPU once
    /// more, and in SCHED_IDLE that takes a second where many others want it: so they leave that
    /// class, where they may. Any thread.
    void hurry() noexcept;

    /// Where nobody was started every CPU counts as armed, so that nobody tries to arm.
    [[nodiscard]] Cpu& cpu(std::uint32_t i) noexcept { return cpus_[i]; }
    [[nodiscard]] std::uint32_t ncpu() const noexcept { return ncpu_; }
    /// Wakes the dozing understudy of a CPU.
    void arm(std::uint32_t cpu) noexcept;
    /// Prepares the array, all armed; before anything else.
    void prepare(std::uint32_t ncpu);

private:
    static int start_thread(Cpu& c, std::uint32_t how) noexcept;
    static int wait_started(Cpu& c) noexcept;
    static void* thread_main(void* cpu);
    void run(std::uint32_t cpu) noexcept;
    Found look(std::uint32_t cpu, const Actor& me) noexcept;
    bool takeable(Word w, std::uint32_t cpu) const noexcept;

    Records records_{};
    UnderstudyHooks hooks_{};
    bool by_probe_ = false;
    std::uint32_t ncpu_ = 0;
    Cpu* cpus_ = nullptr;
    bool started_ = false;
};

/// The process's understudies. No destructor runs on them.
extern constinit Understudies understudies;

} // namespace baton::assist
