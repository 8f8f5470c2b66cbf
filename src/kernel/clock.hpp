// SPDX-License-Identifier: Apache-2.0
//
// The monotonic clock, and the tick counter where even the clock is too dear.
//
// Threads: any thread. nanotime and cputicks also from signal handlers; ticks_to_ns and
// ns_per_tick only once one of them has been called outside (the first call calibrates).
//
// Rejected: keeping time in ticks everywhere. A deadline has to be handed to the kernel in
// nanoseconds of CLOCK_MONOTONIC, and the conversion drifts with the calibration's error (some
// ten parts per million): ticks are for durations that are only compared or counted.
#pragma once

#include <cstdint>
#include <ctime>

namespace baton::kernel {

/// "Never", as a deadline.
inline constexpr std::int64_t kForever = INT64_MAX;

/// CLOCK_MONOTONIC in nanoseconds, through the vdso.
[[nodiscard]] inline std::int64_t nanotime() noexcept {
    timespec ts;
    ::clock_gettime(CLOCK_MONOTONIC, &ts);
    return std::int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

/// The time stamp counter. Not ordered against the instructions around it.
[[nodiscard]] inline std::uint64_t cputicks() noexcept { return __builtin_ia32_rdtsc(); }

/// Length of one tick. The first call calibrates: nothing when the CPU or the hypervisor tells
/// the frequency or the process is older than a millisecond, else it spins until it is.
[[nodiscard]] double ns_per_tick() noexcept;

/// A duration in ticks, as nanoseconds. Saturates at INT64_MAX.
[[nodiscard]] std::int64_t ticks_to_ns(std::uint64_t ticks) noexcept;

} // namespace baton::kernel
