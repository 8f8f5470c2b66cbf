// SPDX-License-Identifier: Apache-2.0
//
// Rings: requests to the kernel that complete while their G is parked. See ring.cpp.
//
// Threads: ring_call by any; the rest as each says.
#pragma once

#include <atomic>
#include <cstdint>

#include "baton/until.hpp"
#include "runtime/runtime.hpp"

struct io_uring_sqe;

namespace baton::rt {

struct Ring;

/// What ring_call says where there is no ring for the caller: nothing has been done.
inline constexpr long kNoRing = -4096;
/// And where somebody else than `until` had the kernel give the request up: rings_cancel_fd, or the
/// end of the thread that handed it over, which is no business of the caller's.
inline constexpr long kGivenUp = -4097;

/// Has the kernel do what fill(sqe, arg) asks for, and parks until it is done. The result, or
/// -errno; -ETIMEDOUT or -ECANCELED if `until` ended it first, when nothing was done; kGivenUp,
/// when nothing was either; kNoRing on plain threads, inside blocking() and where the
/// kernel has no rings. Memory that the request names is the kernel's until this returns, and not
/// after.
long ring_call(void (*fill)(io_uring_sqe* sqe, const void* arg), const void* arg,
               const Until& until);

/// Gives up the requests for this descriptor that the kernel has, as far as it can.
void rings_cancel_fd(int fd);

/// How many requests the kernel has been given and has not completed.
std::uint32_t rings_in_flight() noexcept;

// ---- for the scheduler ----

/// p's attention names its ring: takes what has completed, hands over what has collected. Owner
/// only.
void ring_round(P* p);
/// Hands over all that has collected. Owner only, or the world stands.
void ring_submit(P* p);
/// Takes what has completed in any ring. Any thread with an M.
void rings_reap(GList& list);
/// In a forked child: they are the parent's.
void rings_forget();

} // namespace baton::rt
