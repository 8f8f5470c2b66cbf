// SPDX-License-Identifier: Apache-2.0
//
// WaitGroup.
// run: tiers
#include "baton/sync.hpp"

#include <atomic>
#include <chrono>
#include <stop_token>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/time.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
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

TEST_CASE("WaitGroup::wait gives up at a deadline and at a stop, and the counter stands") {
    over_procs([](int) {
        baton::WaitGroup wg;
        std::error_code ec;
        wg.add(2);
        CHECK_FALSE(wg.wait(1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(wg.wait(std::chrono::steady_clock::now() + 1ms), std::system_error);
        std::stop_source source;
        baton::WaitGroup stopper;
        stopper.go([&] {
            baton::sleep_for(1ms);
            source.request_stop();
        });
        CHECK_FALSE(wg.wait({1h, source.get_token()}, ec));
        CHECK(ec == std::errc::operation_canceled);
        stopper.wait();
        wg.done();
        CHECK_FALSE(wg.wait(source.get_token(), ec));
        wg.done();
        CHECK(wg.wait(source.get_token(), ec)); // what can be had at once is
        CHECK_FALSE(ec);
        CHECK(lock_stress::as_new(wg));
    });
}

TEST_CASE("WaitGroup waits that are given up as the last one is done lose nobody") {
    over_procs([](int) {
        lock_stress::run(10, [](lock_stress::Random& random, const std::stop_token& token) {
            baton::WaitGroup wg; // ends as soon as its last wait has returned
            wg.add(1);
            baton::go([&wg, pause = random.below(100)] {
                if (pause % 4 != 0) baton::sleep_for(std::chrono::microseconds(pause));
                wg.done();
            });
            std::error_code ec;
            (void)wg.wait(random.limit(token), ec);
            wg.wait();
        });
    });
}

TEST_CASE("WaitGroup: many waiters give up while others stay") {
    over_procs([](int) {
        for (int round = 0; round < lock_stress::kRounds; round++) {
            baton::WaitGroup work;
            baton::WaitGroup waiters;
            std::atomic<int> woken{0};
            std::atomic<int> gone{0};
            work.add(1);
            for (int i = 0; i < 40; i++) {
                waiters.go([&, i] {
                    std::error_code ec;
                    if (i % 2 == 0) {
                        work.wait();
                        woken.fetch_add(1, kRelaxed);
                    } else if (!work.wait(std::chrono::microseconds(i), ec)) {
                        gone.fetch_add(1, kRelaxed);
                    }
                });
            }
            while (gone.load(kRelaxed) < 20) baton::yield();
            CHECK(woken.load(kRelaxed) == 0);
            work.done();
            waiters.wait();
            CHECK(woken.load(kRelaxed) == 20);
        }
    });
}
