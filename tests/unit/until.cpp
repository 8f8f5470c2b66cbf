// SPDX-License-Identifier: Apache-2.0
//
// Waits on channels that are given up: at a deadline, at a stop, at whichever is first.
// run: tiers
#include "baton/until.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Chan;
using baton::Until;
using procs_test::over_procs;
using Steady = std::chrono::steady_clock;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

template <class F>
std::error_code code_thrown(F&& f) {
    try {
        f();
    } catch (const std::system_error& e) {
        return e.code();
    }
    return {};
}

} // namespace

TEST_CASE("a deadline ends a receive and a send, and not before it has passed") {
    over_procs([](int) {
        Chan<int> c;
        const auto start = Steady::now();
        std::error_code ec;
        CHECK_FALSE(c.recv(2ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK(Steady::now() - start >= 2ms);
        int value = 5;
        CHECK_FALSE(c.send(value, Steady::now() + 2ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK(Steady::now() - start >= 4ms);
        CHECK(code_thrown([&] { (void)c.recv(1ms); }) == std::errc::timed_out);
        CHECK(code_thrown([&] { c.send(1, 1ms); }) == std::errc::timed_out);
        CHECK(code_thrown([&] { (void)c.recv(std::chrono::system_clock::now() + 1ms); }) ==
              std::errc::timed_out);
        // Who gave up has left the queue: the next to come meets nobody.
        CHECK_FALSE(c.try_send(1));
        CHECK_FALSE(c.try_recv());
    });
}

TEST_CASE("a stop ends a receive and a send") {
    over_procs([](int) {
        Chan<int> c;
        for (const bool sends : {false, true}) {
            std::stop_source source;
            baton::WaitGroup wg;
            std::atomic<int> stopped{0};
            for (int i = 0; i < 10; i++) {
                wg.go([&, token = source.get_token()] {
                    const auto code = code_thrown([&] {
                        if (sends) {
                            c.send(1, token);
                        } else {
                            (void)c.recv({1h, token});
                        }
                    });
                    if (code == std::errc::operation_canceled) stopped.fetch_add(1, kRelaxed);
                });
            }
            baton::sleep_for(1ms);
            CHECK(stopped.load(kRelaxed) == 0);
            source.request_stop();
            wg.wait();
            CHECK(stopped.load(kRelaxed) == 10);
            std::error_code ec;
            CHECK_FALSE(c.recv(source.get_token(), ec)); // requested before
            CHECK(ec == std::errc::operation_canceled);
        }
        CHECK_FALSE(c.try_send(1));
        CHECK_FALSE(c.try_recv());
    });
}

TEST_CASE("what can be done at once is done, though the time is over and a stop requested") {
    baton::run([] {
        std::stop_source source;
        source.request_stop();
        Chan<int> c(1);
        c.send(3, {-1s, source.get_token()});
        CHECK(c.recv({-1s, source.get_token()}) == 3);
        c.close();
        CHECK_FALSE(c.recv(source.get_token())); // closed, which is no error
        std::error_code ec;
        int value = 1;
        CHECK_FALSE(c.send(value, source.get_token(), ec));
        CHECK(ec == std::errc::broken_pipe);
        CHECK(code_thrown([&] { c.send(1, source.get_token()); }) == std::errc::broken_pipe);
    });
}

TEST_CASE("a value that could not be sent in time is still the sender's") {
    baton::run([] {
        Chan<std::unique_ptr<int>> c;
        auto value = std::make_unique<int>(8);
        std::error_code ec;
        CHECK_FALSE(c.send(std::move(value), 1ms, ec));
        REQUIRE(value); // NOLINT(bugprone-use-after-move): not moved from, as it was not sent
        CHECK(*value == 8);
        baton::WaitGroup wg;
        wg.go([&] { CHECK(c.send(std::move(value), 1h, ec)); });
        const auto got = c.recv(1h);
        wg.wait();
        CHECK_FALSE(value);
        CHECK(**got == 8);
        CHECK_FALSE(ec);
    });
}

TEST_CASE("an lvalue that is sent is copied, whichever way it is sent") {
    const std::string text = "a string that is too long to lie in its object";
    std::string value = text;
    Chan<std::string> c(6);
    const baton::SendChan<std::string> out = c;
    std::error_code ec;
    c.send(value);
    CHECK(c.send(value, ec));
    CHECK(c.send(value, 1h, ec));
    CHECK(c.try_send(value));
    CHECK(c.try_send(value, ec));
    CHECK(out.send(value, 1h, ec));
    CHECK_FALSE(out.try_send(value, ec)); // full
    CHECK(value == text);
    c.close();
    for (const std::string& got : c) CHECK(got == text);
}

TEST_CASE("a nil channel can be waited for only until then") {
    baton::run([] {
        Chan<int> c;
        const Chan<int> other = std::move(c);
        std::error_code ec;
        CHECK_FALSE(c.recv(1ms, ec)); // NOLINT(bugprone-use-after-move): that is the test
        CHECK(ec == std::errc::timed_out);
        std::stop_source source;
        std::jthread stopper([&] { source.request_stop(); });
        CHECK(code_thrown([&] { c.send(1, source.get_token()); }) == std::errc::operation_canceled);
    });
}

TEST_CASE("plain threads give up as goroutines do") {
    Chan<int> c;
    std::error_code ec;
    CHECK_FALSE(c.recv(2ms, ec));
    CHECK(ec == std::errc::timed_out);
    std::stop_source source;
    std::jthread stopper([&] {
        std::this_thread::sleep_for(1ms);
        source.request_stop();
    });
    CHECK_FALSE(c.recv({1h, source.get_token()}, ec));
    CHECK(ec == std::errc::operation_canceled);
    std::jthread sender([&] { c.send(4, 1h); });
    CHECK(c.recv(1h) == 4);
}

TEST_CASE("values, deadlines and stops that meet lose nothing and wake everybody once") {
    // Each receive is met by a send, its deadline and a stop at about the same time. The values
    // received and those still with their senders are all there are.
    over_procs([](int) {
        constexpr int kRounds = 400;
        Chan<int> c;
        std::atomic<int> sent{0};
        std::atomic<int> received{0};
        for (int round = 0; round < kRounds; round++) {
            std::stop_source source;
            baton::WaitGroup wg;
            for (int i = 0; i < 3; i++) {
                wg.go([&, i] {
                    std::error_code ec;
                    const Until until = i == 0 ? Until(20us) : Until(30us, source.get_token());
                    if (c.recv(until, ec)) received.fetch_add(1, kRelaxed);
                });
                wg.go([&, i] {
                    std::error_code ec;
                    int value = i;
                    const Until until = i == 0 ? Until(25us) : Until(1h, source.get_token());
                    if (i == 2) baton::sleep_for(20us);
                    if (c.send(value, until, ec)) sent.fetch_add(1, kRelaxed);
                });
            }
            wg.go([&] {
                if (round % 2 != 0) baton::sleep_for(25us);
                source.request_stop();
            });
            wg.wait();
            CHECK(sent.load(kRelaxed) == received.load(kRelaxed));
            CHECK_FALSE(c.try_recv());
        }
        CHECK(received.load(kRelaxed) > 0);
    });
}

TEST_CASE("a deadline that passes late does not end the next wait") {
    over_procs([](int) {
        Chan<int> never;
        Chan<int> c;
        baton::go([c] {
            for (int i = 0; i < 2000; i++) c.send(i);
        });
        for (int i = 0; i < 2000; i++) {
            std::error_code ec;
            CHECK_FALSE(never.recv(1us, ec)); // its timer may be about to fire, or has
            CHECK(c.recv(1h) == i);           // throws if it was ended
        }
    });
}
