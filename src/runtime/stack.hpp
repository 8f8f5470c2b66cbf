// SPDX-License-Identifier: Apache-2.0
//
// Stacks: fixed slots carved from large reserved slabs, a guard page at the low end, at the high
// end what is known of it, on the page the first frames touch anyway.
//
//   lo                                                         hi
//   | guard page | ........ stack grows down ........ | StackSlot | colour |
//
// The colour (0 to 15 cache lines, by slot) keeps the hot lines of many stacks from the same L1
// sets.
//
// A G gets a stack when it first runs (switch.hpp) and gives it back when it ends; most find the
// one that was used last, which is in the cache. By then it is too late to be refused one. So
// memory for a stack is promised to each G when the G itself is made, and as many more as Ps may
// keep in their caches while others look for one: in address space, and in guards too where those
// can be refused. Stacks are never unmapped, so a promise that was kept once is kept for good.
//
// Threads: any. Locks: one per size class.
// Invariants: I1 a slot's address is never unmapped, nor given to another size. I2 there are as
// many slots of the default size as were promised: who starts a G finds a stack.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/runtime.hpp"

namespace baton::rt {

/// Bytes of stack are rounded up to a power of two from 16 KiB (class 0) to 1 GiB.
inline constexpr std::size_t kMinStack = std::size_t{16} << 10;
inline constexpr std::uint32_t kStackClasses = 17;

/// The class that holds `bytes`, or kStackClasses when it is too much.
std::uint32_t stack_class_for(std::size_t bytes) noexcept;
std::size_t stack_class_bytes(std::uint32_t cls) noexcept;
/// What goroutines get that ask for no other. Set before there are any.
extern constinit std::uint32_t default_stack_class;

/// What lies at the top of a stack: the frames begin below it.
struct alignas(64) StackSlot {
    StackSlot* next = nullptr;       // on whichever list holds it (stackcache.hpp)
    StackSlot* next_batch = nullptr; // of the first of a batch there
    std::uint32_t n = 0;             // of the same: how many hang together
    std::uint32_t cls = 0;
    std::byte* lo = nullptr; // lowest usable byte
    G* owner = nullptr;      // who had it last
};

/// Where the frames begin.
inline std::byte* stack_top(StackSlot* stack) { return reinterpret_cast<std::byte*>(stack); }

/// A stack of class `cls` whose memory the kernel has; null and *error = errno when it refuses.
/// Never refused if it was promised.
StackSlot* stackalloc(std::uint32_t cls, int* error) noexcept;
/// Gives a stack's memory back to the kernel. False, and nothing done, without memory for the note.
bool stackfree(StackSlot* stack) noexcept;
/// From now on there are `n` more stacks of the default class. 0 or an errno, and nothing promised.
int stacks_promise(std::uint32_t n) noexcept;

/// The G on whose stack's guard page `addr` is, or null. For the SIGSEGV handler: takes no lock.
G* guard_owner(const void* addr) noexcept;

/// In a forked child: the stacks there are stay, and are not used again.
void stacks_forget();

} // namespace baton::rt
