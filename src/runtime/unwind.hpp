// SPDX-License-Identifier: Apache-2.0
//
// Walking stacks: the addresses of their frames, by the C++ runtime's own unwinder, started where
// the stack stands (arch/x86_64/walk.hpp). Nothing is allocated and no lock is taken: libgcc finds
// its tables by _dl_find_object, which glibc has since 2.35.
//
// Threads: any, signal handlers included; the stack must stay as it is meanwhile. One that does not
// is walked all the same: what cannot be read ends the walk (survive_fault).
//
// Rejected: switching to a parked G to have it walk itself, which needs room on its stack and an M.
// libunwind and libdw's unwinder, which can start anywhere: the first would be a dependency for
// this alone, the second allocates.
#pragma once

#include <cstdint>

#include "arch/x86_64/walk.hpp"

namespace baton::rt {

/// The frames of a stack: the innermost ones, and of a deep one the outermost.
struct Stack {
    static constexpr std::uint32_t kInner = 50;
    static constexpr std::uint32_t kOuter = 50;
    static constexpr std::uint32_t kMost = 100'000; // a walk ends there

    /// How many frames are kept, and the i-th, innermost first: an address inside its instruction,
    /// or inside the call it is in.
    std::uint32_t kept() const { return n < kInner + kOuter ? n : kInner + kOuter; }
    std::uintptr_t operator[](std::uint32_t i) const {
        return i < kInner ? inner[i] : outer[(n < kInner + kOuter ? i - kInner : i + n) % kOuter];
    }
    void add(std::uintptr_t pc) {
        if (n < kInner) {
            inner[n] = pc;
        } else {
            outer[(n - kInner) % kOuter] = pc;
        }
        n++;
    }
    /// How many are left out behind the first kInner.
    std::uint32_t elided() const { return n - kept(); }

    std::uint32_t n = 0;
    bool torn = false; ///< the walk met what cannot be read
    std::uintptr_t inner[kInner];
    std::uintptr_t outer[kOuter];
};

/// The stack that has these registers.
void walk(const arch::Registers& at, Stack* stack) noexcept;
/// The caller's own.
void walk_here(Stack* stack) noexcept;

/// For the handlers of SIGSEGV and SIGBUS, with their context: true if this thread walks a stack.
/// The walk ends then, once the handler has returned.
bool survive_fault(void* context) noexcept;

} // namespace baton::rt
