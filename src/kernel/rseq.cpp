// SPDX-License-Identifier: Apache-2.0
#include "kernel/rseq.hpp"

#include <cerrno>

#include <elf.h>
#include <sys/auxv.h>

#include "kernel/features.hpp"
#include "kernel/syscall.hpp"

// Weak: a C library without them is one that registers nothing.
extern "C" {
extern const std::ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));
}

namespace baton::kernel {
namespace {

constexpr unsigned kUnregister = 1;
constexpr unsigned long kAuxRseqFeatureSize = 27; ///< AT_RSEQ_FEATURE_SIZE

bool registered(const RseqArea* area) noexcept {
    return static_cast<std::int32_t>(area->cpu_id) >= 0;
}

/// The thread pointer as the x86-64 ABI has it: the word at %fs:0 is its own address.
char* thread_pointer() noexcept {
    char* tp;
    asm("mov %%fs:0, %0" : "=r"(tp));
    return tp;
}

} // namespace

RseqArea* rseq_libc_area() noexcept {
    // Size 0: the C library knows rseq and did not register it (the tunable, an old kernel).
    if (&__rseq_offset == nullptr || &__rseq_size == nullptr || __rseq_size == 0) return nullptr;
    auto* area = reinterpret_cast<RseqArea*>(thread_pointer() + __rseq_offset);
    // A thread the C library did not start, or one that gave its registration up.
    return registered(area) ? area : nullptr;
}

int rseq_register(RseqArea* area) noexcept {
    return static_cast<int>(raw_syscall(__NR_rseq, area, sizeof *area, 0, kRseqSig));
}

int rseq_unregister(RseqArea* area) noexcept {
    return static_cast<int>(raw_syscall(__NR_rseq, area, sizeof *area, kUnregister, kRseqSig));
}

RseqArea* rseq_attach(RseqArea* own) noexcept {
    if (!features().rseq) return nullptr;
    if (RseqArea* area = rseq_libc_area()) return area;
    if (own == nullptr) return nullptr;
    const int r = rseq_register(own);
    // -EBUSY: this very area, a second time. Any other area in the way is -EINVAL.
    return r == 0 || r == -EBUSY ? own : nullptr;
}

void rseq_detach(RseqArea* own) noexcept {
    // The C library's area may be passed here by who does not care which one it got.
    if (own == nullptr || !registered(own) || own == rseq_libc_area()) return;
    // Fails only for an area of another thread, which I1 forbids.
    (void)rseq_unregister(own);
}

std::size_t rseq_feature_size() noexcept {
    const unsigned long size = getauxval(kAuxRseqFeatureSize);
    return size != 0 ? size : 20;
}

} // namespace baton::kernel
