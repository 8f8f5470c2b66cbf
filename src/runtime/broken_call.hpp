// SPDX-License-Identifier: Apache-2.0
//
// What SIGURG has broken into. It may come while a thread is in a system call of the program's,
// which is to end as if it had not.
//
// A call that has done nothing yet ends with EINTR, or is begun anew by the kernel. One that passes
// bytes on and has passed some ends with their number, although the descriptor is a blocking one,
// and most programs take that for an error: so the rest follows, in the handler. The number of the
// call is the probe's to tell (m_rec::urged), the arguments are still in the registers. Without a
// probe nobody knows what the call was; there no thread is sent the signal that may be in one
// (preempt.cpp).
//
// Not: calls that wait under a signal mask of their own (ppoll and the like), as that is lost with
// them; what ends early in any case (splice, sendmmsg); and where a handler of the program's has
// run for the same return from the kernel, as the program then expects what it sees.
//
// Threads: the one broken into, in the handler of SIGURG.
#pragma once

#include <ucontext.h>

#include "runtime/runtime.hpp"

namespace baton::rt {

class BrokenCall {
public:
    /// At once: other handlers may run while this one waits. A call that has done nothing begins
    /// anew when the handler returns.
    BrokenCall(const M* m, void* ucontext);
    /// Last: passes on what is left of one that has passed a part on. It may sleep.
    void finish();

private:
    greg_t* regs_;
    long nr_; // -1: none, or unknown
};

} // namespace baton::rt
