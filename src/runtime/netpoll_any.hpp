// SPDX-License-Identifier: Apache-2.0
//
// A wait for whichever of several descriptors is ready first: netpoll_any.cpp.
#pragma once

#include <cstdint>

#include "runtime/netpoll.hpp"

namespace baton::rt {

struct PollAsk {
    PollDesc* pd;
    PollMode mode;
};
/// Parks until one of them is ready, has a deadline or is closed: 0. ETIMEDOUT at `when_ns`
/// (Until::kNever). May end for nothing: the caller looks. Who calls is the only one that may wait
/// for any of them, and nothing is there twice.
int poll_wait_any(const PollAsk* asks, unsigned n, std::int64_t when_ns);

/// `pd` has left kPdAny by the caller's doing, who holds its lock. The G to ready, or null.
G* any_ended(PollDesc* pd, PollMode mode);

} // namespace baton::rt
