// SPDX-License-Identifier: Apache-2.0
//
// What is measured in `bracket`, whoever makes the calls.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <span>
#include <vector>

#include "clock.hpp"
#include "samples.hpp"

namespace bench {

/// What `announced`, which is to call getppid once, takes beyond getppid alone: ns, the median of
/// turns of 500 calls each, for so long.
template <class F>
double extra_ns(std::int64_t ms, F announced) {
    constexpr int kCalls = 500;
    std::vector<double> extra;
    const std::int64_t until = now_ns() + ms * 1'000'000;
    while (now_ns() < until) {
        const std::int64_t start = now_ns();
        for (int i = 0; i < kCalls; ++i) ::syscall(SYS_getppid);
        const std::int64_t middle = now_ns();
        for (int i = 0; i < kCalls; ++i) announced();
        const std::int64_t end = now_ns();
        extra.push_back(static_cast<double>((end - middle) - (middle - start)) / kCalls);
    }
    return median(std::span(extra));
}

} // namespace bench
