// SPDX-License-Identifier: Apache-2.0
//
// Per-P timers: a 4-ary heap per P, entries deleted lazily, after the reference's time.go.
//
// Threads: timer_reset from any M with a P or any plain thread, timer_stop from any thread;
// Timers::run by the P's owner, or by a thief of timers (findrunnable's last pass). A callback runs
// on the M that runs the heap, on g0 or on a G's stack, with the heap's lock released; it must not
// park. It may ready Gs. Several timers leave the heap at a time and are called one after another.
// Invariants: I1 a Timer lives in memory that is never given back (a G, a PollDesc from the pool),
// as the heap may hold a stopped one for a while; so do Timers. I2 a Timer is in at most one heap,
// the one it names. I3 whenever the lock is free the head is a live timer, in its place. Locks: a
// Timer is guarded by the lock of the heap it is in. One that is in none is claimed by a CAS of
// `heap`, by whoever arms it, under the lock of the heap it goes to. Ordering: (A) arming publishes
// next_when, then wake_netpoller looks for a sleeper; (B) who is to sleep publishes until when,
// then looks at next_when. All four are seq_cst: if both could read the old value, a timer would
// wait for a poller that sleeps past it. Rejected: a lock per timer as well, as the reference has
// (an uncontended pair of locked operations more per arm and per fire); the index of its entry in
// each Timer (a sift would write to the G of each entry it moves).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/lock.hpp"
#include "runtime/timer_heap.hpp"

namespace baton::rt {

struct Timers;

/// When, what and for whom. `seq` is passed to f as it was at reset: callers tell stale firings by
/// it.
struct Timer {
    using Fn = void (*)(void* arg, std::uintptr_t seq, std::int64_t late_ns);

    Fn f = nullptr;
    void* arg = nullptr;
    std::uintptr_t seq = 0;
    std::int64_t when = 0;       // CLOCK_MONOTONIC ns
    std::int64_t entry_when = 0; // as its entry in the heap has it; another while it is to be moved
    bool zombie = false;         // stopped, its entry still in the heap
    std::atomic<Timers*> heap{nullptr}; // where it is heaped
};

/// Arms `t` for `when` on the calling P, or moves it if it is armed. True if it was pending before.
/// A plain thread's timer goes to another P; the runtime must have started.
bool timer_reset(Timer* t, std::int64_t when, Timer::Fn f, void* arg, std::uintptr_t seq = 0);
/// True if this call kept it from firing. The callback may still be running elsewhere when it
/// returns false.
bool timer_stop(Timer* t);

/// Called without locks when a timer was armed that is now the first of its heap: whoever sleeps in
/// the poller past `when` is to wake, and if nobody polls somebody is to start. (findrunnable.cpp)
void wake_netpoller(std::int64_t when);

struct Timers {
    Lock lock{Rank::kTimers};
    TimerHeap heap; // never gives memory back
    // When the first is due, 0 = none. Written under lock; read by anybody who sleeps or steals.
    std::atomic<std::int64_t> next_when{0};
    std::int64_t moved_when = 0; // the earliest of the timers to be moved up; 0 = none
    std::uint32_t zombies = 0;

    struct Armed {
        bool pending; // it was armed before
        bool sooner;  // next_when went down
    };
    /// timer_reset with this heap for a timer that is in none; does not wake the poller.
    Armed arm(Timer* t, std::int64_t when, Timer::Fn f, void* arg, std::uintptr_t seq) noexcept;
    /// Runs what is due at `now`, but no more than `most`; returns when the next is due, 0 for
    /// none.
    std::int64_t run(std::int64_t now, std::uint32_t most = UINT32_MAX);
    /// Moves every timer of `from` here; the world is stopped.
    void take(Timers& from);

    /// A timer that has left the heap, to be called.
    struct Due {
        Timer::Fn f;
        void* arg;
        std::uintptr_t seq;
        std::int64_t when;
    };

    // What follows is called with the lock held.
    std::uint32_t take_due(std::int64_t now, Due* due, std::uint32_t most) noexcept;
    bool place(Timer* t, std::int64_t when, bool fresh);
    bool publish() noexcept;
    void clean_head() noexcept;
    void adjust() noexcept;
};

} // namespace baton::rt
