// SPDX-License-Identifier: Apache-2.0
//
// What goroutines do, in a process that goes on or ends as it should: baton::stack_dump, and the
// report of leaks (BATON_DEBUG=leak=1).
//
// Threads: any, where must_park allows it.
#pragma once

namespace baton::rt {

/// At exit: prints the goroutines that wait for a channel or a lock, as nobody will wake them.
/// Those that sleep or wait for a descriptor do not count: they would go on by themselves. The exit
/// status stays as it is.
void report_leaks() noexcept;

} // namespace baton::rt
