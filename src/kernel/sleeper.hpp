// SPDX-License-Identifier: Apache-2.0
//
// Does another thread of this process sleep, and where? As /proc tells; it takes no privilege.
//
// Threads: any thread, signal handlers included. Nothing is allocated, no descriptor is kept.
//
// Ordering: an answer other than kAwake says that at some moment of the call the thread was off its
// CPU, and not waiting for one: the kernel looks under its run queue's lock (wait_task_inactive).
// Whoever leaves a CPU and whoever gets one crosses a full barrier. So what the thread had stored
// before that moment is seen here after the call, and what was stored here before the call is seen
// by all it does after that moment.
// Rejected: "stat" and "wchan", which are read without that lock: a thread about to sleep that then
// does not is shown asleep, with its stores still on their way. A descriptor kept for each thread:
// 1.3 us less of 2.4, for as many descriptors as threads, to be given up on fork and thread exit.
#pragma once

#include <cstdint>

namespace baton::kernel {

/// It runs or waits for a CPU; or it cannot be told.
inline constexpr long kAwake = -2;
/// It sleeps in no system call: in a page fault.
inline constexpr long kInFault = -1;

/// The number of the system call in which another thread of ours sleeps, kInFault, or kAwake.
[[nodiscard]] long sleeps_in(std::uint32_t tid) noexcept;

/// How much another thread of ours has run, and how often it has gone to sleep; what cannot be told
/// is 0.
struct Effort {
    std::int64_t cpu_ns = 0;
    std::uint64_t sleeps = 0;
};
[[nodiscard]] Effort effort_of(std::uint32_t tid) noexcept;
/// The first half of that, for the price of a system call.
[[nodiscard]] std::int64_t cpu_ns_of(std::uint32_t tid) noexcept;

/// Null if sleeps_in can be relied on: /proc is there, names this thread by the number it knows
/// itself by (pid namespaces), and may be read. Else one phrase that says what is wrong.
[[nodiscard]] const char* why_no_sleepers() noexcept;

} // namespace baton::kernel
