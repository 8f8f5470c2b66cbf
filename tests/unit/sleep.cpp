// SPDX-License-Identifier: Apache-2.0
//
// Sleeping goroutines and threads: never too short, and not much too long.
// run: tiers
#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <stop_token>
#include <system_error>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "runtime/sched.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using procs_test::over_procs;
using Steady = std::chrono::steady_clock;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

template <class F>
std::chrono::nanoseconds time_of(F&& f) {
    const auto start = Steady::now();
    f();
    return Steady::now() - start;
}

} // namespace

TEST_CASE("a goroutine sleeps at least as long as asked") {
    baton::run([] {
        for (auto d : {1us, 50us, 300us, 1000us, 5000us, 20000us}) {
            const auto slept = time_of([&] { baton::sleep_for(d); });
            CHECK(slept >= d);
            CHECK(slept < d + 500ms);
        }
    });
}

TEST_CASE("sleeps below a millisecond are honoured") {
    baton::run([] {
        auto best = std::chrono::nanoseconds::max();
        for (int i = 0; i < 50; i++)
            best = std::min(best, time_of([] { baton::sleep_for(100us); }));
        CHECK(best < 900us);
    });
}

TEST_CASE("nothing, less than nothing and the past return at once") {
    baton::run([] {
        CHECK(time_of([] {
                  baton::sleep_for(0s);
                  baton::sleep_for(-1h);
                  baton::sleep_for(std::chrono::hours::min());
                  baton::sleep_until(Steady::now() - 1h);
                  baton::sleep_until(std::chrono::system_clock::now() - 1h);
              }) < 500ms);
    });
}

TEST_CASE("deadlines beyond the clock mean for ever") {
    using baton::detail::saturating_deadline_ns;
    CHECK(saturating_deadline_ns(std::chrono::nanoseconds::max()) == INT64_MAX);
    CHECK(saturating_deadline_ns(1h) < INT64_MAX);
    baton::run([] {
        baton::go([] { baton::sleep_for(std::chrono::hours::max()); });
        baton::go([] { baton::sleep_for(std::chrono::duration<double>(1e300)); });
        baton::sleep_for(5ms); // the two do not keep this one from waking
    });
}

namespace {

/// Its zero is far off: differences of its times overflow where the system clock's do not.
using FileClock = std::chrono::file_clock;
template <class Clock, class Duration = typename Clock::duration>
constexpr auto kFirst = std::chrono::time_point<Clock, Duration>::min();
template <class Clock, class Duration = typename Clock::duration>
constexpr auto kLast = std::chrono::time_point<Clock, Duration>::max();

void is_over(const auto& t) {
    const std::int64_t when = baton::Until(t).when_ns();
    CHECK(when <= baton::Until(0s).when_ns());
    std::error_code ec;
    CHECK(baton::sleep_until(t, baton::Until(), ec));
    CHECK_FALSE(ec);
    baton::sleep_until(t, baton::Until());
    baton::sleep_until(t);
}
void never_comes(const auto& t) {
    std::error_code ec;
    CHECK_FALSE(baton::sleep_until(t, 100us, ec));
    CHECK(ec == std::errc::timed_out);
    CHECK_THROWS_AS(baton::sleep_until(t, 100us), std::system_error);
    // Fifty years off, at the least: the system clock can count 236 more.
    CHECK(baton::Until(t).when_ns() > baton::Until(24h * 365 * 50).when_ns());
}

} // namespace

TEST_CASE("the first time of any clock is over, its last never comes") {
    using std::chrono::duration, std::chrono::hours, std::chrono::years;
    using std::chrono::system_clock;
    baton::run([] {
        is_over(kFirst<Steady>);
        is_over(kFirst<Steady, hours>);
        is_over(kFirst<system_clock>);
        is_over(kFirst<system_clock, hours>);
        is_over(kFirst<FileClock>);
        is_over(std::chrono::time_point<system_clock, duration<double>>(duration<double>(-1e300)));
        never_comes(kLast<Steady>);
        never_comes(kLast<Steady, hours>);
        never_comes(kLast<system_clock>);
        never_comes(kLast<system_clock, hours>);
        never_comes(kLast<system_clock, years>);
        never_comes(kLast<FileClock>);
        never_comes(
            std::chrono::time_point<system_clock, duration<double>>(duration<double>(1e300)));
    });
}

TEST_CASE("sleep_until wakes at the time of any clock") {
    baton::run([] {
        const auto steady = Steady::now() + 3ms;
        baton::sleep_until(steady);
        CHECK(Steady::now() >= steady);
        const auto slept =
            time_of([] { baton::sleep_until(std::chrono::system_clock::now() + 3ms); });
        CHECK(slept > 2ms);
    });
}

TEST_CASE("a plain thread sleeps as a thread") {
    CHECK(time_of([] { baton::sleep_for(2ms); }) >= 2ms);
    CHECK(time_of([] { baton::sleep_until(Steady::now() + 2ms); }) >= 1900us);
}

TEST_CASE("sleepers wake in the order of their deadlines") {
    baton::run([] {
        // On a busy machine two may be due by the time the first is seen to.
        for (int round = 0; round < 20; round++) {
            std::atomic<int> turn{0}, out_of_order{0}, late{0};
            baton::WaitGroup wg;
            const auto start = Steady::now() + 20ms;
            for (int i = 9; i >= 0; i--) {
                wg.go([&, i] {
                    baton::sleep_until(start + i * 20ms);
                    if (turn.fetch_add(1, kRelaxed) != i) out_of_order.fetch_add(1, kRelaxed);
                    if (Steady::now() > start + (i + 1) * 20ms) late.fetch_add(1, kRelaxed);
                });
            }
            wg.wait();
            if (late.load(kRelaxed) != 0) continue;
            CHECK(out_of_order.load(kRelaxed) == 0);
            return;
        }
        FAIL("each of twenty rounds was late");
    });
}

TEST_CASE("ten thousand sleepers all wake, none too early") {
    baton::run([] {
        constexpr int kSleepers = 10'000;
        std::atomic<int> early{0};
        std::atomic<int> woken{0};
        baton::WaitGroup wg;
        std::mt19937 random(7);
        for (int i = 0; i < kSleepers; i++) {
            wg.go([&, d = std::chrono::microseconds(random() % 50'000)] {
                const auto slept = time_of([&] { baton::sleep_for(d); });
                if (slept < d) early.fetch_add(1, kRelaxed);
                woken.fetch_add(1, kRelaxed);
            });
        }
        wg.wait();
        CHECK(early.load(kRelaxed) == 0);
        CHECK(woken.load(kRelaxed) == kSleepers);
    });
}

TEST_CASE("a sleeper is not kept waiting by goroutines that yield") {
    baton::run([] {
        std::atomic<bool> stop{false};
        baton::WaitGroup wg;
        for (int i = 0; i < 2 * baton::max_procs(); i++) {
            wg.go([&] {
                while (!stop.load(kRelaxed)) baton::yield();
            });
        }
        CHECK(time_of([] { baton::sleep_for(5ms); }) < 1s);
        stop.store(true, kRelaxed);
        wg.wait();
    });
}

// Who waited in the poll may have left it with a G just as an M with a timer found it taken.
TEST_CASE("a sleeper is not left behind by an M that leaves the poll") {
    baton::run([] {
        baton::set_max_procs(2);
        auto& lastpoll = baton::rt::sched.lastpoll;
        std::atomic<bool> computes = false, awake = false;
        baton::WaitGroup wg;
        wg.go([&] { // on the other processor, and never looks for timers
            computes = true;
            for (const auto end = Steady::now() + 3s; !awake && Steady::now() < end;) {
            }
        });
        while (!computes) {
        }
        const std::int64_t last = lastpoll.exchange(0); // as if somebody waited there
        const auto begin = Steady::now();
        baton::sleep_for(1ms);
        awake = true;
        CHECK(Steady::now() - begin < 2s);
        if (last != 0) lastpoll = last;
        wg.wait();
    });
}

TEST_CASE("sleeps are given up at a deadline and at a stop") {
    over_procs([](int) {
        std::error_code ec;
        std::stop_source source;
        const auto start = Steady::now();
        CHECK(baton::sleep_for(2ms, source.get_token(), ec));
        CHECK(Steady::now() - start >= 2ms);
        CHECK_FALSE(ec);
        baton::sleep_for(1ms, {1h, source.get_token()});
        CHECK_FALSE(baton::sleep_for(1h, 1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_FALSE(baton::sleep_until(Steady::now() + 1h, 1ms, ec));
        CHECK(ec == std::errc::timed_out);
        baton::WaitGroup wg;
        wg.go([token = source.get_token()] {
            try {
                baton::sleep_for(1h, token);
                CHECK(false);
            } catch (const std::system_error& e) {
                CHECK(e.code() == std::errc::operation_canceled);
            }
        });
        baton::sleep_for(1ms);
        source.request_stop();
        wg.wait();
        CHECK_FALSE(baton::sleep_for(1h, source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        CHECK(baton::sleep_for(0s, source.get_token(), ec)); // nothing to wait for
        CHECK_FALSE(ec);
    });
    std::error_code ec;
    CHECK_FALSE(baton::sleep_for(1h, 1ms, ec)); // a plain thread
    CHECK(ec == std::errc::timed_out);
    CHECK(baton::sleep_for(1ms, 1h, ec));
}
