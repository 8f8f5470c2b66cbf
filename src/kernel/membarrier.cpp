// SPDX-License-Identifier: Apache-2.0
#include "kernel/membarrier.hpp"

#include <cerrno>

#include <linux/membarrier.h>

#include "kernel/fatal.hpp"
#include "kernel/features.hpp"
#include "kernel/syscall.hpp"

namespace baton::kernel {

// The probe in features.cpp is the registration: it is once per process, and finding out whether
// it works and doing it are the same call.
int membarrier_register() noexcept { return features().membarrier_rseq ? 0 : -ENOSYS; }

void membarrier_rseq_cpu(int cpu) noexcept {
    const int flags = cpu >= 0 ? MEMBARRIER_CMD_FLAG_CPU : 0;
    const long r = raw_syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, flags, cpu);
    if (r != 0) [[unlikely]]
        fatal("membarrier refused", "result", r, "cpu", cpu);
}

} // namespace baton::kernel
