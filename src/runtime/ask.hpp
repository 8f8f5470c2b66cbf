// SPDX-License-Identifier: Apache-2.0
//
// The stack of a goroutine that runs: its thread is sent SIGURG, and walks it in the handler.
//
// Threads: one asker at a time, which is whoever has stopped the world, or the one that tells of
// the end of the process (crash.cpp). The answer comes in the handler of the M asked.
// Rejected: having the threads wait in the handler until all is printed. They may hold the locks of
// malloc, which whoever prints needs.
#pragma once

#include "runtime/runtime.hpp"
#include "runtime/unwind.hpp"

namespace baton::rt {

enum class Ask : std::uint8_t {
    kGently, ///< only if no call of the program's ends early for it, and preemption is on
    kAnyway, ///< in a process that ends
};

/// Has m walk the stack of gp, which it runs. False if it did not within a moment, or may not be
/// asked.
bool ask_stack(M* m, const G* gp, Ask how, Stack* stack);

/// In the handler of SIGURG, on any M: answers if it was asked. `ucontext`: the handler's.
bool answer_stack(M* m, const void* ucontext);

} // namespace baton::rt
