// SPDX-License-Identifier: Apache-2.0
//
// Once, OnceFunc and OnceValue.
// run: tiers
#include "baton/once.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Once;
using baton::OnceFunc;
using baton::OnceValue;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("a Once calls once, and nobody goes on before that has returned") {
    // The reference's TestOnce.
    over_procs([](int) {
        for (int round = 0; round < 50; round++) {
            Once once;
            int value = 0;
            std::atomic<int> early{0};
            baton::WaitGroup wg;
            const auto one = [&] {
                once.call([&] {
                    baton::yield();
                    value++;
                });
                if (value != 1) early.fetch_add(1, kRelaxed);
            };
            CHECK_FALSE(once.done());
            for (int i = 0; i < 10; i++) wg.go(one);
            std::jthread thread(one);
            wg.wait();
            baton::blocking([&] { thread.join(); });
            CHECK(early.load(kRelaxed) == 0);
            CHECK(once.done());
        }
    });
}

TEST_CASE("a call that throws leaves it to the next") {
    // As std::call_once; the reference's Once counts a panic as done.
    over_procs([](int) {
        Once once;
        std::atomic<int> calls{0};
        std::atomic<int> thrown{0};
        baton::WaitGroup wg;
        for (int i = 0; i < 10; i++) {
            wg.go([&] {
                try {
                    once.call([&] {
                        const int n = calls.fetch_add(1, kRelaxed);
                        baton::yield();
                        if (n < 3) throw std::runtime_error("not yet");
                    });
                } catch (const std::runtime_error&) {
                    thrown.fetch_add(1, kRelaxed);
                }
            });
        }
        wg.wait();
        CHECK(calls.load(kRelaxed) == 4);
        CHECK(thrown.load(kRelaxed) == 3);
        CHECK(once.done());
    });
}

TEST_CASE("waiting for another's call can be given up, the call cannot") {
    over_procs([](int) {
        Once once;
        baton::Chan<bool> go_on;
        baton::WaitGroup wg;
        std::atomic<bool> running{false};
        wg.go([&] {
            once.call([&] {
                running.store(true, kRelaxed);
                (void)go_on.recv();
            });
        });
        while (!running.load(kRelaxed)) baton::yield();
        std::error_code ec;
        const auto never = [] { FAIL("a second call"); };
        CHECK_FALSE(once.call(never, 1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(once.call(never, 1ms), std::system_error);
        std::stop_source source;
        std::jthread stopper([&] { source.request_stop(); });
        CHECK_FALSE(once.call(never, source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        go_on.send(true);
        wg.wait();
        CHECK(once.call(never, source.get_token(), ec));
        CHECK_FALSE(ec);
        once.call(never, -1s);
    });
}

TEST_CASE("calls, failures, deadlines and stops that meet lose nobody") {
    over_procs([](int) {
        lock_stress::run(3, [](lock_stress::Random& random, const std::stop_token& token) {
            Once once; // ends when all have gone on
            std::atomic<int> calls{0};
            baton::WaitGroup wg;
            for (int i = 0; i < 3; i++) {
                wg.go([&, until = random.limit(token), fails = random.below(2) == 0] {
                    std::error_code ec;
                    try {
                        (void)once.call(
                            [&] {
                                baton::yield();
                                if (fails) throw 1;
                                calls.fetch_add(1, kRelaxed);
                            },
                            until, ec);
                    } catch (int) {
                    }
                });
            }
            wg.wait();
            if (calls.load(kRelaxed) > 1) FAIL("called twice");
            once.call([] {}); // nobody is left who says that a call is going on
        });
    });
}

TEST_CASE("OnceFunc calls its function once and drops it") {
    // The reference's TestOnceFunc and TestOnceFuncGC.
    baton::run([] {
        const auto held = std::make_shared<int>(0);
        OnceFunc f([held] { ++*held; });
        CHECK(held.use_count() == 2);
        f();
        f();
        CHECK(*held == 1);
        CHECK(held.use_count() == 1);
    });
}

TEST_CASE("OnceFunc and OnceValue throw the same each time") {
    // The reference's TestOnceFuncPanic.
    baton::run([] {
        int calls = 0;
        OnceFunc f([&] {
            calls++;
            throw std::runtime_error("x");
        });
        OnceValue v([&]() -> int {
            calls++;
            throw std::runtime_error("y");
        });
        for (int i = 0; i < 2; i++) {
            CHECK_THROWS_WITH(f(), "x");
            CHECK_THROWS_WITH((void)v(), "y");
        }
        CHECK(calls == 2);
    });
}

TEST_CASE("OnceValue gives everybody the one value") {
    over_procs([](int) {
        std::atomic<int> calls{0};
        OnceValue value([&] { return std::make_unique<int>(calls.fetch_add(1, kRelaxed) + 7); });
        std::atomic<const int*> first{nullptr};
        std::atomic<int> others{0};
        baton::WaitGroup wg;
        for (int i = 0; i < 20; i++) {
            wg.go([&] {
                const int* it = value().get();
                const int* nothing = nullptr;
                if (!first.compare_exchange_strong(nothing, it) && nothing != it) others++;
            });
        }
        wg.wait();
        CHECK(calls.load(kRelaxed) == 1);
        CHECK(others.load(kRelaxed) == 0);
        CHECK(*value() == 7);
    });
}

TEST_CASE("waiting for a OnceFunc's or a OnceValue's call elsewhere can be given up") {
    over_procs([](int) {
        baton::Latch begun(2), go_on(1);
        const auto slowly = [&] {
            begun.count_down();
            go_on.wait();
        };
        OnceFunc f(slowly);
        OnceValue v([&] {
            slowly();
            return 7;
        });
        baton::WaitGroup wg;
        wg.go([&] { f(); });
        wg.go([&] { CHECK(v() == 7); });
        begun.wait();
        std::error_code ec;
        std::stop_source stop;
        stop.request_stop();
        CHECK_FALSE(f(1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK(v(stop.get_token(), ec) == nullptr);
        CHECK(ec == std::errc::operation_canceled);
        CHECK_THROWS_AS(f(stop.get_token()), std::system_error);
        CHECK_THROWS_AS((void)v(1ms), std::system_error);
        go_on.count_down();
        CHECK(f(20s, ec));
        CHECK(*v(20s, ec) == 7);
        CHECK_FALSE(ec);
        f(20s);
        CHECK(v(20s) == 7);
        wg.wait();
    });
}
