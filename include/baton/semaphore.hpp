// SPDX-License-Identifier: Apache-2.0
//
// Semaphore: a number of permits, as std::counting_semaphore and golang.org/x/sync/semaphore.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <system_error>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
/// Ends the process: nobody can have so many, or so few.
[[noreturn]] void no_such_permits() noexcept;
} // namespace detail

/// Permits are taken one or several at a time, first come first served: who wants many is not
/// passed by those who want few. Any thread may release what another acquired. May be destroyed as
/// soon as nobody waits and what had to be released has been acquired. Waiting parks the goroutine,
/// and ends the process inside blocking().
class Semaphore {
public:
    /// With `permits` to begin with; 0 to max().
    explicit Semaphore(std::ptrdiff_t permits) noexcept : state_(permits * kOne) {
        if (permits < 0 || permits > max()) detail::no_such_permits();
    }
    Semaphore(const Semaphore&) = delete;
    Semaphore& operator=(const Semaphore&) = delete;

    [[nodiscard]] static constexpr std::ptrdiff_t max() noexcept {
        return std::numeric_limits<std::ptrdiff_t>::max() / kOne;
    }

    /// Takes `n` permits, 0 to max(); parks until there are so many. Here and below any other
    /// number ends the process.
    void acquire(std::ptrdiff_t n = 1) { (void)acquire_within(n, nullptr); }
    /// The same, as long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if there were not enough then. None are taken.
    void acquire(const Until& until) { acquire(1, until); }
    void acquire(std::ptrdiff_t n, const Until& until) {
        if (const auto end = acquire_within(n, &until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::Semaphore::acquire");
    }
    /// The same; false with the reason in `ec`.
    [[nodiscard]] bool acquire(const Until& until, std::error_code& ec) {
        return acquire(1, until, ec);
    }
    [[nodiscard]] bool acquire(std::ptrdiff_t n, const Until& until, std::error_code& ec) {
        return detail::waited(acquire_within(n, &until), ec);
    }
    /// Takes them if that can be done at once and nobody waits. Never parks.
    [[nodiscard]] bool try_acquire(std::ptrdiff_t n = 1) noexcept {
        if (n < 0 || n > max()) detail::no_such_permits();
        std::int64_t state = state_.load(std::memory_order_relaxed); // relaxed: a CAS confirms it
        while (!(state & kWaiters) && state >= n * kOne) {
            // acquire: pairs with release. relaxed on failure: as above.
            if (state_.compare_exchange_weak(state, state - n * kOne, std::memory_order_acquire,
                                             std::memory_order_relaxed))
                return true;
        }
        return false;
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_acquire_for(const std::chrono::duration<Rep, Period>& d,
                                       std::ptrdiff_t n = 1) {
        const Until until(d);
        return acquire_within(n, &until) == detail::WaitEnd::kDone;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& t,
                                         std::ptrdiff_t n = 1) {
        const Until until(t);
        return acquire_within(n, &until) == detail::WaitEnd::kDone;
    }
    /// Gives `n` permits, which need not have been acquired, and wakes those who have enough now.
    /// Ends the process if there are more than max() then. What was done before is seen by who
    /// acquires them. Never parks.
    void release(std::ptrdiff_t n = 1) {
        // release: pairs with the acquire of who takes them.
        const std::int64_t before = state_.fetch_add(n * kOne, std::memory_order_release);
        if ((before & kWaiters) || n < 0 || before > kFull - n * kOne) release_slow(before, n);
    }

private:
    // Twice the permits; the lowest bit: somebody waits.
    static constexpr std::int64_t kWaiters = 1;
    static constexpr std::int64_t kOne = 2;
    static constexpr std::int64_t kFull = std::numeric_limits<std::int64_t>::max() - kWaiters;

    detail::WaitEnd acquire_within(std::ptrdiff_t n, const Until* until) {
        return try_acquire(n) ? detail::WaitEnd::kDone : acquire_slow(n, until);
    }
    detail::WaitEnd acquire_slow(std::ptrdiff_t n, const Until* until);
    void release_slow(std::int64_t before, std::ptrdiff_t n);

    std::atomic<std::int64_t> state_;
};

} // namespace baton
#pragma GCC visibility pop
