// SPDX-License-Identifier: Apache-2.0
#include "sync/read_bias.hpp"

#include "arch/x86_64/rseq_cs.hpp"
#include "assist/ownership.hpp"
#include "assist/understudy.hpp"
#include "kernel/membarrier.hpp"
#include "runtime/runtime.hpp"
#include "sync/slot_rows.hpp"

namespace baton::detail::read_bias {

namespace {

struct Slot {
    std::atomic<const void*> owner;
    std::int64_t n;
};
using Row = SlotRow<Slot>; // of a CPU
constinit std::atomic<Row*> rows{nullptr};

std::uint32_t ncpu() { return assist::understudies.ncpu(); }

/// Is it `lock`'s, from here on if nobody's before?
bool claim(Slot& slot, const void* lock) {
    const void* owner = nullptr;
    // acquire: pairs with the release in fold: what was counted here before is 0 now.
    return slot.owner.compare_exchange_strong(owner, lock, std::memory_order_acquire) ||
           owner == lock;
}

} // namespace

bool possible() noexcept {
    // relaxed: count looks again.
    return assist::use_rseq &&
           (rows.load(std::memory_order_relaxed) || make_slot_rows(rows, ncpu()));
}

bool count(std::atomic<std::uint32_t>& word, std::uint32_t biased, int by) noexcept {
    const rt::M* m = rt::getm_or_null();
    if (!m) return false;
    Row* row = rows.load(std::memory_order_acquire); // acquire: they are all zero
    for (;;) {
        const std::uint32_t cpu = m->rseq->cpu_id; // out of range where there is no rseq
        if (!row || cpu >= ncpu()) return false;
        Slot& slot = row[cpu].slots[slot_place(&word)];
        // relaxed: as in claim; it stays the lock's while that is biased, which (A) looks at.
        if (slot.owner.load(std::memory_order_relaxed) != &word && !claim(slot, &word))
            return false;
        switch (arch::rseq_add_if(m->rseq, cpu, &slot.n, by,
                                  reinterpret_cast<std::uint32_t*>(&word), biased)) {
        case arch::RseqResult::kCommitted:
            return true;
        case arch::RseqResult::kMismatch:
            return false;
        case arch::RseqResult::kAborted:
            break;
        }
    }
}

std::int64_t fold(const std::atomic<std::uint32_t>& word) noexcept {
    kernel::membarrier_rseq_cpu(-1);
#if defined(BATON_TSAN)
    __tsan_acquire(const_cast<std::atomic<std::uint32_t>*>(&word)); // of the sequences
#endif
    Row* row = rows.load(std::memory_order_acquire); // acquire: as in count
    std::int64_t sum = 0;
    for (std::uint32_t cpu = 0; cpu < ncpu(); cpu++) {
        Slot& slot = row[cpu].slots[slot_place(&word)];
        // relaxed: after the membarrier nobody else writes what is the lock's.
        if (slot.owner.load(std::memory_order_relaxed) != &word) continue;
        // acquire: pairs with the commit of who left: on x86-64 a store is a release.
        sum += std::atomic_ref(slot.n).load(std::memory_order_acquire);
        std::atomic_ref(slot.n).store(0, std::memory_order_relaxed); // relaxed: the next line
        slot.owner.store(nullptr, std::memory_order_release);        // release: pairs with claim
    }
    return sum;
}

} // namespace baton::detail::read_bias
