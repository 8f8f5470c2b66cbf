// SPDX-License-Identifier: Apache-2.0
//
// Until: how long a call may wait. Every call of the library that waits has overloads with one, but
// those that the kernel does in one piece and nobody can take back (a file's fsync, open and such).
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <stop_token>
#include <system_error>
#include <type_traits>
#include <utility>

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
/// CLOCK_MONOTONIC `from_now` nanoseconds on, never past what it can count.
[[nodiscard]] std::int64_t saturating_deadline_ns(std::chrono::nanoseconds from_now) noexcept;
/// `d` in nanoseconds, rounded up, as many as there can be at most.
template <class Rep, class Period>
std::chrono::nanoseconds saturating_ns(const std::chrono::duration<Rep, Period>& d) {
    using std::chrono::nanoseconds;
    // Compared as doubles: in nanoseconds hours::max() would overflow.
    using Wide = std::chrono::duration<double, std::nano>;
    if (Wide(d) >= Wide(nanoseconds::max())) return nanoseconds::max();
    if (Wide(d) <= Wide(nanoseconds::min())) return nanoseconds::min();
    return std::chrono::ceil<nanoseconds>(d);
}
/// How far `t` is from now on its clock, or as far as nanoseconds can tell. Not `t - Clock::now()`:
/// of a time_point::min(), or one that counts hours, that overflows.
template <class Clock, class Duration>
std::chrono::nanoseconds saturating_from_now(const std::chrono::time_point<Clock, Duration>& t) {
    const std::int64_t when = saturating_ns(t.time_since_epoch()).count();
    const std::int64_t now = saturating_ns(Clock::now().time_since_epoch()).count();
    std::int64_t ns = 0;
    if (__builtin_sub_overflow(when, now, &ns))
        return when < now ? std::chrono::nanoseconds::min() : std::chrono::nanoseconds::max();
    return std::chrono::nanoseconds(ns);
}
/// CLOCK_MONOTONIC at `t`: that of the steady clock, or as far from now as `t` is on another one.
template <class Clock, class Duration>
std::int64_t deadline_ns(const std::chrono::time_point<Clock, Duration>& t) {
    if constexpr (std::is_same_v<Clock, std::chrono::steady_clock>) {
        return saturating_ns(t.time_since_epoch()).count();
    } else {
        return saturating_deadline_ns(saturating_from_now(t));
    }
}
} // namespace detail

/// When a wait is given up: at a point in time, when a stop is requested, at whichever comes first,
/// or never. Made from any of them, so that each of these works:
///
///     ch.recv(50ms);                      // from now
///     ch.recv(steady_clock::now() + 1s);  // any clock; it is read once
///     ch.recv(token);                     // a std::stop_token
///     ch.recv({50ms, token});             // both
///     ch.recv(context);                   // a baton::Context
///
/// What can be done at once is done, even if the time is over or a stop was requested. A wait that
/// is given up fails with std::errc::timed_out or std::errc::operation_canceled: in calls that take
/// a std::error_code& it says which, the others throw a std::system_error with that code. Nothing
/// has happened then: what was to be sent has not been, nothing was received, locked or counted.
///
/// Code that runs in a std::stop_callback must not park. If it calls baton at all, let it hold what
/// it uses (by a std::shared_ptr, say): a stop_callback's destructor waits for one that runs unless
/// that is on the same thread, and another goroutine may have come to that thread meanwhile.
class Until {
public:
    /// Never.
    Until() noexcept = default;
    template <class Rep, class Period>
    Until(const std::chrono::duration<Rep, Period>& from_now)
        : when_ns_(detail::saturating_deadline_ns(detail::saturating_ns(from_now))) {}
    template <class Clock, class Duration>
    Until(const std::chrono::time_point<Clock, Duration>& t) : when_ns_(detail::deadline_ns(t)) {}
    Until(std::stop_token token) noexcept : token_(std::move(token)) {}
    template <class When>
    Until(const When& when, std::stop_token token) : Until(when) {
        token_ = std::move(token);
    }

    /// CLOCK_MONOTONIC, nanoseconds; kNever if there is no deadline.
    [[nodiscard]] std::int64_t when_ns() const noexcept { return when_ns_; }
    [[nodiscard]] const std::stop_token& token() const noexcept { return token_; }

    static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

private:
    std::int64_t when_ns_ = kNever;
    std::stop_token token_;
};

namespace detail {

/// How a wait ended that may be given up.
enum class WaitEnd : std::uint8_t { kDone, kTimedOut, kStopped };
/// Throws the std::system_error for `end`, which is not kDone. `what` names the call.
[[noreturn]] void throw_wait_end(WaitEnd end, const char* what);
/// Its error code; none for kDone.
std::error_code wait_error(WaitEnd end) noexcept;
/// Whether it is kDone; else `ec` is the code for it, and is cleared if it is.
bool waited(WaitEnd end, std::error_code& ec) noexcept;

} // namespace detail

} // namespace baton
#pragma GCC visibility pop
