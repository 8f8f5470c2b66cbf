// SPDX-License-Identifier: Apache-2.0
//
// A counter to wait for, of a WaitGroup or a Latch: the high half of a word, so that the one who
// brings it to zero sees by the lowest bit whether to wake somebody, and else need not touch what
// may be gone by then. The bit is set while somebody is queued, and changed with the queue held.
//
// Threads: any; those that may wait where must_park allows it.
#pragma once

#include <atomic>
#include <cstdint>

#include "baton/until.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

using CountdownWord = std::atomic<std::uint64_t>;

inline constexpr std::uint64_t kCountdownWaiters = 1;

constexpr std::int32_t counter_of(std::uint64_t state) {
    return static_cast<std::int32_t>(state >> 32);
}

/// Adds `n` and returns the new word. If the counter is zero and has waiters, countdown_wake is to
/// follow; if it has none the word may be gone.
inline std::uint64_t countdown_add(CountdownWord& word, std::int32_t n) {
    const auto delta = static_cast<std::uint64_t>(static_cast<std::int64_t>(n)) << 32;
    // release: what was done before is seen by who waits. acquire: the last one passes on to the
    // waiters, through the queue, what the others did.
    return word.fetch_add(delta, std::memory_order_acq_rel) + delta;
}

/// Waits for zero, or gives up at `*until`, unless that is null.
WaitEnd countdown_wait(CountdownWord& word, const Until* until, rt::WaitReason reason,
                       const char* what);

/// The counter has come to zero and there were waiters.
void countdown_wake(CountdownWord& word, rt::WaitReason reason);

} // namespace baton::detail
