// SPDX-License-Identifier: Apache-2.0
//
// Where an RWMutex counts its readers, from what it says in its words; and how to have it do so.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <stop_token>
#include <system_error>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "support/lock_stress.hpp"
#include "support/waiters.hpp"

namespace rw_counts {

using baton::RWMutex;

/// The word, how readers count, and whether they wish to be spread.
inline std::atomic<std::uint32_t>& word(RWMutex& rw, int i) {
    using Words = std::atomic<std::uint32_t>[4];
    static_assert(sizeof(Words) == sizeof rw);
    return reinterpret_cast<Words&>(rw)[i];
}
/// By restartable sequences on their CPUs?
inline bool biased(RWMutex& rw) { return word(rw, 1).load(std::memory_order_relaxed) & 1; }
/// In slots of their CPUs?
inline bool is_spread(RWMutex& rw) { return word(rw, 1).load(std::memory_order_relaxed) & 2; }

/// Is nobody in it, and does it say nothing but that readers have met?
inline bool as_new(RWMutex& rw) {
    if (!rw.try_lock()) return false;
    rw.unlock();
    constexpr std::uint32_t kSpread = 64;
    const std::uint32_t now = word(rw, 0).load(std::memory_order_relaxed);
    // Of one that is spread the word counts those that came and left elsewhere.
    return now & kSpread ? (now & 255) == kSpread : now == 0;
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

/// Wishes them spread, and has a writer wait for a reader. False: they never are here. By a
/// goroutine, when nobody is in.
inline bool try_spread(RWMutex& rw) {
    rw.lock_shared();
    word(rw, 3).store(1, std::memory_order_relaxed);
    baton::WaitGroup wg;
    wg.go([&] { std::unique_lock(rw).unlock(); });
    waiters_test::await_waiter(&rw, baton::rt::WaitReason::kRWMutexDrain);
    rw.unlock_shared();
    wg.wait();
    return is_spread(rw);
}
/// The same, and no bias for some minutes.
inline bool spread(RWMutex& rw) {
    if (!has_rseq()) return false;
    const auto later = static_cast<std::uint32_t>((baton::kernel::nanotime() >> 22) + 100'000);
    word(rw, 1).store(later << 3 | 4, std::memory_order_relaxed);
    REQUIRE(try_spread(rw));
    return true;
}

/// Readers and writers, one of `writes_each`, that lock, try and give up at random, and now and
/// then sleep with the lock held. Nobody is to be in with a writer.
inline void stress(RWMutex& rw, int times, std::uint32_t writes_each, std::uint32_t sleeps_each) {
    constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: counted under the lock
    std::atomic<int> readers{0}, writers{0}, wrong{0};
    lock_stress::run(times, [&](lock_stress::Random& random, const std::stop_token& token) {
        std::error_code ec;
        const bool writes = random.below(writes_each) == 0;
        const bool tries = random.below(5) == 0;
        const auto pause = [&] {
            if (random.below(16) == 0) baton::yield();
            if (random.below(sleeps_each) == 0)
                baton::sleep_for(std::chrono::microseconds(random.below(90)));
        };
        if (writes) {
            if (!(tries ? rw.try_lock() : rw.lock(random.limit(token), ec))) return;
            wrong.fetch_add(writers.fetch_add(1, kRelaxed) != 0, kRelaxed);
            wrong.fetch_add(readers.load(kRelaxed) != 0, kRelaxed);
            pause();
            writers.fetch_sub(1, kRelaxed);
            rw.unlock();
        } else {
            if (!(tries ? rw.try_lock_shared() : rw.lock_shared(random.limit(token), ec))) return;
            readers.fetch_add(1, kRelaxed);
            wrong.fetch_add(writers.load(kRelaxed) != 0, kRelaxed);
            pause();
            readers.fetch_sub(1, kRelaxed);
            rw.unlock_shared();
        }
    });
    CHECK(wrong.load(kRelaxed) == 0);
    CHECK(as_new(rw));
}

} // namespace rw_counts
