// SPDX-License-Identifier: Apache-2.0
//
// Where an RWMutex counts its readers, from what it says in its words; and how to have it do so.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "kernel/features.hpp"

namespace rw_counts {

using baton::RWMutex;

/// The word, and how readers count.
inline std::atomic<std::uint32_t>& word(RWMutex& rw, int i) {
    using Words = std::atomic<std::uint32_t>[3];
    static_assert(sizeof(Words) == sizeof rw);
    return reinterpret_cast<Words&>(rw)[i];
}
/// Are its readers counted on their CPUs?
inline bool biased(RWMutex& rw) { return word(rw, 1).load(std::memory_order_relaxed) & 1; }

/// Is nobody in it, and does it say nothing but that readers have met?
inline bool as_new(RWMutex& rw) {
    if (!rw.try_lock()) return false;
    rw.unlock();
    return word(rw, 0).load(std::memory_order_relaxed) == 0;
}

inline bool has_rseq() {
    const auto& features = baton::kernel::features();
    if (features.rseq && features.membarrier_rseq) return true;
    std::fprintf(stderr, "skip: no restartable sequences, so no reader is counted on its CPU\n");
    return false;
}

/// Has readers meet until they are biased. False: they never are here.
inline bool bias(RWMutex& rw) {
    if (!has_rseq()) return false;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    rw.lock_shared();
    while (!biased(rw) && std::chrono::steady_clock::now() < end) {
        rw.lock_shared();
        rw.unlock_shared();
    }
    rw.unlock_shared();
    REQUIRE(biased(rw));
    return true;
}

} // namespace rw_counts
