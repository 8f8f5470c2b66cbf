// SPDX-License-Identifier: Apache-2.0
#include "sync/read_spread.hpp"

#include <algorithm>
#include <cstddef>

#include "assist/ownership.hpp"
#include "assist/understudy.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail::read_spread {

constinit std::atomic<Row*> rows{nullptr};

namespace {

constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kSeqCst = std::memory_order_seq_cst;

std::uint32_t ncpu() { return assist::understudies.ncpu(); }
std::uint32_t nrows() { return std::min(ncpu(), kMostRows); }

template <class F>
void each(const void* lock, F f) {
    Row* row = rows.load(kAcquire); // acquire: as in here
    if (!row) return;
    for (std::uint32_t i = 0; i < nrows(); i++) {
        Slot& slot = row[i].slots[slot_place(lock)];
        // relaxed: who calls knows that the lock is spread, if it is: its slots were claimed
        // before.
        if (slot.owner.load(kRelaxed) == lock) f(slot);
    }
}

} // namespace

bool claim(const void* lock) noexcept {
    if (!assist::use_rseq) return false; // an M does not know its CPU
    Row* row = rows.load(kAcquire);      // acquire: as in here
    if (!row) row = make_slot_rows(rows, nrows());
    if (!row) return false;
    bool any = false;
    for (std::uint32_t i = 0; i < nrows(); i++) {
        Slot& slot = row[i].slots[slot_place(lock)];
        const void* owner = nullptr;
        // acquire: as in here.
        any |= slot.owner.compare_exchange_strong(owner, lock, kAcquire) || owner == lock;
    }
    return any;
}

Sum sum(const void* lock) noexcept {
    Sum sum;
    each(lock, [&](const Slot& slot) {
        const std::uint64_t n = slot.n.load(kSeqCst); // (D); acquires what those did that left
        sum.readers += static_cast<std::uint32_t>(n) / kReader;
        sum.entries += static_cast<std::uint32_t>(n / kEntry);
    });
    return sum;
}

void watch(const void* lock, bool on) noexcept {
    each(lock, [on](Slot& slot) {
        // relaxed, both: who leaves sees it in the word that it changes, or we see it there.
        if (on) slot.n.fetch_or(kWatched, kRelaxed);
        if (!on) slot.n.fetch_and(~kWatched, kRelaxed);
    });
}

bool settle(const void* lock, std::uint32_t others) noexcept {
    std::uint32_t counts[kMostRows] = {};
    std::uint32_t all = others;
    std::size_t i = 0;
    each(lock, [&](const Slot& slot) {
        // relaxed: the caller has seen that nobody reads.
        counts[i] = static_cast<std::uint32_t>(slot.n.load(kRelaxed));
        all += counts[i++] / kReader;
    });
    if (all % kMost != 0) return false;
    i = 0;
    // relaxed: as above.
    each(lock, [&](Slot& slot) { slot.n.fetch_sub(counts[i++], kRelaxed); });
    return true;
}

void release(const void* lock) noexcept {
    each(lock, [](Slot& slot) {
        slot.n.store(0, kRelaxed);           // relaxed: the next line
        slot.owner.store(nullptr, kRelease); // release: pairs with the acquires of owner
    });
}

} // namespace baton::detail::read_spread
