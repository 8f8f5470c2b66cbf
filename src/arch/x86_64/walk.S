// SPDX-License-Identifier: Apache-2.0
//
// void baton_walk_from(const Registers* at (rdi), void (*visit)(void*) (rsi), void* arg (rdx))
//
//   rbx = at
//   visit(arg)
//
// Its unwind information says that it was called by whoever had the registers *at, and was
// interrupted there, as a signal's trampoline does. So an unwinder started in visit finds that
// stack's frames behind this one. Each register's place is *at + an offset: DW_OP_breg3 is rbx.
#include "arch/x86_64/walk.h"

#define SAVED1(reg, index)                                                                         \
    .cfi_escape 0x10, reg, 2, 0x73, (index) * 8 /* DW_CFA_expression, in one byte of LEB128 */
#define SAVED2(reg, index)                                                                         \
    .cfi_escape 0x10, reg, 3, 0x73, (((index) * 8) & 0x7f) | 0x80, ((index) * 8) >> 7

    .text
    .globl baton_walk_from
    .hidden baton_walk_from
    .type baton_walk_from, @function
    .balign 16
baton_walk_from:
    .cfi_startproc
    .cfi_signal_frame
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    movq %rdi, %rbx
    movq %rdx, %rdi
    .cfi_remember_state
    // DW_CFA_def_cfa_expression: the word at rbx + 8 * BATON_REG_RSP
    .cfi_escape 0x0f, 4, 0x73, (BATON_REG_RSP * 8) | 0x80, 0, 0x06
    SAVED1(8, BATON_REG_R8)
    SAVED1(9, BATON_REG_R9)
    SAVED1(10, BATON_REG_R10)
    SAVED1(11, BATON_REG_R11)
    SAVED1(12, BATON_REG_R12)
    SAVED1(13, BATON_REG_R13)
    SAVED1(14, BATON_REG_R14)
    SAVED1(15, BATON_REG_R15)
    SAVED2(5, BATON_REG_RDI)
    SAVED2(4, BATON_REG_RSI)
    SAVED2(6, BATON_REG_RBP)
    SAVED2(3, BATON_REG_RBX)
    SAVED2(1, BATON_REG_RDX)
    SAVED2(0, BATON_REG_RAX)
    SAVED2(2, BATON_REG_RCX)
    SAVED2(16, BATON_REG_RIP)
    call *%rsi
    .cfi_restore_state
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    ret
    .cfi_endproc
    .size baton_walk_from, .-baton_walk_from

    .section .note.GNU-stack,"",@progbits
