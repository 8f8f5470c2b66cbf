// SPDX-License-Identifier: Apache-2.0
//
// Letting the C++ runtime's unwinder begin at a stack that is not the one it runs on: of a context
// that was switched away from, or of a signal's. It reads that stack, and writes nothing there.
//
// Threads: any, signal handlers included. The stack walked must not run meanwhile.
#pragma once

#include <ucontext.h>

#include <cstddef>

#include "arch/x86_64/context.hpp"
#include "arch/x86_64/walk.h"

namespace baton::arch {

/// What an unwinder needs of a stack, in the order of ucontext_t's gregs, which serve as one.
struct Registers {
    greg_t at[BATON_REG_RIP + 1];
};
static_assert(REG_R8 == BATON_REG_R8 && REG_R15 == BATON_REG_R15 && REG_RDI == BATON_REG_RDI &&
              REG_RBP == BATON_REG_RBP && REG_RBX == BATON_REG_RBX && REG_RDX == BATON_REG_RDX &&
              REG_RCX == BATON_REG_RCX && REG_RSP == BATON_REG_RSP && REG_RIP == BATON_REG_RIP);

/// Calls visit(arg) such that an unwinder started there finds, behind the frame of this function,
/// those of the stack whose registers are `at`.
extern "C" void baton_walk_from(const Registers* at, void (*visit)(void*), void* arg);

/// Of the code a signal interrupted.
inline const Registers* registers_of(const void* ucontext) {
    return reinterpret_cast<const Registers*>(
        &static_cast<const ucontext_t*>(ucontext)->uc_mcontext.gregs);
}

/// A handler that returns to this context goes on where __builtin_setjmp was called with `buffer`,
/// which returns 1: in the buffer are the frame pointer, where to go on, and the stack pointer.
inline void return_to(void* ucontext, void* const* buffer) {
    greg_t* regs = static_cast<ucontext_t*>(ucontext)->uc_mcontext.gregs;
    regs[REG_RBP] = reinterpret_cast<greg_t>(buffer[0]);
    regs[REG_RIP] = reinterpret_cast<greg_t>(buffer[1]);
    regs[REG_RSP] = reinterpret_cast<greg_t>(buffer[2]);
}

/// Of a context that is not running: what baton_switch saved, as it will be when it has returned.
inline Registers registers_of(const Context& context) {
    const auto* sp = static_cast<const greg_t*>(context.sp);
    Registers regs{};
    regs.at[BATON_REG_R15] = sp[0];
    regs.at[BATON_REG_R14] = sp[1];
    regs.at[BATON_REG_R13] = sp[2];
    regs.at[BATON_REG_R12] = sp[3];
    regs.at[BATON_REG_RBX] = sp[4];
    regs.at[BATON_REG_RBP] = sp[5];
    regs.at[BATON_REG_RIP] = sp[6];
    regs.at[BATON_REG_RSP] = reinterpret_cast<greg_t>(sp + 7);
    return regs;
}

/// Of the caller, here and now: they serve for as long as it has not returned.
[[gnu::always_inline]] inline void note_registers(Registers* regs) {
    asm volatile(
        "movq %%rsp, %c[rsp](%[to])\n\t"
        "movq %%rbp, %c[rbp](%[to])\n\t"
        "movq %%rbx, %c[rbx](%[to])\n\t"
        "movq %%r12, %c[r12](%[to])\n\t"
        "movq %%r13, %c[r13](%[to])\n\t"
        "movq %%r14, %c[r14](%[to])\n\t"
        "movq %%r15, %c[r15](%[to])\n\t"
        "leaq 1f(%%rip), %%rax\n"
        "1:\n\t"
        "movq %%rax, %c[rip](%[to])"
        :
        : [to] "r"(regs->at), [rsp] "i"(BATON_REG_RSP * 8), [rbp] "i"(BATON_REG_RBP * 8),
          [rbx] "i"(BATON_REG_RBX * 8), [r12] "i"(BATON_REG_R12 * 8), [r13] "i"(BATON_REG_R13 * 8),
          [r14] "i"(BATON_REG_R14 * 8), [r15] "i"(BATON_REG_R15 * 8), [rip] "i"(BATON_REG_RIP * 8)
        : "rax", "memory");
}

} // namespace baton::arch
