// SPDX-License-Identifier: Apache-2.0
//
// Future, Promise and async.
// run: tiers
#include "baton/future.hpp"

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::async;
using baton::Future;
using baton::Promise;
using procs_test::over_procs;

template <class F>
std::optional<std::future_errc> future_error_of(F&& f) {
    try {
        f();
    } catch (const std::future_error& e) {
        return static_cast<std::future_errc>(e.code().value());
    } catch (...) {
    }
    return std::nullopt;
}

} // namespace

TEST_CASE("a future gives what its goroutine returns or throws, once") {
    over_procs([](int) {
        Future<int> sum = async([](int a, int b) { return a + b; }, 3, 4);
        CHECK(sum.valid());
        CHECK(sum.get() == 7);
        CHECK_FALSE(sum.valid());
        CHECK(future_error_of([&] { sum.get(); }) == std::future_errc::no_state);
        CHECK(future_error_of([&] { (void)sum.ready(); }) == std::future_errc::no_state);

        auto text = async([](std::unique_ptr<int> n) { return std::to_string(*n); },
                          std::make_unique<int>(12));
        CHECK(text.get() == "12");
        int target = 0;
        async([&] { target = 5; }).get();
        CHECK(target == 5);
        Future<int&> reference = async([&]() -> int& { return target; });
        CHECK(&reference.get() == &target);
        auto failed = async([]() -> std::unique_ptr<int> { throw std::runtime_error("no"); });
        failed.wait(); // does not throw
        CHECK(failed.ready());
        CHECK_THROWS_AS((void)failed.get(), std::runtime_error);
        std::vector<Future<int>> many;
        for (int i = 0; i < 200; i++) {
            many.push_back(async([i] {
                if (i % 7 == 0) baton::yield();
                return i;
            }));
        }
        for (int i = 0; i < 200; i++) CHECK(many[static_cast<std::size_t>(i)].get() == i);
    });
}

TEST_CASE("waits for a future are given up, and can be made again") {
    over_procs([](int) {
        Promise<std::string> promise;
        auto future = promise.get_future();
        CHECK_FALSE(future.ready());
        std::error_code ec;
        CHECK_FALSE(future.wait(1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(future.wait(1ms), std::system_error);
        CHECK_THROWS_AS((void)future.get(1ms), std::system_error);
        std::stop_source source;
        source.request_stop();
        CHECK_FALSE(future.wait(source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        CHECK(future.valid());
        promise.set_value("late");
        CHECK(future.wait(-1s, ec));
        CHECK(future.get(source.get_token()) == "late");
    });
}

TEST_CASE("a promise is kept once, or broken") {
    over_procs([](int) {
        Promise<int> promise;
        auto future = promise.get_future();
        CHECK(future_error_of([&] { (void)promise.get_future(); }) ==
              std::future_errc::future_already_retrieved);
        promise.set_value(1);
        CHECK(future_error_of([&] { promise.set_value(2); }) ==
              std::future_errc::promise_already_satisfied);
        CHECK(future.get() == 1);
        std::optional<Promise<int>> broken(std::in_place);
        auto never = broken->get_future();
        broken.reset();
        CHECK(future_error_of([&] { never.get(); }) == std::future_errc::broken_promise);
        Promise<void> replaced;
        auto first = replaced.get_future();
        replaced = Promise<void>();
        CHECK(future_error_of([&] { first.get(); }) == std::future_errc::broken_promise);
        replaced.set_exception(std::make_exception_ptr(std::logic_error("told")));
        CHECK_THROWS_AS(replaced.get_future().get(), std::logic_error);
        Promise<void> gone = std::move(replaced);
        // NOLINTNEXTLINE(bugprone-use-after-move): that is the test
        CHECK(future_error_of([&] { replaced.set_value(); }) == std::future_errc::no_state);
    });
}

TEST_CASE("wait_all waits for the last, wait_any for the first") {
    over_procs([](int) {
        Promise<int> a;
        Promise<std::string> b;
        const auto fa = a.get_future();
        const auto fb = b.get_future();
        std::error_code ec;
        CHECK_FALSE(baton::wait_any(1ms, ec, fa, fb));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS((void)baton::wait_any(1ms, fa, fb), std::system_error);
        baton::go([&] { b.set_value("b"); });
        CHECK(baton::wait_any(fa, fb) == 1);
        CHECK(baton::wait_any(20s, ec, fa, fb) == 1);
        CHECK_FALSE(ec);
        CHECK_FALSE(baton::wait_all(1ms, ec, fa, fb));
        CHECK(ec == std::errc::timed_out);
        CHECK_THROWS_AS(baton::wait_all(1ms, fa, fb), std::system_error);
        baton::go([&] { a.set_value(1); });
        baton::wait_all(fa, fb);
        CHECK(baton::wait_all(-1s, ec, fa, fb));
    });
}

TEST_CASE("wait_any and wait_all take any number of futures, known when the program runs") {
    over_procs([](int) {
        for (const std::size_t n : {1u, 3u, 40u}) { // 40: more than a select has room for on stack
            std::vector<Promise<std::size_t>> promises(n);
            std::vector<baton::Future<std::size_t>> futures;
            for (auto& p : promises) futures.push_back(p.get_future());
            std::error_code ec;
            CHECK_FALSE(baton::wait_any(1ms, ec, futures));
            CHECK(ec == std::errc::timed_out);
            CHECK_FALSE(baton::wait_all(1ms, ec, futures));
            CHECK(ec == std::errc::timed_out);
            std::stop_source stop;
            stop.request_stop();
            CHECK_THROWS_WITH_AS((void)baton::wait_any(stop.get_token(), futures),
                                 doctest::Contains("baton::recv_any"), std::system_error);
            // As they come: whoever is done is taken out.
            std::size_t sum = 0;
            for (std::size_t left = n; left > 0; left--) {
                const std::size_t next = left / 2;
                baton::go([&] { promises[next].set_value(left); });
                const std::size_t at =
                    left % 2 ? baton::wait_any(futures) : baton::wait_any(20s, ec, futures).value();
                CHECK(at == next);
                sum += futures[at].get();
                futures.erase(futures.begin() + static_cast<std::ptrdiff_t>(at));
                promises.erase(promises.begin() + static_cast<std::ptrdiff_t>(at));
            }
            CHECK(sum == n * (n + 1) / 2);
            CHECK_THROWS_AS((void)baton::wait_any(futures), std::invalid_argument);
            baton::wait_all(futures); // of none
        }
    });
}

TEST_CASE("plain threads give and take results") {
    CHECK(async([] { return baton::goid() != 0; }).get());
    Promise<int> promise;
    auto future = promise.get_future();
    std::thread giver([&] { promise.set_value(9); });
    CHECK(future.get() == 9);
    giver.join();
}
