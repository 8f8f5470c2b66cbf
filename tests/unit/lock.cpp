// SPDX-License-Identifier: Apache-2.0
//
// The runtime's own lock, between plain threads.
#include "runtime/lock.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "kernel/features.hpp"
#include "support/child.hpp"

namespace {

using namespace std::chrono_literals;
using baton::rt::Lock;
using baton::rt::Rank;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

/// `threads` of them take the lock `each` times; now and then the holder keeps it for long enough
/// that the others fall asleep. How often it was held; the test hangs if a sleeper is forgotten.
std::int64_t contend(int threads, int each, bool unlock_last) {
    Lock lock{Rank::kLeaf};
    std::int64_t held = 0; // TSan would see two holders
    {
        std::vector<std::jthread> all;
        for (int t = 0; t < threads; t++) {
            all.emplace_back([&, t] {
                for (int i = 0; i < each; i++) {
                    lock.lock();
                    held++;
                    if ((i + t) % 512 == 0) std::this_thread::sleep_for(200us);
                    if (unlock_last && i % 2 == 0) {
                        lock.unlock_last();
                    } else {
                        lock.unlock();
                    }
                }
            });
        }
    }
    CHECK(lock.try_lock()); // free, and nobody left in it
    CHECK_FALSE(lock.try_lock());
    lock.unlock();
    return held;
}

} // namespace

TEST_CASE("a lock is held by one at a time, and no sleeper is forgotten") {
    for (const bool last : {false, true})
        for (const int threads : {2, 3, 8, 32})
            CHECK(contend(threads, 8'192 / threads, last) == 8'192 / threads * threads);
}

TEST_CASE("child: a lock without membarrier" * doctest::skip()) {
    REQUIRE_FALSE(baton::kernel::features().membarrier_rseq);
    CHECK(contend(8, 1'024, false) == 8'192);
    CHECK(contend(8, 1'024, true) == 8'192);
}

TEST_CASE("the same without membarrier") {
    const auto child = child_process::run_child("a lock without membarrier",
                                                {"BATON_DISABLE=membarrier_rseq"}, 60s);
    CHECK_MESSAGE(child.exited(0), child.output);
}

TEST_CASE("a lock may be gone as soon as its last holder has released it") {
    // The next holder frees it at once; AddressSanitizer would see a later look.
    for (int i = 0; i < 3'000; i++) {
        auto* lock = new Lock{Rank::kLeaf};
        std::atomic<bool> begun{false};
        lock->lock();
        std::jthread other([&] {
            begun.store(true, kRelaxed);
            lock->lock();
            lock->unlock_last();
            delete lock;
        });
        while (i % 2 == 0 && !begun.load(kRelaxed)) std::this_thread::yield();
        lock->unlock_last();
    }
}
