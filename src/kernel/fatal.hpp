// SPDX-License-Identifier: Apache-2.0
//
// The end of a process whose invariant is broken: one line on stderr, then SIGABRT. Allocates
// nothing, takes no lock, works on any stack.
//
// Threads: any thread, signal handlers included.
#pragma once

namespace baton::kernel {

/// "baton: what: a_name=a b_name=b", and abort.
[[noreturn]] void fatal(const char* what, const char* a_name, long a, const char* b_name,
                        long b) noexcept;

} // namespace baton::kernel
