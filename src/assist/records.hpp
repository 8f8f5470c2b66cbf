// SPDX-License-Identifier: Apache-2.0
//
// Where the records of bpf/baton_shared.h lie: in the probe's maps (Probe::records), or, without
// BPF, in memory of this process alone. The layout is the same, and so is all code that uses them.
//
// Threads: the pointers are constant; each field's writers are named in baton_shared.h.
// Invariants:
//   I1  every record starts as zeros: M_DEAD, P_IDLE without owner, empty counters
//   I2  records are never unmapped while an M runs; a process that ends leaves them to the kernel
#pragma once

#include <cstddef>

#include "baton_shared.h"

namespace baton::assist {

/// Arrays of BATON_MAX_M and BATON_MAX_P slots, and the one scheduler record.
struct Records {
    shared::m_rec* m = nullptr;
    shared::p_rec* p = nullptr;
    shared::sched_rec* sched = nullptr;
};

inline constexpr std::size_t kMBytes = sizeof(shared::m_rec) * BATON_MAX_M;
inline constexpr std::size_t kPBytes = sizeof(shared::p_rec) * BATON_MAX_P;
inline constexpr std::size_t kSchedBytes = sizeof(shared::sched_rec);

/// Records in plain memory, zeroed and never freed; its pages exist once touched. All null when
/// the address space is exhausted.
[[nodiscard]] Records allocate_records() noexcept;

} // namespace baton::assist
