// SPDX-License-Identifier: Apache-2.0
//
// Sleeping without a thread: the goroutine parks on a timer of its processor.
#pragma once

#include <chrono>
#include <cstdint>

#include "baton/until.hpp"

namespace [[gnu::visibility("default")]] baton {

namespace detail {
/// Parks the goroutine until CLOCK_MONOTONIC reaches `when_ns`.
void sleep_until_ns(std::int64_t when_ns);
} // namespace detail

/// Parks the calling goroutine for at least `d`; zero and negative durations return at once.
/// Sub-millisecond durations are honoured, ones beyond the clock's range mean for ever. On a plain
/// thread it sleeps the thread. Inside blocking() it ends the process.
template <class Rep, class Period>
void sleep_for(const std::chrono::duration<Rep, Period>& d) {
    if (d <= d.zero()) return;
    detail::sleep_until_ns(detail::saturating_deadline_ns(detail::saturating_ns(d)));
}

/// Parks the calling goroutine until `t` on any clock, which is read once.
template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& t) {
    const auto now = Clock::now();
    if (t > now) sleep_for(t - now);
}

} // namespace baton
