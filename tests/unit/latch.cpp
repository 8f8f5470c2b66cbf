// SPDX-License-Identifier: Apache-2.0
//
// Latch and Barrier.
// run: tiers
#include "baton/latch.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <stop_token>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "baton/barrier.hpp"
#include "baton/baton.hpp"
#include "support/child.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using namespace child_process;
using baton::Barrier;
using baton::Latch;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("a latch opens when it was counted down, and stays open") {
    over_procs([](int) {
        Latch latch(4);
        int plain = 0; // TSan would see a missing edge
        std::atomic<int> through{0};
        baton::WaitGroup wg;
        const auto wait = [&] {
            latch.wait();
            through.fetch_add(plain, kRelaxed);
        };
        for (int i = 0; i < 5; i++) wg.go(wait);
        std::jthread thread(wait);
        CHECK_FALSE(latch.try_wait());
        latch.count_down(2);
        std::error_code ec;
        CHECK_FALSE(latch.wait(1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(latch.wait(1ms), std::system_error);
        std::stop_source source;
        source.request_stop();
        CHECK_FALSE(latch.wait(source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        CHECK(through.load(kRelaxed) == 0);
        wg.go([&] {
            plain = 1;
            latch.count_down();
        });
        latch.arrive_and_wait();
        wg.wait();
        baton::blocking([&] { thread.join(); });
        CHECK(through.load(kRelaxed) == 6);
        CHECK(latch.try_wait());
        CHECK(latch.wait(source.get_token(), ec)); // what can be had at once is
    });
}

TEST_CASE("a latch may end as soon as a wait has returned") {
    over_procs([](int) {
        lock_stress::run(10, [](lock_stress::Random& random, const std::stop_token& token) {
            auto latch = std::make_unique<Latch>(1);
            baton::go([it = latch.get(), pause = random.below(60)] {
                if (pause % 4 != 0) baton::sleep_for(std::chrono::microseconds(pause));
                it->count_down();
            });
            std::error_code ec;
            (void)latch->wait(random.limit(token), ec);
            latch->wait();
        });
    });
}

TEST_CASE("nobody passes a barrier before all have come, phase after phase") {
    over_procs([](int procs) {
        const int n = 3 * procs;
        constexpr int kPhases = 200;
        int completed = 0; // by the last to come alone
        std::atomic<int> arrived{0};
        std::atomic<int> wrong{0};
        Barrier barrier(n, [&]() noexcept {
            completed++;
            if (arrived.load(kRelaxed) != n * completed) wrong.fetch_add(1, kRelaxed);
        });
        const auto participant = [&] {
            for (int phase = 1; phase <= kPhases; phase++) {
                arrived.fetch_add(1, kRelaxed);
                barrier.arrive_and_wait();
                // The next phase cannot have ended: it waits for us.
                if (completed != phase) wrong.fetch_add(1, kRelaxed);
            }
        };
        baton::WaitGroup wg;
        for (int i = 0; i + 1 < n; i++) wg.go(participant);
        std::jthread thread(participant);
        wg.wait();
        baton::blocking([&] { thread.join(); });
        CHECK(completed == kPhases);
        CHECK(wrong.load(kRelaxed) == 0);
    });
}

TEST_CASE("who gives up waiting at a barrier has arrived all the same") {
    over_procs([](int) {
        int completed = 0;
        Barrier barrier(2, [&]() noexcept { completed++; });
        auto arrival = barrier.arrive();
        std::error_code ec;
        CHECK_FALSE(barrier.wait(arrival, 1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(barrier.wait(arrival, 1ms), std::system_error);
        CHECK(completed == 0);
        (void)barrier.arrive();
        CHECK(completed == 1);
        CHECK(barrier.wait(arrival, 1h, ec));
        barrier.wait(std::move(arrival));
        auto next = barrier.arrive();
        std::stop_source source;
        source.request_stop();
        CHECK_FALSE(barrier.wait(next, source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        barrier.arrive_and_wait();
        CHECK(completed == 2);
    });
}

TEST_CASE("phases after a drop expect one less") {
    over_procs([](int) {
        std::atomic<int> phases{0};
        Barrier barrier(5, [&]() noexcept { phases.fetch_add(1, kRelaxed); });
        baton::WaitGroup wg;
        for (int i = 0; i < 5; i++) {
            wg.go([&, i] {
                for (int phase = 0; phase < i; phase++) barrier.arrive_and_wait();
                barrier.arrive_and_drop();
            });
        }
        wg.wait();
        CHECK(phases.load(kRelaxed) == 5);
    });
}

TEST_CASE("a barrier may end as soon as a wait has returned") {
    over_procs([](int) {
        for (int round = 0; round < 50 * lock_stress::kRounds; round++) {
            auto barrier = std::make_unique<Barrier<>>(2);
            baton::WaitGroup wg;
            wg.go([it = barrier.get()] { (void)it->arrive(); });
            barrier->arrive_and_wait();
            barrier.reset();
            wg.wait();
        }
    });
}

TEST_CASE("child: counts a latch below zero" * doctest::skip()) {
    Latch latch(1);
    latch.count_down(2);
    reached();
}

TEST_CASE("child: arrives too often" * doctest::skip()) {
    Barrier barrier(2);
    (void)barrier.arrive(3);
    reached();
}

TEST_CASE("misuse of a Latch or a Barrier ends the process") {
    check_dies("counts a latch below zero", "baton: Latch counted down below zero");
    check_dies("arrives too often", "baton: more arrivals at a Barrier than it expects");
}
