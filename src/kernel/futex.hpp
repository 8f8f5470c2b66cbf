// SPDX-License-Identifier: Apache-2.0
//
// Waiting in the kernel for a 32-bit word of this process to change.
//
// Two calls do the same here: futex(2), and the newer futex_wait/futex_wake. The choice is made
// once per process, by futex_call().
//
// Threads: any thread; futex_wake also from signal handlers once features() has been called.
//
// Ordering: none of it comes from here. The kernel compares the word under its own lock, so a
// waker who changes the word first and wakes then is never missed; what else the waker wrote is
// ordered by the atomic operations of the two callers on the word. A return of 0 does not say
// that the word changed: every caller looks again.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "kernel/clock.hpp"

namespace baton::kernel {

static_assert(sizeof(std::atomic<std::uint32_t>) == 4);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

/// Waits while *word is `expected`, until woken or until `deadline_ns` of CLOCK_MONOTONIC
/// (a deadline long past is an immediate -ETIMEDOUT). 0 when woken, perhaps for nothing; -EAGAIN
/// when the word was already another; -EINTR; -ETIMEDOUT.
[[nodiscard]] int futex_wait(const std::atomic<std::uint32_t>* word, std::uint32_t expected,
                             std::int64_t deadline_ns = kForever) noexcept;

/// Wakes up to `n` of the word's waiters; how many it woke. The word may be gone by now: a waker
/// is allowed to be late, and a wake of unmapped memory is 0, not an error. -errno for an address
/// that cannot be one.
int futex_wake(const std::atomic<std::uint32_t>* word, int n) noexcept;

/// One of the words futex_waitv waits for.
struct FutexWaiter {
    const std::atomic<std::uint32_t>* word;
    std::uint32_t expected;
};

inline constexpr std::size_t kFutexWaitersMax = 128;

/// Waits until any one of 1..kFutexWaitersMax words is woken: that word's index; -EAGAIN when
/// one of them already differs; -EINTR; -ETIMEDOUT; -EINVAL for a bad count; -ENOSYS without the
/// feature futex_waitv, for which there is no honest fallback: wait on one word instead.
[[nodiscard]] int futex_waitv(std::span<const FutexWaiter> waiters,
                              std::int64_t deadline_ns = kForever) noexcept;

/// The two ways to make these calls, for tests and benchmarks.
enum class FutexCall : std::uint8_t { kFutex, kFutex2 };

/// The one futex_wait and futex_wake use.
[[nodiscard]] FutexCall futex_call() noexcept;

[[nodiscard]] int futex_wait_by(FutexCall call, const std::atomic<std::uint32_t>* word,
                                std::uint32_t expected, std::int64_t deadline_ns) noexcept;
int futex_wake_by(FutexCall call, const std::atomic<std::uint32_t>* word, int n) noexcept;

} // namespace baton::kernel
