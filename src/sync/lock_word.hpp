// SPDX-License-Identifier: Apache-2.0
//
// The lock of a Mutex and of a RWMutex's writers: four bits of a word, after the reference's
// mutex.go, in two modes of operation.
//
// Normal: unlock wakes the first waiter, which competes with whoever comes by. Newcomers run
// already and mostly win, which saves a switch per lock; the loser waits at the front of the queue.
// Starvation, once a waiter that lost has waited for 1 ms: unlock hands the lock to the first
// waiter, and newcomers queue at the back without a try. It ends with a waiter that is the last, or
// that has waited for less.
//
// The reference counts its waiters in the word and lets them sleep on a semaphore. Here a waiter
// may give up at any moment, also when an unlocker has reckoned with it already; so what the word
// says of the queue is changed with the queue held, and a waiter is woken, handed the lock or gone,
// never two of these.
//
// Threads: any; those that may wait where must_park allows it.
// Invariants, with the queue held: I1 kWaiters is set if and only if somebody is queued, or about
// to be; with none of them kStarving is not set either. I2 kWoken is set only while somebody is
// awake and competes, who clears it when it has the lock, or in the change by which it queues or
// gives up, and that only while the lock is not to be had: so an unlock that is still to come sees
// to the others. I3 whoever unlocked does not touch the word afterwards, as it may be gone, unless
// it holds the queue and somebody is in it.
// Ordering: all in one word, so orders only matter for what the lock guards: acquire where it is
// taken, or handed over on another's behalf, release where it is given up, relaxed for looks that a
// CAS confirms. From who hands it over to who has it the order is goready's.
#pragma once

#include <atomic>
#include <cstdint>

#include "baton/until.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

inline constexpr std::uint32_t kLocked = 1;
inline constexpr std::uint32_t kWaiters = 2;  // somebody is queued
inline constexpr std::uint32_t kWoken = 4;    // somebody is awake and competes: wake no other
inline constexpr std::uint32_t kStarving = 8; // nobody but the first waiter gets the lock
/// The other bits of the word are the user's, and left alone.
inline constexpr int kLockBits = 4;

using LockWord = std::atomic<std::uint32_t>;

/// Can the lock be taken, as far as `state` tells?
constexpr bool to_be_had(std::uint32_t state) { return (state & (kLocked | kStarving)) == 0; }

/// Locks, or gives up at `*until`, unless that is null. `what` names the caller for must_park.
/// Throws std::system_error where a plain thread's deadline needs the runtime and it cannot start.
WaitEnd lock_word_lock(LockWord& word, rt::WaitReason reason, const Until* until, const char* what);

/// The caller has unlocked, which left `state`: wakes a waiter, or hands the lock over, if need be.
void lock_word_unlocked(LockWord& word, rt::WaitReason reason, std::uint32_t state);

/// Unlocks, and sees to the waiters. False: nothing was done, as one of the bits `unless` is set.
/// The caller holds the lock.
bool lock_word_unlock(LockWord& word, rt::WaitReason reason, std::uint32_t unless);

} // namespace baton::detail
