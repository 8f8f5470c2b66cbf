// SPDX-License-Identifier: Apache-2.0
//
// ConditionVariable and Cond.
// run: tiers
#include "baton/cond.hpp"

#include <atomic>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <stop_token>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Cond;
using baton::ConditionVariable;
using baton::Mutex;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("each signal wakes one, and one that waits") {
    // The reference's TestCondSignal.
    over_procs([](int) {
        Mutex mu;
        Cond cond(mu);
        constexpr int kN = 6;
        baton::Chan<bool> running(kN);
        baton::Chan<bool> awake(kN);
        for (int i = 0; i < kN; i++) {
            baton::go([&, running, awake] {
                std::scoped_lock hold(mu);
                running.send(true);
                cond.wait();
                awake.send(true);
            });
        }
        for (int i = 0; i < kN; i++) (void)running.recv();
        for (int n = kN; n > 0; n--) {
            CHECK_FALSE(awake.try_recv());
            {
                std::scoped_lock hold(mu);
                cond.signal();
            }
            (void)awake.recv(); // hangs if nobody woke
        }
        CHECK_FALSE(awake.try_recv());
        std::scoped_lock hold(mu); // the last has gone
        cond.signal();
    });
}

TEST_CASE("those that wait are signalled in their order") {
    // The reference's TestCondSignalGenerations.
    over_procs([](int) {
        Mutex mu;
        Cond cond(mu);
        constexpr int kN = 100;
        baton::Chan<bool> running(kN);
        baton::Chan<int> awake(kN);
        for (int i = 0; i < kN; i++) {
            baton::go([&, running, awake, i] {
                std::scoped_lock hold(mu);
                running.send(true);
                cond.wait();
                awake.send(i);
            });
            if (i > 0) CHECK(awake.recv() == i - 1);
            (void)running.recv();
            std::scoped_lock hold(mu);
            cond.signal();
        }
        CHECK(awake.recv() == kN - 1);
    });
}

TEST_CASE("a broadcast wakes all that wait and none that come later") {
    // The reference's TestCondBroadcast.
    over_procs([](int) {
        Mutex mu;
        Cond cond(mu);
        constexpr int kN = 50;
        baton::Chan<int> running(kN);
        baton::Chan<int> awake(kN);
        bool exit = false;
        baton::WaitGroup wg;
        for (int i = 0; i < kN; i++) {
            wg.go([&, running, awake, i] {
                std::scoped_lock hold(mu);
                while (!exit) {
                    running.send(i);
                    cond.wait();
                    awake.send(i);
                }
            });
        }
        for (int round = 0; round < 10; round++) {
            for (int i = 0; i < kN; i++) (void)running.recv();
            std::scoped_lock hold(mu);
            CHECK_FALSE(awake.try_recv());
            exit = round == 9;
            cond.broadcast();
            mu.unlock();
            std::vector<int> seen(kN);
            for (int i = 0; i < kN; i++) seen[static_cast<std::size_t>(*awake.recv())]++;
            for (const int n : seen) CHECK(n == 1);
            mu.lock();
        }
        wg.wait();
        CHECK_FALSE(running.try_recv());
    });
}

TEST_CASE("signals are not stolen by who has been signalled already") {
    // The reference's TestCondSignalStealing.
    over_procs([](int) {
        for (int round = 0; round < 200; round++) {
            Mutex mu;
            Cond cond(mu);
            baton::Chan<bool> ch(1);
            baton::WaitGroup wg;
            wg.go([&, ch] {
                mu.lock();
                ch.send(true);
                cond.wait();
                mu.unlock();
                ch.send(true);
            });
            (void)ch.recv();
            mu.lock();
            mu.unlock();
            bool done = false;
            wg.go([&] {
                mu.lock();
                while (!done) cond.wait();
                mu.unlock();
            });
            cond.signal();
            (void)ch.recv();
            // The first has been woken, so whatever comes now is the second's.
            mu.lock();
            done = true;
            mu.unlock();
            cond.signal();
            wg.wait();
        }
    });
}

TEST_CASE("three that hand a turn around lose none") {
    // The reference's TestCondRace.
    over_procs([](int) {
        Mutex mu;
        Cond cond(mu);
        int x = 0;
        baton::WaitGroup wg;
        wg.go([&] {
            std::scoped_lock hold(mu);
            x = 1;
            cond.wait();
            CHECK(x == 2);
            x = 3;
            cond.signal();
        });
        wg.go([&] {
            for (;;) {
                std::unique_lock hold(mu);
                if (x == 1) {
                    x = 2;
                    cond.signal();
                    return;
                }
                hold.unlock();
                baton::yield();
            }
        });
        wg.go([&] {
            for (;;) {
                std::unique_lock hold(mu);
                if (x == 2) {
                    cond.wait();
                    CHECK(x == 3);
                    return;
                }
                if (x == 3) return;
                hold.unlock();
                baton::yield();
            }
        });
        wg.wait();
    });
}

TEST_CASE("a wait parks the goroutine, not the thread") {
    baton::run([] {
        baton::set_max_procs(1);
        Mutex mu;
        ConditionVariable ready;
        bool set = false;
        baton::go([&] { // runs only if the other gives its processor up
            std::scoped_lock hold(mu);
            set = true;
            ready.notify_one();
        });
        std::unique_lock hold(mu);
        ready.wait(hold, [&] { return set; });
        CHECK(hold.owns_lock());
    });
}

TEST_CASE("the standard's timed waits, with any lock") {
    over_procs([](int) {
        Mutex mu;
        baton::RWMutex rw;
        ConditionVariable cv;
        std::unique_lock hold(mu);
        std::shared_lock reads(rw);
        CHECK(cv.wait_for(hold, 1ms) == std::cv_status::timeout);
        CHECK(cv.wait_for(reads, 1ms) == std::cv_status::timeout);
        CHECK(reads.owns_lock());
        CHECK(cv.wait_until(mu, std::chrono::system_clock::now() + 1ms) == std::cv_status::timeout);
        CHECK_FALSE(cv.wait_for(hold, 1ms, [] { return false; }));
        CHECK(cv.wait_for(hold, -1ms, [] { return true; }));
        CHECK_FALSE(
            cv.wait_until(hold, std::chrono::steady_clock::now() + 1ms, [] { return false; }));
        std::error_code ec;
        CHECK_FALSE(cv.wait(hold, 1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(cv.wait(hold, 1ms), std::system_error);
        CHECK(hold.owns_lock());
        // None of them is still counted on: this one wakes the one that waits.
        bool set = false;
        baton::WaitGroup wg;
        wg.go([&] {
            std::unique_lock other(mu);
            cv.wait(other, 1h, [&] { return set; });
        });
        hold.unlock();
        baton::sleep_for(1ms);
        hold.lock();
        set = true;
        cv.notify_one();
        hold.unlock();
        wg.wait();
        CHECK(lock_stress::as_new(cv));
    });
}

TEST_CASE("a stop ends a wait, before it or while it waits") {
    over_procs([](int) {
        Mutex mu;
        ConditionVariable cv;
        std::stop_source source;
        baton::WaitGroup wg;
        for (int i = 0; i < 10; i++) {
            wg.go([&, token = source.get_token()] {
                std::unique_lock hold(mu);
                CHECK_FALSE(cv.wait(hold, token, [] { return false; }));
                CHECK_FALSE(cv.wait_for(hold, token, 1h, [] { return false; }));
                CHECK_FALSE(cv.wait_until(hold, token, std::chrono::steady_clock::now() + 1h,
                                          [] { return false; }));
                CHECK(cv.wait(hold, token, [] { return true; }));
                CHECK(hold.owns_lock());
            });
        }
        baton::sleep_for(1ms);
        source.request_stop();
        wg.wait();
        CHECK(lock_stress::as_new(cv));
    });
}

TEST_CASE("plain threads and goroutines wait for each other") {
    over_procs([](int) {
        Mutex mu;
        ConditionVariable turn;
        int whose = 0;
        const auto play = [&](int me) {
            for (int i = 0; i < 200; i++) {
                std::unique_lock hold(mu);
                turn.wait(hold, [&] { return whose == me; });
                whose = (whose + 1) % 3;
                turn.notify_all();
            }
        };
        baton::WaitGroup wg;
        wg.go(play, 0);
        wg.go(play, 1);
        std::jthread thread(play, 2);
        wg.wait();
        baton::blocking([&] { thread.join(); });
    });
}

TEST_CASE("a notification is not spent on who gives up at that moment") {
    // A queue of tokens: a consumer that was notified and lost, or one that gave up although it was
    // notified, would leave a token with consumers that wait.
    over_procs([](int) {
        Mutex mu;
        ConditionVariable cv;
        int tokens = 0;
        std::atomic<int> taken{0};
        lock_stress::run(20, [&](lock_stress::Random& random, const std::stop_token& token) {
            {
                std::unique_lock hold(mu);
                tokens++;
                cv.notify_one(); // with the lock or without
            }
            if (random.below(8) == 0) baton::yield();
            std::unique_lock hold(mu);
            while (!cv.wait(hold, random.limit(token), [&] { return tokens > 0; })) {
            }
            tokens--;
            taken.fetch_add(1, kRelaxed);
        });
        CHECK(tokens == 0);
        CHECK(taken.load(kRelaxed) ==
              lock_stress::kRounds * 20 * (lock_stress::kGs + lock_stress::kThreads));
        CHECK(lock_stress::as_new(cv));
    });
}

TEST_CASE("each notification reaches one that does not give up") {
    // Half of those that wait give up as the notifications come; there are as many as stay.
    over_procs([](int) {
        for (int round = 0; round < 2 * lock_stress::kRounds; round++) {
            Mutex mu;
            ConditionVariable cv;
            baton::WaitGroup wg;
            std::atomic<int> notified{0};
            std::atomic<int> given_up{0};
            for (int i = 0; i < 20; i++) {
                wg.go([&, i] {
                    std::unique_lock hold(mu);
                    std::error_code ec;
                    const auto limit = i % 2 == 0 ? baton::Until() : baton::Until(1us * i);
                    (cv.wait(hold, limit, ec) ? notified : given_up).fetch_add(1, kRelaxed);
                });
            }
            // As long as somebody stays, each of these either wakes one or finds all have gone.
            while (notified.load(kRelaxed) + given_up.load(kRelaxed) < 20) {
                {
                    std::scoped_lock hold(mu);
                    cv.notify_one();
                }
                baton::yield();
            }
            wg.wait();
            CHECK(notified.load(kRelaxed) >= 10);
            CHECK(lock_stress::as_new(cv));
        }
    });
}
