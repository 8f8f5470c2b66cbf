// SPDX-License-Identifier: Apache-2.0
//
// Sleeping without a thread: the goroutine parks on a timer of its processor.
#pragma once

#include <chrono>
#include <cstdint>
#include <system_error>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
/// Parks the goroutine until CLOCK_MONOTONIC reaches `when_ns`.
void sleep_until_ns(std::int64_t when_ns);
/// The same, or until `until`, if that comes first; then it is told so.
WaitEnd sleep_until_ns(std::int64_t when_ns, const Until& until);
} // namespace detail

/// Parks the calling goroutine for at least `d`; zero and negative durations return at once.
/// Sub-millisecond durations are honoured, ones beyond the clock's range mean for ever. On a plain
/// thread it sleeps the thread. Inside blocking() it ends the process.
template <class Rep, class Period>
void sleep_for(const std::chrono::duration<Rep, Period>& d) {
    if (d <= d.zero()) return;
    detail::sleep_until_ns(detail::saturating_deadline_ns(detail::saturating_ns(d)));
}

/// The same, but gives up at `until`, and throws if that came first.
template <class Rep, class Period>
void sleep_for(const std::chrono::duration<Rep, Period>& d, const Until& until) {
    if (d <= d.zero()) return;
    const detail::WaitEnd end =
        detail::sleep_until_ns(detail::saturating_deadline_ns(detail::saturating_ns(d)), until);
    if (end != detail::WaitEnd::kDone) detail::throw_wait_end(end, "baton::sleep_for");
}
/// The same; false, with the reason in `ec`, if it was given up.
template <class Rep, class Period>
bool sleep_for(const std::chrono::duration<Rep, Period>& d, const Until& until,
               std::error_code& ec) {
    ec.clear();
    if (d <= d.zero()) return true;
    const detail::WaitEnd end =
        detail::sleep_until_ns(detail::saturating_deadline_ns(detail::saturating_ns(d)), until);
    ec = detail::wait_error(end);
    return !ec;
}

/// Parks the calling goroutine until `t` on any clock, which is read once.
template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& t) {
    sleep_for(detail::saturating_from_now(t));
}
template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& t, const Until& until) {
    sleep_for(detail::saturating_from_now(t), until);
}
template <class Clock, class Duration>
bool sleep_until(const std::chrono::time_point<Clock, Duration>& t, const Until& until,
                 std::error_code& ec) {
    return sleep_for(detail::saturating_from_now(t), until, ec);
}

} // namespace baton
#pragma GCC visibility pop
