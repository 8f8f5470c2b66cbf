// SPDX-License-Identifier: Apache-2.0
//
// Signals that end the process. SIGSEGV on a goroutine's guard page is reported as an overflow.
// Other faults of goroutines and of the runtime's threads are told of with their stacks, then the
// default action follows, with its core and status: unless the program has a handler, which gets
// them. SIGQUIT has sysmon tell what every goroutine does, unless the program handles or ignores
// it.
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
