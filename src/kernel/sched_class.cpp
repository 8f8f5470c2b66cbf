// SPDX-License-Identifier: Apache-2.0
#include "kernel/sched_class.hpp"

#include <cerrno>

#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstdint>

#include "kernel/features.hpp"
#include "kernel/syscall.hpp"

namespace baton::kernel {

namespace {

constexpr std::uint64_t kShortestSliceNs = 100'000;

// The kernel's sched_attr, its first version: the libc's headers lack it or clash with it.
struct SchedAttr {
    std::uint32_t size;
    std::uint32_t policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime; // of a thread without deadlines: its slice, since Linux 6.12
    std::uint64_t deadline;
    std::uint64_t period;
};

// Before it goes to SCHED_IDLE, where that cannot be set but stays. Kernels that do not know it
// ignore it.
void shorten_slice(int tid) noexcept {
    SchedAttr attr{};
    if (raw_syscall(SYS_sched_getattr, tid, &attr, sizeof attr, 0) < 0) return;
    attr.runtime = kShortestSliceNs;
    (void)raw_syscall(SYS_sched_setattr, tid, &attr, 0);
}

} // namespace

int become_sched_idle(int tid) noexcept {
    if (!features().sched_idle) return -ENOSYS;
    shorten_slice(tid);
    const sched_param param{};
    return static_cast<int>(raw_syscall(__NR_sched_setscheduler, tid, SCHED_IDLE, &param));
}

int leave_sched_idle(int tid) noexcept {
    const sched_param param{};
    return static_cast<int>(raw_syscall(__NR_sched_setscheduler, tid, SCHED_OTHER, &param));
}

int set_timer_slack(long ns) noexcept {
    if (ns < 1) return -EINVAL;
    return static_cast<int>(raw_syscall(__NR_prctl, PR_SET_TIMERSLACK, ns, 0, 0, 0));
}

int set_thread_name(const char* name) noexcept {
    return static_cast<int>(raw_syscall(__NR_prctl, PR_SET_NAME, name, 0, 0, 0));
}

} // namespace baton::kernel
