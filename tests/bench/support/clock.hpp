// SPDX-License-Identifier: Apache-2.0
//
// Clocks and calibrated work, the same for baton's side and the C++ peers. Every implementation
// stamps with CLOCK_MONOTONIC through the vDSO (about 25 ns), so none has a finer clock than
// another.
#pragma once

#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <cstdint>

namespace bench {

inline std::int64_t now_ns() {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
}

/// User and system time of the whole calling process.
inline double process_cpu_us() {
    rusage use;
    ::getrusage(RUSAGE_SELF, &use);
    const auto us = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
    };
    return us(use.ru_utime) + us(use.ru_stime);
}

/// The largest resident set the calling process has had, in units of 10^6 bytes.
inline double peak_resident_mb() {
    rusage use;
    ::getrusage(RUSAGE_SELF, &use);
    return static_cast<double>(use.ru_maxrss) * 1024 / 1e6;
}

/// Runs `work(n)`, which does n operations and returns the nanoseconds they took: with doubling n
/// until that is a fiftieth of `ms`, which warms up, then again and again for `ms`, and those are
/// the figure. Short runs, since some peers are a hundred times slower from one moment to the next.
template <class Work>
double ns_each(long ms, Work work) {
    const double wanted = static_cast<double>(ms) * 1e6;
    std::uint64_t n = 100;
    while (static_cast<double>(work(n)) < wanted / 50) n *= 2;
    double took = 0, done = 0;
    while (took < wanted) {
        took += static_cast<double>(work(n));
        done += static_cast<double>(n);
    }
    return took / done;
}

/// Computation for a given time: a counted loop, so that a thread which loses its CPU owes the
/// rest, as real work does. Calibrated by the fastest of many short runs, which a busy neighbour
/// does not reach into.
class Work {
public:
    Work() {
        constexpr std::uint64_t kTurns = 50'000;
        std::int64_t best = INT64_MAX;
        for (int i = 0; i < 200; ++i) {
            const std::int64_t start = now_ns();
            turn(kTurns);
            best = std::min(best, now_ns() - start);
        }
        turns_per_us_ = static_cast<double>(kTurns) * 1000.0 / static_cast<double>(best);
    }
    void us(double us) const { turn(static_cast<std::uint64_t>(us * turns_per_us_)); }

private:
    static void turn(std::uint64_t n) {
        if (n != 0) asm volatile("1: dec %0; jnz 1b" : "+r"(n) : : "cc");
    }
    double turns_per_us_;
};

} // namespace bench
