// SPDX-License-Identifier: Apache-2.0
//
// WaitGroup and Mutex, and the semaphores under them.
// run: tiers
#include "baton/sync.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/time.hpp"
#include "runtime/sema.hpp"

namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("WaitGroup waits for all of its goroutines") {
    baton::run([] {
        for (int n : {0, 1, 2, 100, 3000}) {
            baton::WaitGroup wg;
            int plain = 0; // TSan would see a missing edge between done and wait
            std::atomic<int> ran{0};
            for (int i = 0; i < n; i++) {
                wg.go([&] { ran.fetch_add(1, kRelaxed); });
            }
            if (n == 1) wg.go([&] { plain = 7; });
            wg.wait();
            CHECK(ran.load(kRelaxed) == n);
            CHECK(plain == (n == 1 ? 7 : 0));
            wg.wait(); // zero already
        }
    });
}

TEST_CASE("WaitGroup wakes every waiter and can be used again") {
    baton::run([] {
        baton::WaitGroup work;
        for (int round = 0; round < 20; round++) {
            baton::WaitGroup waiters;
            std::atomic<int> early{0};
            std::atomic<bool> done{false};
            work.add(2);
            for (int i = 0; i < 10; i++) {
                waiters.go([&] {
                    work.wait();
                    if (!done.load(kRelaxed)) early.fetch_add(1, kRelaxed);
                });
            }
            baton::yield();
            work.done();
            done.store(true, kRelaxed);
            work.done();
            waiters.wait();
            CHECK(early.load(kRelaxed) == 0);
        }
    });
}

TEST_CASE("WaitGroup counts down from plain threads") {
    baton::run([] {
        for (int i = 0; i < 20; i++) {
            baton::WaitGroup wg;
            wg.add(2);
            std::thread a([&] { wg.done(); });
            std::thread b([&] { wg.done(); });
            wg.wait();
            baton::blocking([&] {
                a.join();
                b.join();
            });
        }
    });
}

TEST_CASE("WaitGroup on a stack frame may end as soon as wait returns") {
    baton::run([] {
        for (int i = 0; i < 20'000; i++) {
            baton::WaitGroup wg;
            wg.go([] {});
            if (i % 3 == 0) baton::yield();
            wg.wait();
        }
    });
}

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

TEST_CASE("semaphores: many addresses, no wake-up is lost, no count made up") {
    baton::run([] {
        using baton::rt::semacquire;
        using baton::rt::semrelease;
        constexpr std::size_t kSemas = 600; // more than there are buckets
        std::deque<std::atomic<std::uint32_t>> semas(kSemas);
        baton::WaitGroup wg;
        for (std::size_t i = 0; i < kSemas; i++) {
            for (int n = 0; n < 3; n++) {
                wg.go([&, i, n] {
                    for (int k = 0; k < 20; k++)
                        semacquire(&semas[i], n == 1, baton::rt::WaitReason::kSemacquire);
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
