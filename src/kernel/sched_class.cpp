// SPDX-License-Identifier: Apache-2.0
#include "kernel/sched_class.hpp"

#include <cerrno>

#include <sched.h>
#include <sys/prctl.h>

#include "kernel/features.hpp"
#include "kernel/syscall.hpp"

namespace baton::kernel {

int become_sched_idle(int tid) noexcept {
    if (!features().sched_idle) return -ENOSYS;
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
