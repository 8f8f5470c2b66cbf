// SPDX-License-Identifier: Apache-2.0
//
// Mutex.
// run: tiers
#include "baton/sync.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/time.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using procs_test::over_procs;
using Steady = std::chrono::steady_clock;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

/// Not held, and nobody waits.
bool at_rest(const baton::Mutex& mu) {
    std::uint32_t word;
    std::memcpy(&word, &mu, sizeof word);
    return (word & 0xff007f) == 0; // it may be biased, and somebody may have waited
}

} // namespace

TEST_CASE("Mutex excludes, with newcomers and sleepers") {
    baton::run([] {
        constexpr int kGs = 50;
        constexpr int kTimes = 2000;
        baton::Mutex mu;
        long counter = 0;
        bool inside = false;
        std::atomic<int> overlaps{0};
        baton::WaitGroup wg;
        for (int g = 0; g < kGs; g++) {
            wg.go([&, g] {
                for (int i = 0; i < kTimes; i++) {
                    std::scoped_lock hold(mu);
                    if (inside) overlaps.fetch_add(1, kRelaxed);
                    inside = true;
                    counter++;
                    if ((i + g) % 64 == 0) baton::yield(); // others find it locked
                    inside = false;
                }
            });
        }
        wg.wait();
        CHECK(counter == long{kGs} * kTimes);
        CHECK(overlaps.load(kRelaxed) == 0);
    });
}

TEST_CASE("Mutex::try_lock takes what is free and never waits") {
    baton::Mutex mu; // a plain thread may, too
    REQUIRE(mu.try_lock());
    CHECK_FALSE(mu.try_lock());
    mu.unlock();
    std::unique_lock hold(mu, std::try_to_lock);
    CHECK(hold.owns_lock());
}

TEST_CASE("Mutex may be unlocked by another goroutine") {
    baton::run([] {
        baton::Mutex mu;
        mu.lock();
        baton::go([&] { mu.unlock(); });
        mu.lock();
        mu.unlock();
    });
}

TEST_CASE("Mutex does not starve who comes by seldom") {
    // As in the reference's TestMutexFairness: one hogs, the other locks ten times. The hog yields
    // with the mutex held, so that the other finds it locked even where there is one processor.
    baton::run([] {
        baton::Mutex mu;
        std::atomic<bool> stop{false};
        baton::WaitGroup hog;
        hog.go([&] {
            while (!stop.load(kRelaxed)) {
                mu.lock();
                const auto until = Steady::now() + 100us;
                while (Steady::now() < until) {
                }
                baton::yield();
                mu.unlock();
            }
        });
        const auto start = Steady::now();
        for (int i = 0; i < 10; i++) {
            baton::sleep_for(100us);
            mu.lock();
            mu.unlock();
        }
        CHECK(Steady::now() - start < 10s);
        stop.store(true, kRelaxed);
        hog.wait();
    });
}

TEST_CASE("a starving waiter is handed the mutex first") {
    baton::run([] {
        baton::Mutex mu;
        std::atomic<int> order{0};
        std::atomic<int> queued{0};
        baton::WaitGroup wg;
        constexpr int kWaiters = 5;
        std::deque<std::atomic<int>> got(kWaiters);
        mu.lock();
        for (int i = 0; i < kWaiters; i++) {
            wg.go([&, i] {
                queued.fetch_add(1, kRelaxed);
                mu.lock();
                got[static_cast<std::size_t>(i)].store(order.fetch_add(1, kRelaxed), kRelaxed);
                baton::sleep_for(2ms); // the rest go on starving
                mu.unlock();
            });
            while (queued.load(kRelaxed) <= i) baton::yield();
            baton::sleep_for(1ms);
        }
        baton::sleep_for(2ms);
        mu.unlock();
        wg.wait();
        for (int i = 0; i < kWaiters; i++)
            CHECK(got[static_cast<std::size_t>(i)].load(kRelaxed) == i);
    });
}

TEST_CASE("Mutex is hammered from many goroutines, with and without a try") {
    // The reference's TestMutex.
    over_procs([](int) {
        baton::Mutex mu;
        long counter = 0;
        std::atomic<long> tried{0};
        baton::WaitGroup wg;
        for (int g = 0; g < 10; g++) {
            wg.go([&] {
                for (int i = 0; i < 2000; i++) {
                    if (i % 3 == 0) {
                        if (mu.try_lock()) {
                            counter++;
                            tried.fetch_add(1, kRelaxed);
                            mu.unlock();
                        }
                        continue;
                    }
                    mu.lock();
                    counter++;
                    mu.unlock();
                }
            });
        }
        wg.wait();
        CHECK(counter == 10 * 1333 + tried.load(kRelaxed));
        CHECK(at_rest(mu));
    });
}

TEST_CASE("a lock is given up at a deadline and at a stop") {
    over_procs([](int) {
        baton::Mutex mu;
        mu.lock();
        std::error_code ec;
        const auto start = Steady::now();
        CHECK_FALSE(mu.lock(2ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK(Steady::now() - start >= 2ms);
        CHECK_FALSE(mu.try_lock_for(1ms));
        CHECK_FALSE(mu.try_lock_until(Steady::now() + 1ms));
        CHECK_FALSE(mu.try_lock_until(Steady::now() - 1ms));
        CHECK_THROWS_AS(mu.lock(1ms), std::system_error);
        std::stop_source source;
        std::jthread stopper([&] { source.request_stop(); });
        CHECK_FALSE(mu.lock({1h, source.get_token()}, ec));
        CHECK(ec == std::errc::operation_canceled);
        mu.unlock();
        CHECK(at_rest(mu));
        CHECK(mu.lock(source.get_token(), ec)); // what can be had at once is
        CHECK_FALSE(ec);
        mu.unlock();
        std::unique_lock hold(mu, 1h);
        CHECK(hold.owns_lock());
    });
}

TEST_CASE("a starving waiter that gives up leaves the mutex to the others") {
    over_procs([](int) {
        baton::Mutex mu;
        baton::WaitGroup wg;
        std::atomic<int> got{0};
        mu.lock();
        for (int i = 0; i < 4; i++) {
            wg.go([&, i] {
                std::error_code ec;
                // The last one gives up as well: the mutex must not be handed to nobody.
                const auto limit = i % 2 == 0 ? baton::Until(10ms) : baton::Until(1h);
                if (mu.lock(limit, ec)) {
                    got.fetch_add(1, kRelaxed);
                    mu.unlock();
                }
            });
            baton::yield();
        }
        for (int i = 0; i < 30; i++) { // they wake, lose, and starve
            baton::sleep_for(500us);
            mu.unlock();
            mu.lock();
        }
        baton::sleep_for(1ms);
        mu.unlock();
        wg.wait();
        CHECK(got.load(kRelaxed) >= 2);
        CHECK(at_rest(mu));
    });
}

TEST_CASE("locks, tries, deadlines and stops that meet keep the mutex sound") {
    over_procs([](int) {
        baton::Mutex mu;
        bool inside = false;
        long counter = 0;
        std::atomic<long> held{0};
        std::atomic<int> overlaps{0};
        lock_stress::run(30, [&](lock_stress::Random& random, const std::stop_token& token) {
            std::error_code ec;
            const bool got =
                random.below(5) == 0 ? mu.try_lock() : mu.lock(random.limit(token), ec);
            if (!got) {
                if (random.below(4) == 0) baton::yield();
                return;
            }
            overlaps.fetch_add(inside, kRelaxed);
            inside = true;
            counter++;
            held.fetch_add(1, kRelaxed);
            if (random.below(16) == 0) baton::yield();
            if (random.below(64) == 0)
                baton::sleep_for(std::chrono::microseconds(random.below(90)));
            inside = false;
            mu.unlock();
        });
        CHECK(overlaps.load(kRelaxed) == 0);
        CHECK(counter == held.load(kRelaxed));
        CHECK(at_rest(mu));
    });
}

TEST_CASE("who queues as the last holder unlocks is not left behind") {
    // Two that lock once each, at the same time: nobody comes by later who would wake the other.
    over_procs([](int) {
        baton::Mutex mu;
        constexpr int kTurns = 500 * lock_stress::kRounds;
        std::atomic<int> arrived{0};
        baton::WaitGroup wg;
        for (int who = 0; who < 2; who++) {
            wg.go([&] {
                for (int turn = 1; turn <= kTurns; turn++) {
                    arrived.fetch_add(1);
                    for (int spins = 1; arrived.load() < 2 * turn; spins++)
                        if (spins % 1000 == 0) baton::yield();
                    mu.lock();
                    mu.unlock();
                }
            });
        }
        wg.wait();
        CHECK(at_rest(mu));
    });
}

// A mutex is unlocked in another way once somebody has waited for it: nobody is lost in between.
TEST_CASE("the first who ever waits for a mutex is woken") {
    constexpr int kMutexes = 4000;
    constexpr int kGs = 3;
    constexpr int kTimes = 4;
    over_procs([](int) {
        for (int i = 0; i < kMutexes; i++) {
            baton::Mutex mu;
            int held = 0;
            baton::WaitGroup wg;
            for (int g = 0; g < kGs; g++)
                wg.go([&] {
                    for (int n = 0; n < kTimes; n++) {
                        const std::scoped_lock hold(mu);
                        held++;
                        if (n == 1) baton::yield(); // the others queue
                    }
                });
            wg.wait();
            REQUIRE(held == kGs * kTimes);
        }
    });
}

TEST_CASE("Mutex may end as soon as it is unlocked") {
    // Whoever drops the last reference destroys it, though others may not have returned from their
    // unlock. Under ASan a late look at it would show.
    over_procs([](int) {
        struct Shared {
            baton::Mutex mu;
            int references = 0;
        };
        const int rounds = 200 * lock_stress::kRounds;
        for (int round = 0; round < rounds; round++) {
            constexpr int kUsers = 3;
            auto* shared = new Shared;
            shared->references = kUsers;
            baton::WaitGroup wg;
            for (int i = 0; i < kUsers; i++) {
                wg.go([shared] {
                    shared->mu.lock();
                    const bool last = --shared->references == 0;
                    shared->mu.unlock();
                    if (last) delete shared;
                });
            }
            wg.wait();
        }
    });
}
