// SPDX-License-Identifier: Apache-2.0
//
// The memory a thread shares with the kernel for restartable sequences: found, or registered.
// The sequences themselves are the architecture's business.
//
// A thread has at most one such area. The C library (glibc 2.35 and later) registers one for
// each thread it starts, found at __rseq_offset from the thread pointer; where it does not
// (GLIBC_TUNABLES=glibc.pthread.rseq=0, other libraries, a bare clone) the caller's area is
// registered instead.
//
// Threads: the thread itself, for its own area, running on the thread pointer the C library
// gave it: a goroutine with a TLS of its own must not call rseq_attach, since __rseq_offset would
// lead into that TLS. Whoever may run under another thread pointer keeps the address.
//
// Invariants:
//   I1  an area in use stays mapped, at its address, until it is detached or its thread has
//       exited: the kernel writes to it at will, and kills the process when it cannot
//   I2  cpu_id is a CPU number exactly while the area is registered
#pragma once

#include <cstddef>
#include <cstdint>

namespace baton::kernel {

/// The four bytes before every abort address.
inline constexpr std::uint32_t kRseqSig = 0x53053053;

/// cpu_id of an area that is not registered.
inline constexpr std::uint32_t kRseqCpuUninitialized = static_cast<std::uint32_t>(-1);
inline constexpr std::uint32_t kRseqCpuFailed = static_cast<std::uint32_t>(-2);

/// As the kernel lays it out (struct rseq, its first 32 bytes). Volatile: the kernel changes
/// these between any two instructions of the thread; no other thread looks.
/// We write rseq_cs alone: newer kernels kill a process that writes the others.
struct alignas(32) RseqArea {
    volatile std::uint32_t cpu_id_start = 0; ///< a valid index even when not registered
    volatile std::uint32_t cpu_id = kRseqCpuUninitialized;
    volatile std::uint64_t rseq_cs = 0; ///< the sequence this thread is in, or 0
    volatile std::uint32_t flags = 0;
    volatile std::uint32_t node_id = 0; ///< only where rseq_feature_size() > 20
    volatile std::uint32_t mm_cid = 0;  ///< only where rseq_feature_size() > 24
    volatile std::uint32_t reserved = 0;
};
static_assert(offsetof(RseqArea, cpu_id_start) == 0);
static_assert(offsetof(RseqArea, cpu_id) == 4);
static_assert(offsetof(RseqArea, rseq_cs) == 8);
static_assert(offsetof(RseqArea, flags) == 16);
static_assert(offsetof(RseqArea, node_id) == 20);
static_assert(offsetof(RseqArea, mm_cid) == 24);
static_assert(sizeof(RseqArea) == 32 && alignof(RseqArea) == 32);

/// The calling thread's area: the C library's when that is registered, else `own`, registered
/// now. nullptr when neither can be had: no rseq in this kernel, switched off, or taken by
/// someone we do not know. `own` may be null: then only the C library's will do.
[[nodiscard]] RseqArea* rseq_attach(RseqArea* own) noexcept;

/// Unregisters `own` if rseq_attach registered it for this thread; the C library's area stays.
/// Before the memory of `own` goes away, or its thread exits.
void rseq_detach(RseqArea* own) noexcept;

/// The C library's area of the calling thread, null when there is none or it is not registered.
[[nodiscard]] RseqArea* rseq_libc_area() noexcept;

/// How many bytes of an area the kernel fills in (AT_RSEQ_FEATURE_SIZE); 20 before Linux 6.3.
[[nodiscard]] std::size_t rseq_feature_size() noexcept;

/// The plain system call: 0 or -errno. For features.cpp and tests.
[[nodiscard]] int rseq_register(RseqArea* area) noexcept;
[[nodiscard]] int rseq_unregister(RseqArea* area) noexcept;

} // namespace baton::kernel
