// SPDX-License-Identifier: Apache-2.0
//
// SIGSEGV on a goroutine's guard page: the overflow is reported by the goroutine's number. Any
// other fault goes to the handler that was there before.
//
// Threads: install_handlers once at start; the stack functions by each M for itself.
#pragma once

#include "runtime/runtime.hpp"

namespace baton::rt {

void install_handlers();
/// An alternate signal stack for this thread: a G's own stack may be what overflowed.
void install_signal_stack(M* m);
void remove_signal_stack(M* m);

} // namespace baton::rt
