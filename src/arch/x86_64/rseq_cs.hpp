// SPDX-License-Identifier: Apache-2.0
//
// The restartable sequences (rseq(2), Linux's rseq selftests and librseq describe the interface):
// of the ownership protocol
//
//   rseq_cmp_store(rs, cpu, word, expect, desired):
//     rs->rseq_cs = this sequence        the kernel now aborts us if we lose the CPU
//     if rs->cpu_id != cpu: mismatch
//     if *word != expect:   mismatch
//     *word = desired                    commit: the last instruction
//
// and of the runtime's lock and Mutex
//
//   rseq_store_unless(rs, byte, value, other):
//     rs->rseq_cs = this sequence
//     if rs is not registered: mismatch
//     if *other != 0:          mismatch
//     *byte = value                      commit
//
//   rseq_change_on(rs, cpu, byte, expect, desired, other):
//     rs->rseq_cs = this sequence
//     if *byte != expect:      mismatch
//     if rs->cpu_id != *cpu:   mismatch  after the byte: *cpu may be stored with it
//     if *other != 0:          mismatch
//     *byte = desired                    commit
//
// and of a reader's lock that is counted on each CPU
//
//   rseq_add_if(rs, cpu, n, by, word, bits):
//     rs->rseq_cs = this sequence
//     if rs->cpu_id != cpu:    mismatch
//     if (*word & bits) == 0:  mismatch
//     *n += by                           commit
//
// Threads: the one that registered rs. Against threads on the same CPU it is atomic: preempted or
// interrupted by a signal anywhere before the commit, it goes to `aborted` and nothing was stored.
// Against other CPUs it is not: they exclude it by making this CPU restart (membarrier).
// Where an inline function with a sequence is not inlined, all but one of its copies are thrown
// away: so what belongs to a sequence is in the group of the code around it (the sections' `?`).
#pragma once

#include <cstdint>

#include "kernel/build.hpp"
#include "kernel/rseq.hpp"

#if defined(BATON_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace baton::arch {

enum class RseqResult { kCommitted, kMismatch, kAborted };

// From its descriptor on, which is left in rs->rseq_cs, until the commit has been made. An aborted
// one goes to `label`.
#define BATON_RSEQ_BEGIN                                                                           \
    ".pushsection __rseq_cs, \"aw?\"\n\t"                                                          \
    ".balign 32\n\t"                                                                               \
    "3:\n\t"                                                                                       \
    ".long 0, 0\n\t"              /* version, flags */                                             \
    ".quad 1f, (2f - 1f), 4f\n\t" /* start, length up to after the commit, abort handler */        \
    ".popsection\n\t"                                                                              \
    "leaq 3b(%%rip), %%rax\n\t"                                                                    \
    "movq %%rax, 8(%[rs])\n\t" /* rs->rseq_cs */                                                   \
    "1:\n\t"
#define BATON_RSEQ_END(label)                                                                      \
    "2:\n\t"                                                                                       \
    ".pushsection __rseq_failure, \"ax?\"\n\t"                                                     \
    ".byte 0x0f, 0xb9, 0x3d\n\t" /* ud1 sig(%rip), %edi: never run, carries the signature */       \
    ".long 0x53053053\n\t"                                                                         \
    "4:\n\t"                                                                                       \
    "jmp %l[" #label "]\n\t"                                                                       \
    ".popsection\n\t"

[[nodiscard]] inline RseqResult rseq_cmp_store(kernel::RseqArea* rs, std::uint32_t cpu,
                                               std::uint64_t* word, std::uint64_t expect,
                                               std::uint64_t desired) {
    static_assert(kernel::kRseqSig == 0x53053053);
#if defined(BATON_TSAN)
    // It does not see the sequence, whose load and store are acquire and release on x86-64. The
    // release is told first: once the word is stored others may have read it.
    __tsan_release(word);
#endif
    asm goto(
        BATON_RSEQ_BEGIN            // rs->rseq_cs = this sequence
        "cmpl %[cpu], 4(%[rs])\n\t" // rs->cpu_id
        "jne %l[mismatch]\n\t"
        "cmpq %[expect], %[word]\n\t"
        "jne %l[mismatch]\n\t"
        "movq %[desired], %[word]\n\t" // commit
        BATON_RSEQ_END(aborted)
        : // asm goto without outputs: the word is an input by address and "memory" is clobbered
        : [rs] "r"(rs), [cpu] "r"(cpu), [word] "m"(*word), [expect] "r"(expect),
          [desired] "r"(desired)
        : "rax", "memory", "cc"
        : mismatch, aborted);
#if defined(BATON_TSAN)
    __tsan_acquire(word);
#endif
    return RseqResult::kCommitted;
mismatch:
    return RseqResult::kMismatch;
aborted:
    return RseqResult::kAborted;
}

[[nodiscard]] inline bool rseq_store_unless(kernel::RseqArea* rs, std::uint8_t* byte,
                                            std::uint8_t value, const std::uint8_t* other) {
#if defined(BATON_TSAN)
    __tsan_release(byte); // see above
#endif
    asm goto(BATON_RSEQ_BEGIN        // rs->rseq_cs = this sequence
             "cmpl $0, 4(%[rs])\n\t" // rs->cpu_id, negative in an area that is not registered
             "jl %l[otherwise]\n\t"
             "cmpb $0, %[other]\n\t"
             "jne %l[otherwise]\n\t"
             "movb %[value], %[byte]\n\t" // commit
             BATON_RSEQ_END(otherwise)
             :
             : [rs] "r"(rs), [byte] "m"(*byte), [value] "qi"(value), [other] "m"(*other)
             : "rax", "memory", "cc"
             : otherwise);
    return true;
otherwise:
    return false;
}

[[nodiscard]] inline RseqResult rseq_change_on(kernel::RseqArea* rs, const std::uint16_t* cpu,
                                               std::uint8_t* byte, std::uint8_t expect,
                                               std::uint8_t desired, const std::uint8_t* other) {
    asm goto(BATON_RSEQ_BEGIN // rs->rseq_cs = this sequence
             "cmpb %[expect], %[byte]\n\t"
             "jne %l[mismatch]\n\t"
             "movzwl %[cpu], %%eax\n\t"
             "cmpl %%eax, 4(%[rs])\n\t" // rs->cpu_id
             "jne %l[mismatch]\n\t"
             "cmpb $0, %[other]\n\t"
             "jne %l[mismatch]\n\t"
             "movb %[desired], %[byte]\n\t" // commit
             BATON_RSEQ_END(aborted)
             :
             : [rs] "r"(rs), [cpu] "m"(*cpu), [byte] "m"(*byte), [expect] "qi"(expect),
               [desired] "qi"(desired), [other] "m"(*other)
             : "rax", "memory", "cc"
             : mismatch, aborted);
#if defined(BATON_TSAN)
    __tsan_acquire(byte);
#endif
    return RseqResult::kCommitted;
mismatch:
    return RseqResult::kMismatch;
aborted:
    return RseqResult::kAborted;
}

[[nodiscard]] inline RseqResult rseq_add_if(kernel::RseqArea* rs, std::uint32_t cpu,
                                            std::int64_t* n, std::int64_t by, std::uint32_t* word,
                                            std::uint32_t bits) {
#if defined(BATON_TSAN)
    __tsan_release(word); // see above; who sums up acquires it
#endif
    asm goto(BATON_RSEQ_BEGIN            // rs->rseq_cs = this sequence
             "cmpl %[cpu], 4(%[rs])\n\t" // rs->cpu_id
             "jne %l[mismatch]\n\t"
             "testl %[bits], %[word]\n\t"
             "jz %l[mismatch]\n\t"
             "addq %[by], %[n]\n\t" // commit
             BATON_RSEQ_END(aborted)
             :
             : [rs] "r"(rs), [cpu] "r"(cpu), [n] "m"(*n), [by] "r"(by), [word] "m"(*word),
               [bits] "r"(bits)
             : "rax", "memory", "cc"
             : mismatch, aborted);
#if defined(BATON_TSAN)
    __tsan_acquire(word);
#endif
    return RseqResult::kCommitted;
mismatch:
    return RseqResult::kMismatch;
aborted:
    return RseqResult::kAborted;
}

#undef BATON_RSEQ_BEGIN
#undef BATON_RSEQ_END

} // namespace baton::arch
