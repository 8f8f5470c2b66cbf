// SPDX-License-Identifier: Apache-2.0
//
// Rows of slots in which locks count their readers where they run: of each row a lock has the slot
// that its address leads to, unless that is another lock's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/persistentalloc.hpp"

namespace baton::detail {

inline constexpr std::size_t kRowSlots = 256; // of 16 bytes: one page

template <class Slot>
struct SlotRow {
    Slot slots[kRowSlots];
};

inline std::size_t slot_place(const void* lock) {
    constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15;
    return (reinterpret_cast<std::uintptr_t>(lock) * kGolden) >> 56;
}
static_assert(kRowSlots == 1 << 8);

/// `n` rows, all zero, made by the first that asks, and kept. Null: no memory.
template <class Slot>
SlotRow<Slot>* make_slot_rows(std::atomic<SlotRow<Slot>*>& rows, std::uint32_t n) {
    auto* made = static_cast<SlotRow<Slot>*>(rt::page_alloc(sizeof(SlotRow<Slot>) * n));
    SlotRow<Slot>* none = nullptr;
    // acq_rel: pairs with the acquires of who uses them. On failure another one's are there.
    if (!made || rows.compare_exchange_strong(none, made, std::memory_order_acq_rel)) return made;
    rt::page_free(made, sizeof(SlotRow<Slot>) * n);
    return none;
}

} // namespace baton::detail
