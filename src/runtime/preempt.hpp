// SPDX-License-Identifier: Apache-2.0
//
// Preempting Gs that make no runtime call, by signal (preempt.cpp).
//
// Threads: sysmon, and who stops the world; install_preemption once at start; heed_urg and lose_urg
// on any.
#pragma once

#include <csignal>
#include <cstdint>

#include "runtime/runtime.hpp"

namespace baton::rt {

/// Takes SIGURG (sigurg.hpp).
void install_preemption();
/// Is it on? Off by BATON_PREEMPT=off, and where ThreadSanitizer is linked in statically, which
/// delays signals at will.
bool preemption() noexcept;
/// Has p's M heed p's attention, if it is in G code: true if it was sent a signal. Without a probe,
/// and unless it is to be `now`, that takes some looks, as a call of the program's might see it.
bool preemptone(P* p, bool now = false);
/// The same for all Ps asked to stop, but one.
void preemptall(const P* but, bool now);
/// May m be sent SIGURG for another reason: is it taken, and no call of the program's to end early?
bool may_interrupt(const M* m);
/// In the handler of SIGURG: was it sent for us? Then does what it was sent for.
bool heed_urg(siginfo_t* info, void* context);
/// The same where the program's handler has it, and so does nothing: there will be another one.
bool lose_urg();
/// Has Ms that have run long without their P wait for one.
void end_long_credit(std::int64_t now);

} // namespace baton::rt
