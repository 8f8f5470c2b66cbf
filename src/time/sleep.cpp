// SPDX-License-Identifier: Apache-2.0
//
// Sleeping: a goroutine parks on a timer of its own, a thread in the kernel.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <ctime>

#include "baton/time.hpp"
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/limit.hpp"

namespace baton::detail {

namespace {

void wake_sleeper(void* g, std::uintptr_t, std::int64_t) {
    auto* gp = static_cast<rt::G*>(g);
    rt::prefetch_stack(gp->sched.sp);
    rt::goready(gp);
}

// Armed only here, once the G is off its stack: a timer armed before that could fire on another M
// and ready a G that still runs. `when` lies on that stack, so it is read before.
bool arm_sleep_timer(rt::G* gp, void* when) {
    rt::timer_reset(&gp->sleep_timer, *static_cast<const std::int64_t*>(when), wake_sleeper, gp);
    return true;
}

void sleep_thread(std::int64_t when_ns) {
    constexpr std::int64_t kNsPerS = 1'000'000'000;
    const timespec when{.tv_sec = when_ns / kNsPerS, .tv_nsec = when_ns % kNsPerS};
    while (::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, nullptr) == EINTR) {
    }
}

} // namespace

void sleep_until_ns(std::int64_t when_ns) {
    if (!rt::getm_or_null()) {
        sleep_thread(when_ns);
        return;
    }
    rt::must_park("sleep_for");
    rt::Entry entry;
    rt::gopark(arm_sleep_timer, &when_ns, rt::WaitReason::kSleep);
}

WaitEnd sleep_until_ns(std::int64_t when_ns, const Until& until) {
    if (const WaitEnd end = rt::over(until); end != WaitEnd::kDone) return end;
    rt::must_park("sleep_for");
    rt::Limit limit(std::min(when_ns, until.when_ns()), until.token());
    rt::Entry entry;
    limit.arm();
    limit.park(rt::WaitReason::kSleep);
    limit.disarm();
    const WaitEnd end = rt::wait_end(limit.g());
    return end == WaitEnd::kTimedOut && when_ns <= until.when_ns() ? WaitEnd::kDone : end;
}

std::int64_t saturating_deadline_ns(std::chrono::nanoseconds from_now) noexcept {
    const std::int64_t now = kernel::nanotime();
    const std::int64_t wait = from_now.count();
    if (wait <= 0) return now;
    return wait > kernel::kForever - now ? kernel::kForever : now + wait;
}

} // namespace baton::detail
