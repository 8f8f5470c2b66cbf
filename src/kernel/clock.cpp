// SPDX-License-Identifier: Apache-2.0
#include "kernel/clock.hpp"

#include <cmath>

#include <cpuid.h>

namespace baton::kernel {
namespace {

__extension__ typedef unsigned __int128 Wide;

/// Below this the two clock reads' own error, some 25 ns each, would show.
constexpr std::int64_t kCalibrationNsMin = 1'000'000;

/// The same moment on both clocks.
struct Anchor {
    std::int64_t ns;
    std::uint64_t ticks;
};

/// Of a few tries the one with the shortest clock read: the others were interrupted in between.
Anchor take_anchor() noexcept {
    Anchor best{};
    std::uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 4; ++i) {
        const std::uint64_t before = cputicks();
        const std::int64_t ns = nanotime();
        const std::uint64_t width = cputicks() - before;
        if (width < best_width) {
            best_width = width;
            best = {ns, before + width / 2};
        }
    }
    return best;
}

/// Taken when the process starts, so that a later calibration need not wait. All zero while
/// another file's static initialiser is still running before this one.
const Anchor g_start = take_anchor();

/// Hz as the CPU (leaf 0x15) or the hypervisor (leaf 0x40000010) states it; 0 if neither does.
double stated_hz() noexcept {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(0x15, &a, &b, &c, &d) != 0 && a != 0 && b != 0 && c != 0) {
        return static_cast<double>(c) * b / a;
    }
    constexpr unsigned kHypervisorPresent = 1U << 31;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kHypervisorPresent) == 0) return 0;
    __cpuid(0x40000000, a, b, c, d);
    // A largest leaf beyond the range means that there is no such range at all.
    if (a < 0x40000010 || a > 0x400000ff) return 0;
    __cpuid(0x40000010, a, b, c, d);
    return static_cast<double>(a) * 1000;
}

double measured_ns_per_tick() noexcept {
    const Anchor start = g_start.ns != 0 ? g_start : take_anchor();
    while (nanotime() - start.ns < kCalibrationNsMin) __builtin_ia32_pause();
    const Anchor end = take_anchor();
    return static_cast<double>(end.ns - start.ns) / static_cast<double>(end.ticks - start.ticks);
}

struct Scale {
    double ns_per_tick;
    std::uint64_t factor; ///< ns_per_tick in units of 2^-32
};

Scale calibrate() noexcept {
    const double hz = stated_hz();
    // A frequency outside 100 MHz to 100 GHz is not one: some hypervisors leave garbage there.
    const double ns = hz > 1e8 && hz < 1e11 ? 1e9 / hz : measured_ns_per_tick();
    return {ns, static_cast<std::uint64_t>(std::llround(ns * 4294967296.0))};
}

const Scale& scale() noexcept {
    static const Scale s = calibrate();
    return s;
}

} // namespace

double ns_per_tick() noexcept { return scale().ns_per_tick; }

std::int64_t ticks_to_ns(std::uint64_t ticks) noexcept {
    const Wide ns = (static_cast<Wide>(ticks) * scale().factor) >> 32;
    return ns > static_cast<Wide>(INT64_MAX) ? INT64_MAX : static_cast<std::int64_t>(ns);
}

} // namespace baton::kernel
