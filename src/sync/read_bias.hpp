// SPDX-License-Identifier: Apache-2.0
//
// Readers counted where they run: per CPU, in place of the lock that all of them share (after
// "BRAVO: Biased Locking for Reader-Writer Locks", Dice and Kogan, 2019). Of a lock that is biased
// the number of readers is the sum over its word and a slot on each CPU, each of which may be
// negative, as who leaves may do so elsewhere than it came.
//
//     reader, in a restartable sequence       writer, who has the lock
//     ---------------------------------       ------------------------
//     (A) the word says biased?               (C) the word says biased no longer
//         this CPU's slot is the lock's?          membarrier
//     (B) slot.n += 1, or -1                  (D) sums up the slots, empties and leaves them
//
// After the membarrier no sequence is on its way that saw (A) before (C): its (B) is seen at (D),
// or it starts again and goes to the word. A slot is taken by a CAS of its owner from null, by a
// reader; until (D) gives it back it is its lock's alone. If it is another lock's, readers on that
// CPU count in the word.
//
// Threads: count on any thread, of use on Ms alone. fold and leave: as said there.
#pragma once

#include <atomic>
#include <cstdint>

namespace baton::detail::read_bias {

/// Is there what it takes?
bool possible() noexcept;
/// Adds `by`, 1 or -1, to the readers of the lock `word` on this CPU, if `*word & biased`. False:
/// nothing was done.
bool count(std::atomic<std::uint32_t>& word, std::uint32_t biased, int by) noexcept;
/// `word` says biased no longer, and will not again before this returns. The sum of its slots,
/// which are free now. Interrupts other CPUs.
std::int64_t fold(const std::atomic<std::uint32_t>& word) noexcept;

} // namespace baton::detail::read_bias
