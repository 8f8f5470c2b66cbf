// SPDX-License-Identifier: Apache-2.0
//
// void baton_switch(Context* from (rdi), const Context* to (rsi))
//
//   push the callee-saved registers
//   from->sp = rsp
//   rsp = to->sp
//   pop the callee-saved registers
//   return to whoever switched away there
//
// The return is a plain ret: both ends of a switch are usually the same call site, so the return
// stack predicts it.
    .text
    .globl baton_switch
    .hidden baton_switch
    .type baton_switch, @function
    .balign 32
baton_switch:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    ret
    .cfi_endproc
    .size baton_switch, .-baton_switch

// The first frame of a goroutine: make_context put the function to call in r12. Unwinders stop
// here, as the return address is marked undefined. When they look for somebody to catch an
// exception they come here last, with the stack as it was at the throw, and call the personality.
    .globl baton_context_start
    .hidden baton_context_start
    .type baton_context_start, @function
    .balign 16
baton_context_start:
    .cfi_startproc
    .cfi_personality 0x1b, baton_uncaught // DW_EH_PE_pcrel | DW_EH_PE_sdata4
    .cfi_undefined %rip
    callq *%r12
    ud2
    .cfi_endproc
    .size baton_context_start, .-baton_context_start

    .section .note.GNU-stack,"",@progbits
