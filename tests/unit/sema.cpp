// SPDX-License-Identifier: Apache-2.0
//
// The table of sleepers, and the semaphores on it.
// run: tiers
#include "runtime/sema.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "kernel/build.hpp"
#include "support/procs.hpp"
#include "support/waiters.hpp"

namespace {

using namespace std::chrono_literals;
using baton::rt::semacquire;
using baton::rt::SemaQueue;
using baton::rt::SemaWaiter;
using baton::rt::semrelease;
using baton::rt::WaitReason;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

// One bucket's addresses; they are compared, not read.
const void* in_one_bucket(std::size_t i) {
    return reinterpret_cast<const void*>(std::uintptr_t{0x7f0000000000} + i * 8 * 251);
}

/// Does the waiter run before who released goes on?
bool waiter_is_first(bool handoff) {
    std::atomic<std::uint32_t> sema{0};
    std::atomic<int> first{0};
    baton::WaitGroup wg;
    const auto be_first = [&](int who) {
        int nobody = 0;
        first.compare_exchange_strong(nobody, who);
    };
    wg.go([&] {
        semacquire(&sema, false, WaitReason::kSemacquire);
        be_first(1);
        semrelease(&sema, true);
    });
    waiters_test::await_waiter(&sema, WaitReason::kSemacquire);
    semrelease(&sema, handoff);
    be_first(2);
    wg.wait();
    return first.load(kRelaxed) == 1;
}

int how_often_waiter_is_first(bool handoff) {
    int n = 0;
    for (int i = 0; i < 100; i++) n += waiter_is_first(handoff);
    return n;
}

} // namespace

TEST_CASE("two hundred thousand addresses waited for in one bucket are found as fast as a few") {
    // With lists of addresses this would take hours.
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    constexpr std::size_t kWaiters = 50'000;
#else
    constexpr std::size_t kWaiters = 200'000;
#endif
    std::vector<SemaWaiter> waiters(2 * kWaiters);
    for (std::size_t i = 0; i < kWaiters; i++) {
        SemaQueue queue(in_one_bucket(i), WaitReason::kSemacquire);
        queue.push(waiters[2 * i]);
        queue.push(waiters[2 * i + 1], i % 3 == 0);
    }
    std::size_t wrong = 0;
    // One of each leaves, from anywhere in the tree; then the other.
    for (const std::size_t stride : {std::size_t{7919}, std::size_t{104729}}) {
        for (std::size_t k = 0; k < kWaiters; k++) {
            const std::size_t i = k * stride % kWaiters;
            SemaQueue queue(in_one_bucket(i), WaitReason::kSemacquire);
            SemaWaiter* first = queue.first();
            const bool lifo = i % 3 == 0;
            if (stride == 7919) {
                wrong += first != &waiters[2 * i + lifo];
            } else {
                wrong += first != &waiters[2 * i + !lifo];
            }
            if (first) queue.remove(*first);
            wrong += queue.empty() != (stride != 7919);
        }
    }
    CHECK(wrong == 0);
    CHECK(SemaQueue(in_one_bucket(0), WaitReason::kSemacquire).empty());
}

TEST_CASE("two hundred thousand waiters for one address come and go in their order") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    constexpr std::size_t kWaiters = 50'000;
#else
    constexpr std::size_t kWaiters = 200'000;
#endif
    std::vector<SemaWaiter> waiters(kWaiters);
    SemaQueue queue(in_one_bucket(1), WaitReason::kSemacquire);
    for (SemaWaiter& w : waiters) queue.push(w);
    for (std::size_t i = 1; i < kWaiters; i += 2)
        queue.remove(waiters[kWaiters - i]); // any of them
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < kWaiters; i += 2) wrong += queue.pop() != &waiters[i];
    CHECK(wrong == 0);
    CHECK(queue.empty());
}

TEST_CASE("semaphores: many addresses, no wake-up is lost, no count made up") {
    over_procs([](int) {
        constexpr std::size_t kSemas = 600; // more than there are buckets
        std::deque<std::atomic<std::uint32_t>> semas(kSemas);
        baton::WaitGroup wg;
        for (std::size_t i = 0; i < kSemas; i++) {
            for (int n = 0; n < 3; n++) {
                wg.go([&, i, n] {
                    for (int k = 0; k < 20; k++)
                        semacquire(&semas[i], n == 1, WaitReason::kSemacquire);
                });
            }
            wg.go([&, i] {
                for (int k = 0; k < 60; k++) semrelease(&semas[i], k % 2 == 0);
            });
        }
        wg.wait();
        for (auto& sema : semas) CHECK(sema.load(kRelaxed) == 0);
    });
}

TEST_CASE("a semaphore handed off lets the waiter run at once") {
    baton::run([] {
        baton::set_max_procs(1);
        // Preemption may spoil a few.
        CHECK(how_often_waiter_is_first(true) >= 90);
        CHECK(how_often_waiter_is_first(false) <= 10);
    });
}

TEST_CASE("a semaphore handed off is not grabbed by who released it") {
    // On several processors; without the handoff it mostly would be.
    over_procs([](int) { CHECK(how_often_waiter_is_first(true) >= 33); });
}
