// SPDX-License-Identifier: Apache-2.0
//
// Barrier: a number of goroutines that go on together, again and again, with the names of
// std::barrier.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <system_error>
#include <utility>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {

/// All of a Barrier but the call at the end of a phase.
class BarrierCore {
public:
    explicit BarrierCore(std::ptrdiff_t expected) noexcept
        : expected_(expected), pending_(expected) {}
    std::uint64_t phase() const noexcept;
    /// True: all have arrived, and next_phase is to follow.
    bool arrive(std::ptrdiff_t n);
    void drop() noexcept;
    void next_phase() noexcept;
    WaitEnd wait(std::uint64_t phase, const Until* until) const;

private:
    std::atomic<std::ptrdiff_t> expected_; // in each phase to come
    std::atomic<std::ptrdiff_t> pending_;  // in this one
    std::atomic<std::uint64_t> phase_{0};
};

struct NoCompletion {
    void operator()() const noexcept {}
};

} // namespace detail

/// A phase ends when all have arrived: the last one calls `completion`, which must not throw, then
/// everybody goes on, and the next phase has begun. Waiting parks the goroutine, and ends the
/// process inside blocking().
///
/// An arrival cannot be taken back. Who gives up waiting has arrived all the same: the phase ends
/// without it, and counts on it again in the next one, unless it arrives there by arrive_and_drop.
template <class Completion = detail::NoCompletion>
class Barrier {
public:
    /// Which phase an arrival belongs to.
    class arrival_token { // NOLINT(readability-identifier-naming): std::barrier's
    public:
        arrival_token(arrival_token&&) noexcept = default;
        arrival_token& operator=(arrival_token&&) noexcept = default;

    private:
        friend class Barrier;
        explicit arrival_token(std::uint64_t phase) noexcept : phase_(phase) {}
        std::uint64_t phase_;
    };

    /// `expected`: how many arrivals end a phase, 1 to max().
    explicit Barrier(std::ptrdiff_t expected, Completion completion = Completion())
        : core_(expected), completion_(std::move(completion)) {}
    Barrier(const Barrier&) = delete;
    Barrier& operator=(const Barrier&) = delete;

    [[nodiscard]] static constexpr std::ptrdiff_t max() noexcept {
        return std::numeric_limits<std::ptrdiff_t>::max();
    }

    /// Arrives `n` times without waiting. Ends the process if these are more than are still to
    /// come. Never parks, but for what `completion` does.
    [[nodiscard]] arrival_token arrive(std::ptrdiff_t n = 1) {
        const std::uint64_t phase = core_.phase();
        if (core_.arrive(n)) {
            completion_();
            core_.next_phase();
        }
        return arrival_token(phase);
    }
    /// Parks until the phase of the arrival has ended.
    void wait(arrival_token&& arrival) const { (void)core_.wait(arrival.phase_, nullptr); }
    /// The same, as long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if it has not ended then. The token may be waited for again.
    void wait(const arrival_token& arrival, const Until& until) const {
        if (const auto end = core_.wait(arrival.phase_, &until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::Barrier::wait");
    }
    /// The same; false with the reason in `ec`.
    [[nodiscard]] bool wait(const arrival_token& arrival, const Until& until,
                            std::error_code& ec) const {
        return detail::waited(core_.wait(arrival.phase_, &until), ec);
    }
    void arrive_and_wait() { wait(arrive()); }
    void arrive_and_wait(const Until& until) { wait(arrive(), until); }
    [[nodiscard]] bool arrive_and_wait(const Until& until, std::error_code& ec) {
        return wait(arrive(), until, ec);
    }
    /// Arrives, for the last time: the phases after this one expect one less.
    void arrive_and_drop() {
        core_.drop();
        (void)arrive();
    }

private:
    detail::BarrierCore core_;
    [[no_unique_address]] Completion completion_;
};

} // namespace baton
#pragma GCC visibility pop
