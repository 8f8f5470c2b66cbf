// SPDX-License-Identifier: Apache-2.0
//
// Stacks: fixed slots carved from large reserved slabs, a guard page at the low end, the G itself
// at the high end, on the page the first frames touch anyway.
//
//   lo                                                            hi
//   | guard page | ........ stack grows down ........ | closure | G | colour |
//
// The colour (0 to 15 cache lines, by slot) keeps the hot lines of many Gs from the same L1 sets.
//
// Threads: any. Locks: a leaf lock per size class.
// Invariants: I1 a slot's address is never unmapped, nor given to another size; a dead G stays a G
// and is used again, until stackfree gives its memory back (newproc.cpp, the scavenger).
#pragma once

#include <cstddef>

#include "runtime/runtime.hpp"

namespace baton::rt {

/// Bytes of stack are rounded up to a power of two from 16 KiB (class 0) to 1 GiB.
inline constexpr std::size_t kMinStack = std::size_t{16} << 10;
inline constexpr std::uint32_t kStackClasses = 17;

/// The class that holds `bytes`, or kStackClasses when it is too much.
std::uint32_t stack_class_for(std::size_t bytes) noexcept;
std::size_t stack_class_bytes(std::uint32_t cls) noexcept;

/// A new G with a stack of class `cls`; null and *error = errno when the kernel refuses memory.
G* malg(std::uint32_t cls, int* error) noexcept;

/// Gives a dead G back, with its whole slot but for the guard page; the slot is used again. False,
/// and nothing done, while a timer's heap still names the G, or without memory for the note.
bool stackfree(G* gp) noexcept;

/// Where gp's stack begins: just below the G.
inline std::byte* stack_top(G* gp) { return reinterpret_cast<std::byte*>(gp); }

/// The G whose guard page `addr` is in, or null. For the SIGSEGV handler: takes no lock.
G* guard_owner(const void* addr) noexcept;

/// Calls `visit` for every G there is or was. Dead ones included; each G's own words are the
/// visitor's affair.
void each_g(void (*visit)(G* gp, void* arg), void* arg);
/// In a forked child: the stacks there are stay, and are not used again.
void stacks_forget();

} // namespace baton::rt
