// SPDX-License-Identifier: Apache-2.0
//
// What each goroutine waits for, and where: number, reason and stack, as the reference prints them.
//
// Threads: a helper's (sysmon), in a process that is about to end: no goroutine runs.
#pragma once

namespace baton::rt {

/// Prints every G to stderr, and the plain threads that wait.
void print_goroutines();

} // namespace baton::rt
