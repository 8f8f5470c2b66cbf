// SPDX-License-Identifier: Apache-2.0
//
// Timers for owners that come and go: a Timer stays where it is for good (timer.hpp, I1), and its
// callback may be on its way while the owner ends. So such timers come from a pool and are never
// freed, and each has a lock that is held while its owner is called.
//
// Threads: any, inside an Entry.
// Invariants: I1 a firing that names another `seq` than the timer's is stale, and calls nobody: so
// once disarm or free has returned, no firing armed before it begins.
// Locks: kUserTimer; the owner's function is called under it, and may take those further down.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/lock.hpp"
#include "runtime/timer.hpp"

namespace baton::rt {

struct alignas(64) UserTimer {
    /// Called with the timer's lock held, on whichever M runs the heap; must not park. `now_ns` is
    /// the time of the firing. False: it could not be done, and is to be tried again soon.
    using Fire = bool (*)(void* owner, std::int64_t now_ns);

    Lock lock{Rank::kUserTimer};
    bool armed = false; // and has not fired since, unless it is periodic
    std::uintptr_t seq = 0;
    std::int64_t period_ns = 0; // 0: fires once
    Fire fire = nullptr;
    void* owner = nullptr;
    Timer timer;
    UserTimer* link = nullptr; // free list
};

/// One that is not armed; null: no memory.
UserTimer* user_timer_alloc(UserTimer::Fire fire, void* owner) noexcept;
/// Disarms it and gives it back. The owner is not called any more. Takes the lock.
void user_timer_free(UserTimer* t) noexcept;

/// Arms it anew for `when_ns` (CLOCK_MONOTONIC). True if it was armed. The lock is held; the
/// runtime must have started.
bool user_timer_arm(UserTimer* t, std::int64_t when_ns, std::int64_t period_ns) noexcept;
/// True if it was armed. The lock is held.
bool user_timer_disarm(UserTimer* t) noexcept;

/// Around a fork, in the parent: between these no owner is called, so the child finds none of the
/// locks held that firings take (a channel's). One fork at a time.
void user_timers_hold();
void user_timers_release();
/// In a forked child: none is armed, and none is free.
void user_timers_forget();

} // namespace baton::rt
