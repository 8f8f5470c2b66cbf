// SPDX-License-Identifier: Apache-2.0
#include <asm/prctl.h>
#include <sys/syscall.h>

#include "arch/x86_64/context.hpp"
#include "kernel/features.hpp"
#include "kernel/syscall.hpp"

namespace baton::arch {

void set_gs_self(void* self) noexcept {
    if (kernel::features().fsgsbase) {
        asm volatile("wrgsbase %0" : : "r"(self) : "memory");
    } else {
        kernel::raw_syscall(SYS_arch_prctl, ARCH_SET_GS, self);
    }
}

} // namespace baton::arch
