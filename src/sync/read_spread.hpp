// SPDX-License-Identifier: Apache-2.0
//
// Readers counted on their CPUs while writers come, too: as read_bias.hpp, but each of them by a
// locked addition to a slot whose line no other CPU writes. That costs twice what a bias does, and
// its end nothing: a writer has only to read the slots.
//
//     reader                                  writer
//     ------                                  ------
//     (A) slot.n += 1                         (C) the word says locked
//     (B) the word says locked?               (D) sums up the slots
//         then takes (A) back, on that slot
//
// All four are seq_cst: either the reader sees the writer at (B), or the writer the reader at (D).
// Were they less, both could look before the other's change is seen, and both have the lock.
//
// The sum is never too low, though slots are read one after another and readers may leave on
// another slot than they came. A reader that has the lock came before (C) as far as (D) can tell,
// so whatever slot it leaves on, its addition is in the sum. One that has not takes its addition
// back where it was made: a slot read in between counts one too many, and none one too few. So a
// sum of 0 means nobody; and one that is not the writer waits for, first for a moment, then parked.
//
//     reader that leaves, or takes (A) back   writer that parks, the drain queue held
//     -------------------------------------   ---------------------------------------
//     (E) slot.n -= 1: it was watched?        (F) marks the slots as watched
//         then takes the drain queue, and     (G) sums up again: parks if that is not 0
//         wakes who is in it if the sum is 0
//
// (E) and (F) change the same word: (E) comes first, and (G) sees it; or it sees (F), and waits for
// the queue. The lock may be gone after (E), but not while somebody is queued there.
//
// A lock is given slots by a writer alone, all that are free at that time, and has them until it is
// destroyed: so none is added while another one waits, which would not have marked it, and who is
// late finds no other lock's. On a CPU whose slot is another lock's readers count in the word. Many
// CPUs share kMostRows slots.
//
// The lock may cease to be spread, by a writer too, and who comes may not know that yet: so it is
// shut to it at (B) unless the word says that it is spread. What it added for that moment is why
// settle looks before it takes the rest off.
//
// Threads: enter and leave on any thread, of use on Ms alone. The others: as said there.
#pragma once

#include <atomic>
#include <cstdint>

#include "assist/understudy.hpp"
#include "runtime/runtime.hpp"
#include "sync/slot_rows.hpp"

namespace baton::detail::read_spread {

/// How many have come, how many are in, and whether a writer watches, in one word.
struct Slot {
    std::atomic<const void*> owner;
    std::atomic<std::uint64_t> n;
};
inline constexpr std::uint64_t kWatched = 1;
inline constexpr std::uint64_t kReader = 2;
inline constexpr std::uint64_t kEntry = std::uint64_t{1} << 32;
using Row = SlotRow<Slot>;
inline constexpr std::uint32_t kMany = 4096;  // one in so many is to look whether writers come
inline constexpr std::uint32_t kMostRows = 8; // a writer reads them all
extern constinit std::atomic<Row*> rows;

/// This CPU's slot, if it is the lock's: then it stays so as long as the caller uses the lock.
inline Slot* here(const void* lock) {
    const rt::M* m = rt::getm_or_null();
    Row* row = rows.load(std::memory_order_acquire); // acquire: they are all zero
    if (!m || !row) return nullptr;
    const std::uint32_t cpu = m->rseq->cpu_id; // out of range where there is no rseq
    if (cpu >= assist::understudies.ncpu()) return nullptr;
    Slot& slot = row[cpu % kMostRows].slots[slot_place(lock)];
    // acquire: pairs with the release of who had it before: what it left there is seen as 0.
    return slot.owner.load(std::memory_order_acquire) == lock ? &slot : nullptr;
}

/// Makes the slots that are free `lock`'s. False: it has none. By who has it for writing, alone.
bool claim(const void* lock) noexcept;

enum class How { kNotHere, kDone, kShut };
struct Count {
    How how = How::kNotHere;
    /// Of who came: it is time to see whether writers still do. Else: (E) was watched.
    bool look = false;
};
/// Counts a reader of the lock `word` on this CPU if (*word & mask) == open, else shut.
inline Count enter(const std::atomic<std::uint32_t>& word, std::uint32_t mask,
                   std::uint32_t open) noexcept {
    Slot* slot = here(&word);
    if (!slot) return {};
    const std::uint64_t before =
        slot->n.fetch_add(kEntry + kReader, std::memory_order_seq_cst); // (A)
    if ((word.load(std::memory_order_seq_cst) & mask) == open)          // (B)
        return {.how = How::kDone, .look = (before / kEntry) % kMany == 0};
    // relaxed: nothing was done in between.
    return {.how = How::kShut,
            .look = (slot->n.fetch_sub(kReader, std::memory_order_relaxed) & kWatched) != 0};
}
/// Counts it off. The lock may be gone afterwards.
inline Count leave(const void* lock) noexcept {
    Slot* slot = here(lock);
    if (!slot) return {};
    // release: pairs with the acquire in sum.
    return {.how = How::kDone,
            .look = (slot->n.fetch_sub(kReader, std::memory_order_release) & kWatched) != 0};
}

/// Counts of readers are modulo this: of those that leave elsewhere they know nothing.
inline constexpr std::uint32_t kMost = 1u << 24;
struct Sum {
    std::uint32_t readers = 0; ///< modulo kMost
    std::uint32_t entries = 0; ///< so many have come, more or less
};
/// By who has the lock for writing; or with the drain queue held, and somebody in it.
Sum sum(const void* lock) noexcept;
/// As sum.
void watch(const void* lock, bool on) noexcept;
/// Sets the slots of a lock that nobody reads to 0, by who has it for writing: they count those
/// that left on another one, or in the word, which counts `others`. False: somebody is on its way,
/// and nothing was done.
bool settle(const void* lock, std::uint32_t others) noexcept;
/// Gives the slots back: nobody uses the lock any more.
void release(const void* lock) noexcept;

} // namespace baton::detail::read_spread
