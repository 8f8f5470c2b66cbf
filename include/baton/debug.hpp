// SPDX-License-Identifier: Apache-2.0
//
// What the goroutines of a process are doing, as text: what BATON_TRACEBACK prints when the process
// fails, for a program that does not.
#pragma once

#include <string>

#pragma GCC visibility push(default)
namespace baton {

/// The stack of the caller, then (with `all`) those of the other goroutines, 10,000 at most, and
/// what waiting plain threads wait for:
///
///     goroutine 7 [chan receive, 5 minutes, locked to thread]:
///     serve(baton::Conn&)
///             /src/server.cpp:31 +0x2c
///     created by main in goroutine 1
///             /src/server.cpp:57 +0x81
///
/// The minutes are those it has waited; functions that were inlined are shown as such. Names and
/// lines need debug information (-g, or a package of it), else there are symbols and offsets.
/// With `all` the world is stopped while the stacks are walked, some microseconds each, and a
/// goroutine in a call or a page fault is asked by a signal (SIGURG), unless a call of the
/// program's would end early for it, or preemption is off: then its stack is said to be
/// unavailable. Finding the names may take tenths of a second; other goroutines run meanwhile.
///
/// May park. Any thread or goroutine, but not inside blocking(); a plain thread starts the runtime
/// if need be. Throws std::system_error or std::bad_alloc when there is no memory for it.
[[nodiscard]] std::string stack_dump(bool all = true);

} // namespace baton
#pragma GCC visibility pop
