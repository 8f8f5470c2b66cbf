// SPDX-License-Identifier: Apache-2.0
//
// TaskGroup: what the tests of Go's errgroup ask for, and what a scope adds.
// run: tiers
#include "baton/task_group.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/time.hpp"
#include "support/child.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::TaskGroup;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

template <class F>
std::string thrown(F&& f) {
    try {
        f();
    } catch (const std::exception& e) {
        return e.what();
    }
    return "nothing";
}

/// Until it is stopped.
void run_on(const std::stop_token& stop) {
    std::error_code ec;
    baton::sleep_for(1h, stop, ec);
}

} // namespace

TEST_CASE("wait returns when all tasks have ended, their callables too") {
    over_procs([](int) {
        TaskGroup group;
        group.wait(); // nothing to wait for
        auto held = std::make_shared<int>(0);
        std::atomic<int> done{0};
        for (int round = 0; round < 20; round++) {
            for (int i = 0; i < 50; i++) {
                group.go(
                    [&done, held](int n) {
                        if (n % 10 == 0) baton::yield();
                        done.fetch_add(1, kRelaxed);
                    },
                    i);
            }
            group.wait();
            CHECK(done.load(kRelaxed) == 50 * (round + 1));
            CHECK(held.use_count() == 1);
        }
        CHECK_FALSE(group.token().stop_requested());
    });
}

TEST_CASE("the first failure stops the others and comes out of wait, once") {
    // errgroup's TestZeroGroup and TestWithContext.
    over_procs([](int) {
        TaskGroup group;
        std::atomic<int> stopped{0};
        for (int i = 0; i < 10; i++) {
            group.go([&](std::stop_token stop) {
                run_on(stop);
                stopped.fetch_add(1, kRelaxed);
                throw std::runtime_error("later");
            });
        }
        group.go([] { throw std::runtime_error("first"); });
        CHECK(thrown([&] { group.wait(); }) == "first");
        CHECK(stopped.load(kRelaxed) == 10);
        CHECK(group.token().stop_requested());
        CHECK(thrown([&] { group.wait(); }) == "nothing");
        // It stays stopped.
        group.go([&](std::stop_token stop, int n) { CHECK((stop.stop_requested() && n == 3)); }, 3);
        group.wait();
    });
}

TEST_CASE("a scope ends after its tasks, which it asks to stop") {
    over_procs([](int) {
        std::atomic<int> ended{0};
        {
            TaskGroup group;
            for (int i = 0; i < 5; i++) {
                group.go([&](std::stop_token stop) {
                    run_on(stop);
                    ended.fetch_add(1, kRelaxed);
                });
            }
        }
        CHECK(ended.load(kRelaxed) == 5);
        // Left by an exception, which is the one that counts.
        CHECK(thrown([&] {
                  TaskGroup group;
                  group.go([&](std::stop_token stop) {
                      run_on(stop);
                      ended.fetch_add(1, kRelaxed);
                      throw std::runtime_error("the task's");
                  });
                  throw std::runtime_error("the scope's");
              }) == "the scope's");
        CHECK(ended.load(kRelaxed) == 6);
    });
}

TEST_CASE("child: nobody waits" * doctest::skip()) {
    baton::run([] {
        TaskGroup group;
        group.go([] { throw std::runtime_error("overlooked"); });
        baton::sleep_for(1ms);
    });
    child_process::reached();
}
TEST_CASE("a failure that nobody waited for ends the process") {
    child_process::check_dies("nobody waits",
                              "baton: a task failed and its TaskGroup ended without a wait()");
}

TEST_CASE("no more tasks run at once than the limit allows") {
    // errgroup's TestGoLimit and TestTryGo.
    over_procs([](int) {
        TaskGroup group;
        group.set_limit(3);
        std::atomic<int> running{0};
        std::atomic<int> most{0};
        for (int i = 0; i < 50; i++) {
            group.go([&] {
                const int now = running.fetch_add(1, kRelaxed) + 1;
                int seen = most.load(kRelaxed);
                while (seen < now && !most.compare_exchange_weak(seen, now, kRelaxed)) {
                }
                baton::sleep_for(50us);
                running.fetch_sub(1, kRelaxed);
            });
        }
        group.wait();
        CHECK(most.load(kRelaxed) <= 3);
        for (int i = 0; i < 3; i++) CHECK(group.try_go(run_on));
        CHECK_FALSE(group.try_go(run_on));
        CHECK_THROWS_AS(group.set_limit(4), std::logic_error);
        group.request_stop();
        group.wait();
        CHECK_THROWS_AS(group.set_limit(0), std::invalid_argument);
        group.set_limit(1);
        CHECK(group.try_go([] {}));
        group.wait();
    });
}

TEST_CASE("waits for a group are given up, its tasks go on") {
    over_procs([](int) {
        TaskGroup group;
        std::atomic<bool> stopped{false};
        group.go([&](std::stop_token stop) {
            run_on(stop);
            stopped.store(true, kRelaxed);
        });
        std::error_code ec;
        CHECK_FALSE(group.wait(1ms, ec));
        CHECK(ec == std::errc::timed_out);
        std::stop_source source;
        source.request_stop();
        CHECK_THROWS_AS(group.wait(source.get_token()), std::system_error);
        CHECK_FALSE(stopped.load(kRelaxed));
        group.request_stop();
        CHECK(group.wait(20s, ec));
        CHECK(stopped.load(kRelaxed));
        CHECK(group.wait(-1s, ec)); // nothing to wait for
    });
}

TEST_CASE("tasks start tasks, and groups have groups") {
    over_procs([](int) {
        std::atomic<int> leaves{0};
        TaskGroup group;
        for (int i = 0; i < 8; i++) {
            group.go([&] {
                for (int k = 0; k < 8; k++) group.go([&] { leaves.fetch_add(1, kRelaxed); });
            });
        }
        group.wait();
        CHECK(leaves.load(kRelaxed) == 64);
        group.go([&](std::stop_token stop) {
            TaskGroup inner(stop);
            inner.go(run_on);
            inner.wait();
            leaves.fetch_add(1, kRelaxed);
        });
        baton::sleep_for(1ms);
        CHECK(leaves.load(kRelaxed) == 64);
        group.request_stop();
        group.wait();
        CHECK(leaves.load(kRelaxed) == 65);
    });
}

TEST_CASE("groups come and go while their last task ends") {
    // The last task must not touch a group that the waiter has destroyed.
    over_procs([](int) {
        for (int i = 0; i < 2000; i++) {
            auto group = std::make_unique<TaskGroup>();
            for (int k = 0; k < 3; k++) group->go([] {});
            if (i % 2 == 0) group->wait();
        }
    });
}

TEST_CASE("a plain thread has groups too") {
    TaskGroup group;
    std::atomic<int> done{0};
    for (int i = 0; i < 10; i++) group.go([&] { done.fetch_add(1, kRelaxed); });
    group.go([] { throw std::runtime_error("seen"); });
    CHECK(thrown([&] { group.wait(); }) == "seen");
    CHECK(done.load(kRelaxed) == 10);
}
