// SPDX-License-Identifier: Apache-2.0
//
// Memory for stacks: address space first, pages when touched, guards that need no mapping.
//
// One large mapping holds many stacks. Its pages are 4 KiB ones on purpose: a huge page would
// make each parked goroutine cost two megabytes.
//
// Threads: any thread; nothing is kept here.
//
// Invariants:
//   I1  a guard faults on any access, and goes on doing so after discard() of a range around it
//   I2  after discard() the rest of the range reads as zeros
//
// Rejected: mprotect(PROT_NONE) as the usual guard. It splits the mapping in two: with 65,530
// mappings a process (vm.max_map_count) that is 32,000 stacks, and costs four times as much.
// MAP_GROWSDOWN: its guard gap is fixed and its growth is racy against any mmap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace baton::kernel {

/// `bytes` (a multiple of the page size) of private memory, readable and writable, not counted
/// against overcommit. nullptr when refused; then *error, if given, is -errno.
[[nodiscard]] void* reserve(std::size_t bytes, int* error = nullptr) noexcept;

/// Makes whole pages fault on every access: MADV_GUARD_INSTALL, or mprotect where there is no
/// such thing or the mapping does not take it (locked memory). What they held is lost. 0 or
/// -errno; -ENOMEM from mprotect means vm.max_map_count.
[[nodiscard]] int install_guard(void* page, std::size_t bytes) noexcept;

/// Gives the pages back, keeps the addresses. 0 or -errno.
[[nodiscard]] int discard(void* start, std::size_t bytes) noexcept;

/// Unmaps a mapping, or one end of it. Aborts when the kernel refuses: the address was not one.
void release(void* start, std::size_t bytes) noexcept;

/// The page size, asked once.
[[nodiscard]] std::size_t page_size() noexcept;

/// The two kinds of guard, for tests and benchmarks.
enum class GuardKind : std::uint8_t { kMadvise, kMprotect };
[[nodiscard]] int install_guard_by(GuardKind kind, void* page, std::size_t bytes) noexcept;

} // namespace baton::kernel
