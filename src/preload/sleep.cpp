// SPDX-License-Identifier: Apache-2.0
//
// Sleeping. A goroutine that sleeps is interrupted by no signal, as none is for it.
#include "preload/preload.hpp"

namespace baton::preload {

namespace {

// 0 or an errno.
int sleep_for(const timespec* d) {
    if (!valid(*d)) return EINVAL;
    const std::int64_t ns = to_ns(*d);
    if (ns > 0) rt->sleep_until(deadline_in(ns));
    return 0;
}

} // namespace

int g_nanosleep(const timespec* d, timespec*) {
    const int err = sleep_for(d);
    return static_cast<int>(finish(-err));
}

int g_clock_nanosleep(clockid_t id, int flags, const timespec* d, timespec* left) {
    const bool absolute = (flags & TIMER_ABSTIME) != 0;
    // The realtime clock can be set, which matters to a point in time, not to a length.
    if (id != CLOCK_MONOTONIC && (id != CLOCK_REALTIME || absolute))
        return blocking(real_clock_nanosleep(), id, flags, d, left);
    if (!absolute) return sleep_for(d);
    if (!valid(*d)) return EINVAL;
    if (to_ns(*d) > now_ns()) rt->sleep_until(to_ns(*d));
    return 0;
}

unsigned g_sleep(unsigned s) {
    rt->sleep_until(deadline_in(s * kNsPerS));
    return 0;
}

int g_usleep(useconds_t us) {
    rt->sleep_until(deadline_in(std::int64_t{us} * 1000));
    return 0;
}

int g_thrd_sleep(const timespec* d, timespec*) { return sleep_for(d) == 0 ? 0 : -2; }

} // namespace baton::preload
