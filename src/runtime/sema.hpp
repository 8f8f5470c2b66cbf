// SPDX-License-Identifier: Apache-2.0
//
// Semaphores for the sync types, addressed by the word they count in (the reference's sema.go): the
// count lives with the user, the sleepers in a table keyed by its address.
//
// Threads: semacquire and can_spin where must_park allows it; semrelease on any thread.
// Ordering: (A) an acquirer counts itself in its bucket, then looks at the count; (B) a releaser
// raises the count, then looks into the bucket. All four are seq_cst (sema.cpp).
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/runtime.hpp"

namespace baton::rt {

/// Waits until *addr > 0 and takes one off. `lifo` queues at the front (a woken waiter that lost).
void semacquire(std::atomic<std::uint32_t>* addr, bool lifo, WaitReason reason);
/// Adds one to *addr and wakes one waiter. `handoff` gives it to that waiter directly and yields.
/// *addr itself may be gone as soon as the one added has been taken.
void semrelease(std::atomic<std::uint32_t>* addr, bool handoff = false);

/// In a forked child: nobody waits.
void sema_forget();

/// Is spinning for a lock worth a try, for the i-th time: is its holder likely to be running, and
/// nobody kept from running by us?
[[nodiscard]] bool can_spin(int i) noexcept;
/// Some tenths of a microsecond of pauses.
void spin() noexcept;

} // namespace baton::rt
