// SPDX-License-Identifier: Apache-2.0
//
// Latch: a counter that goes down once, with the names of std::latch.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <system_error>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Waits until it has been counted down so often; then it stays open. May be destroyed as soon as a
/// wait has returned and nobody else will call it. Waiting parks the goroutine, and ends the
/// process inside blocking() unless the counter is zero.
class Latch {
public:
    /// `expected`: 0 to max().
    explicit Latch(std::ptrdiff_t expected) noexcept
        : state_(static_cast<std::uint64_t>(expected) << 32) {}
    Latch(const Latch&) = delete;
    Latch& operator=(const Latch&) = delete;

    [[nodiscard]] static constexpr std::ptrdiff_t max() noexcept {
        return std::numeric_limits<std::int32_t>::max();
    }

    /// Takes `n` off the counter, and at zero wakes all who wait. Ends the process if it falls
    /// below zero. What was done before is seen after each wait. Never parks.
    void count_down(std::ptrdiff_t n = 1);
    /// Is the counter zero? Never parks.
    [[nodiscard]] bool try_wait() const noexcept {
        // acquire: pairs with the release in count_down.
        return state_.load(std::memory_order_acquire) >> 32 == 0;
    }
    /// Parks until the counter is zero.
    void wait() const { (void)wait_within(nullptr); }
    /// The same, as long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if it is not zero then.
    void wait(const Until& until) const {
        if (const auto end = wait_within(&until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::Latch::wait");
    }
    /// The same; false with the reason in `ec`.
    [[nodiscard]] bool wait(const Until& until, std::error_code& ec) const {
        return detail::waited(wait_within(&until), ec);
    }
    /// count_down, then wait. If the wait is given up the counter stays as it is.
    void arrive_and_wait(std::ptrdiff_t n = 1) {
        count_down(n);
        wait();
    }
    void arrive_and_wait(const Until& until) { arrive_and_wait(1, until); }
    void arrive_and_wait(std::ptrdiff_t n, const Until& until) {
        count_down(n);
        wait(until);
    }
    [[nodiscard]] bool arrive_and_wait(const Until& until, std::error_code& ec) {
        return arrive_and_wait(1, until, ec);
    }
    [[nodiscard]] bool arrive_and_wait(std::ptrdiff_t n, const Until& until, std::error_code& ec) {
        count_down(n);
        return wait(until, ec);
    }

private:
    detail::WaitEnd wait_within(const Until* until) const;

    mutable std::atomic<std::uint64_t> state_; // countdown.hpp
};

} // namespace baton
#pragma GCC visibility pop
