// SPDX-License-Identifier: Apache-2.0
//
// Timer, Ticker, after and after_func: what the reference's tests of package time ask for.
// run: tiers
#include "baton/timer.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "kernel/build.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::after;
using baton::after_func;
using baton::Chan;
using baton::Ticker;
using baton::Timer;
using procs_test::over_procs;
using Steady = std::chrono::steady_clock;
using TimeChan = baton::RecvChan<Steady::time_point>;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;
#if defined(BATON_TSAN) || defined(BATON_ASAN)
constexpr bool kSlow = true;
#else
constexpr bool kSlow = false;
#endif

/// No value for a while.
bool silent(const TimeChan& c, std::chrono::nanoseconds d = 5ms) {
    std::error_code ec;
    return !c.try_recv() && !c.recv(d, ec) && ec == std::errc::timed_out;
}

/// Until the timer has fired, whose value nobody takes: nothing shows that but the time.
void let_fire() { baton::sleep_for(5ms); }

} // namespace

TEST_CASE("a timer sends one value, not before its time, which is the value") {
    over_procs([](int) {
        for (auto d : {0us, -5us, 300us, 3000us}) {
            const auto start = Steady::now();
            Timer t(d);
            const auto sent = t.chan().recv();
            const auto end = Steady::now();
            REQUIRE(sent);
            CHECK(*sent >= start + std::max(d, 0us));
            CHECK(*sent <= end);
            CHECK(silent(t.chan(), 1ms));
            CHECK_FALSE(t.stop());
        }
        const auto at = Steady::now() + 2ms;
        Timer t(at);
        CHECK(*t.chan().recv() >= at);
        CHECK(*after(std::chrono::system_clock::now() + 1ms).recv() >= at);
    });
}

TEST_CASE("a stopped timer does not fire, and stop says whether it was it") {
    // The reference's TestStopTimer and the first half of TestChan.
    over_procs([](int) {
        Timer t(3ms);
        CHECK(t.stop());
        CHECK_FALSE(t.stop());
        CHECK(silent(t.chan(), 6ms));
        Timer received(0ms);
        CHECK(received.chan().recv());
        CHECK_FALSE(received.stop());
        Timer far(1h);
        CHECK(far.stop());
    });
}

TEST_CASE("after stop and reset no value of before is ever received") {
    // The reference's TestChan and TestTimerReset: the timer has fired, nobody has looked.
    over_procs([](int) {
        Timer t(1ms);
        let_fire();
        CHECK(t.chan().size() == 0);
        CHECK(t.chan().capacity() == 0);
        CHECK(t.stop());
        CHECK(silent(t.chan()));
        CHECK_FALSE(t.reset(1ms));
        let_fire();
        CHECK(t.reset(1h)); // it was running: its value had not been taken
        CHECK(silent(t.chan()));
        CHECK(t.reset(1ms));
        const auto before = Steady::now();
        CHECK(*t.chan().recv() + 1h > before);
        CHECK_FALSE(t.reset(0ms));
        let_fire();
        const auto asked = Steady::now();
        t.reset(2ms);
        CHECK(*t.chan().recv() >= asked + 2ms); // and not the value of the first
        CHECK(silent(t.chan(), 1ms));
    });
}

TEST_CASE("where a receive, a stop and the firing meet, exactly one side has the value") {
    // Receivers and stops meet firings: for each timer exactly one of them has it.
    over_procs([](int) {
        for (int i = 0; i < 300; i++) {
            Timer t(std::chrono::microseconds(i % 7 * 20));
            std::atomic<int> got{0};
            baton::WaitGroup wg;
            wg.go([&, c = t.chan()] {
                std::error_code ec;
                while (!c.recv(2ms, ec)) {
                    if (ec) return;
                }
                got.fetch_add(1, kRelaxed);
            });
            std::atomic<int> stopped{0};
            wg.go([&] {
                if (i % 3 != 0) baton::sleep_for(50us);
                if (t.stop()) stopped.fetch_add(1, kRelaxed);
            });
            wg.wait();
            CHECK(got.load(kRelaxed) + stopped.load(kRelaxed) == 1);
        }
    });
}

TEST_CASE("resets that meet firings never let a value of before through") {
    over_procs([](int) {
        Timer t(10us);
        for (int i = 0; i < 1000; i++) {
            if (i % 4 == 0) baton::sleep_for(20us);
            const auto asked = Steady::now();
            t.reset(30us);
            std::error_code ec;
            const auto sent = t.chan().recv(i % 2 == 0 ? 10us : 10s, ec);
            if (sent) CHECK(*sent >= asked + 30us);
            if (i % 2 != 0) CHECK(sent);
        }
    });
}

TEST_CASE("a timer moved up fires early, one moved back late") {
    // The reference's TestTimerModifiedEarlier: while the poller sleeps for the late one.
    over_procs([](int) {
        for (int i = 0; i < 10; i++) {
            Timer late(std::chrono::hours::max());
            Timer t(10s);
            if (i % 2 == 0) baton::sleep_for(1ms);
            const auto start = Steady::now();
            CHECK(t.reset(1ms));
            CHECK(t.chan().recv());
            CHECK(Steady::now() - start < 9s);
        }
        Timer t(1ms);
        CHECK(t.reset(20ms));
        const auto start = Steady::now();
        CHECK(*t.chan().recv() - start > 15ms);
    });
}

TEST_CASE("durations beyond the clock never come, those of the past at once") {
    // The reference's TestOverflowSleep.
    over_procs([](int) {
        Timer big(std::chrono::nanoseconds::max());
        Timer bigger(std::chrono::hours::max());
        Timer neither(std::chrono::duration<double>(1e300));
        Ticker slow(std::chrono::hours::max());
        const auto past = after(std::chrono::nanoseconds::min());
        CHECK(past.recv());
        CHECK(silent(big.chan()));
        CHECK(silent(slow.chan(), 1ms));
        CHECK(big.stop());
        CHECK(bigger.reset(std::chrono::hours::min()));
        CHECK(bigger.chan().recv());
        slow.reset(std::chrono::nanoseconds::max());
        slow.reset(1ms);
        CHECK(slow.chan().recv());
    });
}

TEST_CASE("timers made in any order fire in that of their times") {
    // The reference's TestAfterTick and TestAfterQueuing. On a busy machine two may be due by the
    // time the first is seen to, so the times sent are looked at.
    over_procs([](int) {
        const std::vector<int> slots{5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0};
        struct Got {
            int slot;
            Steady::time_point sent;
        };
        Chan<Got> got(slots.size());
        const auto start = Steady::now();
        for (int slot : slots)
            baton::go([=] { got.send({slot, *after(start + slot * 4ms).recv()}); });
        std::vector<Steady::time_point> first(10, Steady::time_point::max());
        for (std::size_t i = 0; i < slots.size(); i++) {
            const Got g = got.recv().value();
            CHECK(g.sent >= start + g.slot * 4ms);
            auto& f = first[static_cast<std::size_t>(g.slot)];
            f = std::min(f, g.sent);
        }
    });
}

TEST_CASE("after_func runs in goroutines of its own, again after a reset, never after a stop") {
    // The reference's TestAfterFunc and TestStopTimer.
    over_procs([](int) {
        // A chain, each link set off by the one before.
        struct Chain {
            std::atomic<int> left{10};
            std::optional<Timer> timer;
            Chan<int> done;
        };
        auto chain = std::make_shared<Chain>();
        chain->timer.emplace(after_func(1h, [chain] {
            CHECK(baton::goid() != 0);
            if (chain->left.fetch_sub(1, kRelaxed) > 1) {
                chain->timer->reset(500us);
            } else {
                chain->done.send(1);
            }
        }));
        chain->timer->reset(0ms);
        CHECK(chain->done.recv(20s) == 1);
        chain->timer.reset(); // which holds the chain, which holds it

        std::atomic<int> runs{0};
        Timer t = after_func(1h, [&] { runs.fetch_add(1); });
        CHECK(t.stop());
        CHECK_FALSE(t.stop());
        CHECK_FALSE(t.reset(0ms));
        while (runs.load() == 0) baton::yield();
        CHECK_FALSE(t.stop());
        CHECK(silent(t.chan(), 1ms)); // Go's nil channel
        CHECK_FALSE(t.reset(1ms));
        CHECK(t.stop());
        baton::sleep_for(4ms);
        CHECK(runs.load() == 1);
    });
}

TEST_CASE("a function goes with its timer, or is let be") {
    over_procs([](int) {
        auto held = std::make_shared<int>(1);
        std::weak_ptr<int> weak = held;
        {
            const Timer t = after_func(1h, [held] {});
        }
        held.reset();
        CHECK(weak.expired()); // stopped and destroyed with the handle

        Chan<int> done(1);
        after_func(1ms, [done] { done.send(1); }).detach();
        CHECK(done.recv(20s) == 1);

        held = std::make_shared<int>(2);
        weak = held;
        Timer t = after_func(0ms, [held = std::move(held), done] { done.send(*held); });
        CHECK(done.recv(20s) == 2);
        t = after_func(0ms, [done] { done.send(3); }); // ends the other
        while (!weak.expired()) baton::yield();        // once its goroutine has ended
        CHECK(done.recv(20s) == 3);
        CHECK_FALSE(t.stop());

        Timer moved = std::move(t);
        CHECK_FALSE(t.stop()); // NOLINT(bugprone-use-after-move): that is the test
        CHECK_FALSE(moved.reset(0ms));
        CHECK(done.recv(20s) == 3);
        Timer a(1ms);
        Timer b = std::move(a);
        CHECK_THROWS_AS(a.reset(1ms), std::logic_error); // NOLINT(bugprone-use-after-move): too
        CHECK(b.chan().recv());
    });
}

TEST_CASE(
    "a channel that outlives its timer stays silent, a timer that outlives its channel ends") {
    over_procs([](int) {
        auto t = std::make_unique<Timer>(1ms);
        const TimeChan c = t->chan();
        t.reset();
        CHECK(silent(c));
        for (int i = 0; i < 1000; i++) (void)after(1h);
        for (int i = 0; i < 1000; i++) (void)after(0ms); // may be firing
        CHECK(after(1ms).recv());
    });
}

TEST_CASE("a ticker ticks at its period, and leaves out what is not received") {
    // The reference's TestTicker.
    over_procs([](int) {
        const auto start = Steady::now();
        Ticker t(2ms);
        auto last = start;
        for (int i = 1; i <= 10; i++) {
            const auto tick = *t.chan().recv();
            CHECK(tick >= start + i * 2ms);
            CHECK(tick > last);
            last = tick;
        }
        // Whoever comes late gets one at once, which is old, and the next at its time.
        baton::sleep_for(20ms);
        CHECK(t.chan().size() == 0);
        const auto woken = Steady::now();
        CHECK(*t.chan().recv() < woken);
        CHECK(*t.chan().recv() > last + 4ms);
        t.stop();
        CHECK(silent(t.chan()));
    });
}

TEST_CASE("a ticker takes another period, and stops without a last tick") {
    // The reference's TestTickerReset and TestTickerStopWithDirectInitialization.
    over_procs([](int) {
        Ticker t(1h);
        auto start = Steady::now();
        t.reset(2ms);
        for (int i = 1; i <= 5; i++) CHECK(*t.chan().recv() >= start + i * 2ms);
        let_fire();
        start = Steady::now();
        t.reset(3ms);
        CHECK(*t.chan().recv() >= start + 3ms);
        let_fire();
        t.stop();
        CHECK(silent(t.chan(), 8ms));
        t.reset(1ms);
        CHECK(t.chan().recv());
        Ticker other(1ms);
        t = std::move(other);
        CHECK(t.chan().recv());
        CHECK_THROWS_AS(Ticker(0ms), std::invalid_argument);
        CHECK_THROWS_AS(Ticker(-1ns), std::invalid_argument);
        CHECK_THROWS_AS(t.reset(0s), std::invalid_argument);
    });
}

TEST_CASE("timers by the hundred thousand are set and stopped, again and again") {
    over_procs([](int procs) {
        const std::size_t n = procs == 2 && !kSlow ? 200'000 : 20'000;
        std::vector<Timer> timers;
        timers.reserve(n);
        for (int round = 0; round < 3; round++) {
            for (std::size_t i = 0; i < n; i++)
                timers.emplace_back(1h + std::chrono::microseconds(i * 7919 % n));
            std::size_t stopped = 0;
            for (Timer& t : timers) stopped += t.stop() ? 1 : 0;
            CHECK(stopped == n);
            timers.clear();
        }
        CHECK(after(1ms).recv());
    });
}

TEST_CASE("starts, stops and resets from everywhere leave a timer that works") {
    // The reference's TestTimerStopStress, TestAfterStress and TestStopResetResult.
    over_procs([](int) {
        constexpr int kTimers = 50;
        std::vector<Timer> timers;
        for (int i = 0; i < kTimers; i++) timers.emplace_back(std::chrono::microseconds(i));
        std::atomic<bool> stop{false};
        const auto shake = [&](unsigned seed) {
            for (unsigned i = seed; !stop.load(kRelaxed); i = i * 1664525 + 1013904223) {
                Timer& t = timers[(i >> 8) % kTimers];
                switch ((i >> 16) % 4) {
                case 0:
                    t.stop();
                    break;
                case 1:
                    (void)t.chan().try_recv();
                    break;
                default:
                    t.reset(std::chrono::microseconds((i >> 20) % 200));
                }
            }
        };
        std::thread plain([&] { shake(99); });
        baton::WaitGroup wg;
        for (unsigned g = 0; g < 4; g++) {
            wg.go([&, g] { shake(g); });
        }
        baton::sleep_for(50ms);
        stop.store(true, kRelaxed);
        wg.wait();
        plain.join();
        for (Timer& t : timers) {
            t.reset(1h);
            CHECK_FALSE(t.chan().try_recv());
            CHECK(t.reset(0ms));
            CHECK(t.chan().recv(20s));
            CHECK_FALSE(t.stop());
        }
    });
}

TEST_CASE("stop of a call either keeps it from running or tells that it runs") {
    // The reference's TestTimerStopStress.
    over_procs([](int) {
        for (int round = 0; round < 300; round++) {
            std::atomic<int> runs{0};
            Timer t = after_func(std::chrono::microseconds(round % 50), [&] { runs.fetch_add(1); });
            if (round % 3 == 0) baton::yield();
            if (round % 3 == 1) baton::sleep_for(30us);
            if (t.stop()) {
                if (round % 10 == 0) baton::sleep_for(200us);
                CHECK(runs.load() == 0);
            } else {
                while (runs.load() == 0) baton::yield();
            }
        }
    });
}

TEST_CASE("many tickers at once keep their periods while goroutines compute") {
    // The reference's ParallelTimerLatency, as a fact: each of them ticks on.
    over_procs([](int) {
        std::atomic<bool> stop{false};
        baton::WaitGroup hogs;
        hogs.go([&] {
            while (!stop.load(kRelaxed)) {
#if defined(BATON_TSAN)
                baton::yield(); // its signals wait for a call
#endif
            }
        });
        baton::WaitGroup wg;
        for (int i = 0; i < 20; i++) {
            wg.go([i] {
                Ticker t(std::chrono::microseconds(500 + i * 37));
                for (int n = 0; n < 10; n++) CHECK(t.chan().recv(30s));
            });
        }
        wg.wait();
        stop.store(true, kRelaxed);
        hogs.wait();
    });
}

TEST_CASE("plain threads have timers too") {
    Timer t(1ms);
    CHECK(t.chan().recv());
    CHECK_FALSE(t.reset(1h));
    CHECK(t.stop());
    std::atomic<int> runs{0};
    Timer call = after_func(1ms, [&] { runs.fetch_add(1); });
    CHECK(procs_test::eventually([&] { return runs.load() == 1; }));
    Ticker ticker(1ms);
    for (int i = 0; i < 3; i++) CHECK(ticker.chan().recv(20s));
    // Stopped on another thread than it was set on.
    Timer other(1h);
    std::thread([&] { CHECK(other.stop()); }).join();
    baton::run([&] { CHECK_FALSE(other.stop()); });
}

#if !defined(BATON_TSAN) // which starts no threads after a fork
TEST_CASE("in a forked child no timer is pending, and each can be set again") {
    baton::run([] {}); // to start takes longer than the timer
    Timer t(1s);
    Ticker ticker(50us); // is mostly about to tick when the process forks
    baton::sleep_for(1ms);
    const ::pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        bool good = !t.stop();
        good = good && !t.reset(1ms) && t.chan().recv(20s);
        ticker.reset(1ms);
        good = good && ticker.chan().recv(20s) && ticker.chan().recv(20s);
        ::_exit(good ? 0 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(t.chan().recv(20s));
}
#endif
