// SPDX-License-Identifier: Apache-2.0
//
// How the kernel's scheduler sees a thread, the calling one if no other is named.
#pragma once

namespace baton::kernel {

/// SCHED_IDLE: the thread runs only when nothing else of its scheduling group wants the CPU.
/// Anyone may; the way back needs CAP_SYS_NICE or RLIMIT_NICE, so it is for threads that stay
/// there for life. Its slice is the shortest there is: among others it has its turn when it has
/// waited for a slice by its weight, 3 where theirs is 1,024, and to end it needs a turn. 0 or
/// -errno.
[[nodiscard]] int become_sched_idle(int tid = 0) noexcept;
/// The way back. 0 or -errno: -EPERM where it is not allowed.
[[nodiscard]] int leave_sched_idle(int tid = 0) noexcept;

/// How much later than asked the kernel may end this thread's timed waits; 50,000 ns unless set.
/// At least 1: 0 would mean the default. 0 or -errno.
[[nodiscard]] int set_timer_slack(long ns) noexcept;

/// What ps, top and gdb call this thread; cut after 15 bytes. 0 or -errno.
int set_thread_name(const char* name) noexcept;

} // namespace baton::kernel
