// SPDX-License-Identifier: Apache-2.0
//
// The memory of Gs: twelve to a page, the pages from slabs of their own. A G lies apart from its
// stack, as most that wait to run for the first time need none: of a million that start each other
// 70,000 are alive at once, and 60,000 of them have not begun. A page for each is what their
// stacks would cost, and a thief would move as many lines again.
//
//   line 0  what a switch reads and writes
//   line 1  what its birth writes and its end reads
//   line 2  its callable, if that is small enough
//   line 3  what it needs while it waits for something unusual
//   line 4  the timer of its sleep: with many, each is cold when it fires
//
// Threads: any. Locks: one of rank kStack.
// Invariants: I1 a G's address is never unmapped, nor used for anything else; a dead one stays a G,
// and reads as one that was never used once its page was given back.
// Rejected: the G at the top of its stack, on the page the first frames touch anyway: 4 KiB and six
// to eight cold lines for each that has not begun.
#pragma once

#include "runtime/runtime.hpp"

namespace baton::rt {

/// Dead Gs that nobody has, at most a page of them; the stacks of all of them can be had
/// (stack.hpp). Empty and *error = errno when the kernel refuses memory.
GList malg(int* error) noexcept;
/// Gives a dead G back, and its page if it is the last there. False, and nothing done, while a
/// timer's heap still names it.
bool gdiscard(G* gp) noexcept;

/// Calls `visit` for every G there is or was. Dead ones included; each G's own words are the
/// visitor's affair.
void each_g(void (*visit)(G* gp, void* arg), void* arg);
/// In a forked child: the Gs there are stay, and are not used again.
void gs_forget();

} // namespace baton::rt
