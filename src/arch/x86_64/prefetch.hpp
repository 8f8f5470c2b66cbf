// SPDX-License-Identifier: Apache-2.0
//
// Asking for a cache line before it is needed.
#pragma once

namespace baton::arch {

/// For writing, so that no second request follows. The compiler's builtin asks for a copy to read
/// where the instruction is not certain to be there; where it is not, it does nothing.
[[gnu::always_inline]] inline void prefetch_to_write(const void* at) noexcept {
    asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
}

} // namespace baton::arch
