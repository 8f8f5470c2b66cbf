// SPDX-License-Identifier: Apache-2.0
//
// What rows of locks have in common.
#pragma once

#include "preload/rows/rows.hpp"

namespace rows {

inline timespec in(clockid_t clock, std::chrono::milliseconds d) {
    timespec t;
    ::clock_gettime(clock, &t);
    t.tv_nsec += d.count() * 1'000'000;
    t.tv_sec += t.tv_nsec / 1'000'000'000;
    t.tv_nsec %= 1'000'000'000;
    return t;
}

inline std::string name_of_error(int e) { return e == 0 ? "0" : strerrorname_np(e); }

/// What another thread gets.
template <class F>
std::string elsewhere(F f) {
    std::string got;
    std::thread([&] { got = name_of_error(f()); }).join();
    return got;
}

} // namespace rows
