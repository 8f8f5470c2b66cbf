// SPDX-License-Identifier: Apache-2.0
//
// Mutex, after the reference's: two modes of operation.
//
// Normal: unlock wakes the first waiter, which competes with whoever comes by. Newcomers run
// already and mostly win, which saves a switch per lock; the loser waits at the front of the queue.
// Starvation, once a waiter has waited for 1 ms: unlock hands the mutex to the first waiter,
// newcomers queue at the back without a try. It ends with a waiter that is the last, or that has
// waited for less.
//
// The word: locked; woken (a waiter is awake and competes: unlock wakes no other); starving; and
// the number of waiters above. Locked is free in starvation mode between unlock and the waiter.
#include <cstdint>

#include "baton/sync.hpp"
#include "kernel/clock.hpp"
#include "runtime/sema.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kLocked = 1;
constexpr std::uint32_t kWoken = 2;
constexpr std::uint32_t kStarving = 4;
constexpr std::uint32_t kWaiter = 8;
constexpr std::int64_t kStarvationNs = 1'000'000;

// All changes are made to one word, so orders only matter for what the mutex guards: acquire where
// it is taken, release where it is given up, relaxed for looks that a CAS confirms.
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kRelaxed = std::memory_order_relaxed;

/// Spins while that may help. True if the word is to be read again; then `awake` may have been set:
/// the word says that somebody competes, and unlock wakes nobody else.
bool spin_for(std::atomic<std::uint32_t>& word, std::uint32_t state, bool& awake, int& tries) {
    // In starvation mode the mutex goes to a waiter: no use trying.
    if ((state & (kLocked | kStarving)) != kLocked || !rt::can_spin(tries)) return false;
    if (!awake && !(state & kWoken) && state >= kWaiter &&
        // relaxed: see above.
        word.compare_exchange_strong(state, state | kWoken, kRelaxed, kRelaxed))
        awake = true;
    rt::spin();
    tries++;
    return true;
}

[[noreturn]] void not_locked() {
    rt::fatal("unlock of unlocked mutex: each unlock needs a lock of its own before it; "
              "std::lock_guard keeps them in pairs");
}

} // namespace

bool Mutex::try_lock() noexcept {
    std::uint32_t state = state_.load(kRelaxed); // relaxed: see above
    while (!(state & (kLocked | kStarving))) {
        // acquire: pairs with the release in unlock.
        if (state_.compare_exchange_weak(state, state | kLocked, kAcquire, kRelaxed)) return true;
    }
    return false;
}

void Mutex::lock_slow() {
    rt::must_park("Mutex::lock");
    std::int64_t wait_start = 0;
    bool starving = false;
    bool awake = false;
    int tries = 0;
    std::uint32_t state = state_.load(kRelaxed); // relaxed: see above
    for (;;) {
        if (spin_for(state_, state, awake, tries)) {
            state = state_.load(kRelaxed); // relaxed: see above
            continue;
        }
        std::uint32_t wanted = state;
        if (!(state & kStarving)) wanted |= kLocked; // else we queue
        if (state & (kLocked | kStarving)) wanted += kWaiter;
        // Into starvation mode only while it is locked: unlock expects waiters in it.
        if (starving && (state & kLocked)) wanted |= kStarving;
        if (awake) wanted &= ~kWoken;
        // acquire: pairs with the release in unlock.
        if (!state_.compare_exchange_strong(state, wanted, kAcquire, kRelaxed)) continue;
        if (!(state & (kLocked | kStarving))) return;

        const bool lifo = wait_start != 0; // it has been woken before, and lost
        if (!lifo) wait_start = kernel::nanotime();
        rt::semacquire(&sema_, lifo, rt::WaitReason::kMutexLock);
        starving = starving || kernel::nanotime() - wait_start > kStarvationNs;
        state = state_.load(kRelaxed); // relaxed: see above
        if (state & kStarving) {
            // It was handed to us: locked is not set, and we are still counted as a waiter.
            std::uint32_t change = kLocked - kWaiter;
            if (!starving || state < 2 * kWaiter) change -= kStarving;
            // acquire: pairs with the release in unlock, which the semaphore has passed on already.
            state_.fetch_add(change, kAcquire);
            return;
        }
        awake = true;
        tries = 0;
    }
}

void Mutex::unlock_slow(std::uint32_t left) {
    if (!((left + kLocked) & kLocked)) not_locked();
    if (left & kStarving) {
        // Newcomers leave it alone while starving is set, so the waiter finds it free.
        rt::semrelease(&sema_, true);
        return;
    }
    // Wake one waiter, unless there is none, or somebody is awake, or has locked it, and will see
    // to the rest.
    while (left >= kWaiter && !(left & (kLocked | kWoken | kStarving))) {
        // release: who locks it after this change sees what our fetch_sub released, as that is in
        // the same release sequence; the semaphore needs it as little. relaxed on failure: a look.
        if (state_.compare_exchange_weak(left, (left - kWaiter) | kWoken, kRelease, kRelaxed)) {
            rt::semrelease(&sema_);
            return;
        }
    }
}

} // namespace baton
