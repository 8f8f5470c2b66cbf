// SPDX-License-Identifier: Apache-2.0
//
// How many threads there may be, each case in a process of its own.
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "support/child.hpp"

using namespace child_process;

namespace {

/// So many goroutines that each block their thread.
void block_many(int goroutines) {
    baton::run([=] {
        baton::set_max_procs(4);
        std::atomic<int> done{0};
        baton::WaitGroup wg;
        for (int i = 0; i < goroutines; i++) {
            wg.go([&] {
                baton::blocking([] { ::usleep(5000); });
                baton::sleep_for(1ms);
                done++;
            });
        }
        wg.wait();
        CHECK(done == goroutines);
    });
}

/// One more may stand by at the probe's ring buffer.
void check_peak(std::uint64_t limit) {
    const baton::Stats s = baton::stats();
    CHECK(s.threads_limit == limit);
    CHECK(s.threads_peak <= limit + (baton::assist_tier() == baton::Assist::kProbe ? 1 : 0));
    CHECK(s.threads_refused > 0);
}

} // namespace

TEST_CASE("child: one thread does it" * doctest::skip()) {
    block_many(20);
    check_peak(1);
    reached();
}
TEST_CASE("child: three threads do it" * doctest::skip()) {
    block_many(60);
    check_peak(3);
    reached();
}

TEST_CASE("limits: at the limit work waits for a thread, and the process says so once") {
    for (const std::string& tier : kTiers) {
        for (const char* number : {"one thread does it", "three threads do it"}) {
            const std::string n = number[0] == 'o' ? "1" : "3";
            const Child child = run_child(number, {tier, "BATON_MAXTHREADS=" + n});
            check_works(child);
            INFO(child.output);
            const Strings said = child.said();
            REQUIRE(said.size() == 1);
            CHECK(said[0] == "baton: " + n +
                                 " threads are in use, as many as BATON_MAXTHREADS or "
                                 "set_max_threads allows; work waits for one of them");
        }
    }
}

TEST_CASE("child: a lone thread" * doctest::skip()) {
    baton::set_max_procs(4);
#if defined(BATON_TSAN)
    constexpr int kTimes = 2'000; // each makes a fiber
#else
    constexpr int kTimes = 30'000;
#endif
    int sum = 0;
    for (int i = 0; i < kTimes; i++) sum += baton::run([] { return 1; });
    for (int i = 0; i < 300; i++) {
        baton::run([] { baton::sleep_for(50us); });
        baton::run([] { baton::blocking([] { ::usleep(20); }); });
    }
    CHECK(sum == kTimes);
    reached();
}

TEST_CASE("limits: work that comes while the only thread goes to sleep wakes it again") {
    for (const std::string& tier : kTiers)
        check_works(run_child("a lone thread", {tier, "BATON_MAXTHREADS=1"}));
}

namespace {

/// The P that is not the caller's, taken off the idle list; nobody has it until it is put back.
baton::rt::P* other_p() {
    using namespace baton::rt;
    for (;;) {
        {
            const Entry entry;
            LockGuard guard(sched.lock);
            if (P* p = pidleget()) return p;
        }
        baton::blocking([] { ::usleep(100); }); // sysmon has just looked for somebody for it
    }
}

void put_back(baton::rt::P* p) {
    const baton::rt::Entry entry;
    baton::rt::LockGuard guard(baton::rt::sched.lock);
    baton::rt::pidleput(p);
}

/// Starts a goroutine that says so, and leaves it on the other P, which has no thread.
void leave_one_behind(std::atomic<bool>& ran) {
    using namespace baton::rt;
    P* other = other_p();
    {
        const Entry entry;
        baton::go([&] { ran = true; });
        bool inherit = false;
        G* gp = runqget(getm()->p, inherit);
        REQUIRE(gp != nullptr);
        runqput(other, gp, false);
    }
    put_back(other);
}

/// Sets a timer that says so on the other P.
void leave_timer_behind(baton::rt::Timer& timer, std::atomic<bool>& ran) {
    using namespace baton::rt;
    P* other = other_p();
    const auto say = [](void* arg, std::uintptr_t, std::int64_t) {
        *static_cast<std::atomic<bool>*>(arg) = true;
    };
    {
        const Entry entry;
        other->timers.arm(&timer, baton::kernel::nanotime() + 1'000'000, say, &ran, 0);
    }
    put_back(other);
}

} // namespace

TEST_CASE("child: two processors with one thread" * doctest::skip()) {
    baton::run([] {
        for (const bool blocks : {false, true}) {
            for (const bool timer_too : {false, true}) {
                static baton::rt::Timer timer;
                std::atomic<bool> ran{false};
                timer_too ? leave_timer_behind(timer, ran) : leave_one_behind(ran);
                const auto end = std::chrono::steady_clock::now() + 2s;
                while (!ran && std::chrono::steady_clock::now() < end) {
                    if (blocks) {
                        baton::blocking([] { ::usleep(3000); });
                    } else {
                        baton::yield();
                    }
                }
                INFO(blocks, timer_too);
                CHECK(ran);
            }
        }
    });
    reached();
}

TEST_CASE("limits: where threads are too few for the processors, these take turns") {
    for (const std::string& tier : kTiers)
        check_works(run_child("two processors with one thread",
                              {tier, "BATON_MAXPROCS=2", "BATON_MAXTHREADS=1"}));
}

TEST_CASE("child: limit set by call" * doctest::skip()) {
    CHECK(baton::set_max_threads(2) == 10'000);
    CHECK(baton::stats().threads_limit == 2);
    block_many(20);
    check_peak(2);
    CHECK(baton::set_max_threads(500) == 2);
    const std::uint64_t refused = baton::stats().threads_refused;
    block_many(60);
    CHECK(baton::stats().threads_refused == refused);
    CHECK(baton::stats().threads_peak > 3);
    reached();
}

TEST_CASE("limits: set_max_threads, before the start and while goroutines run") {
    for (const std::string& tier : kTiers) check_works(run_child("limit set by call", {tier}));
    CHECK_THROWS_AS(baton::set_max_threads(0), std::invalid_argument);
    CHECK_THROWS_AS(baton::set_max_threads(16'384), std::invalid_argument);
}

TEST_CASE("limits: the reference's crash at the limit, for who wants it") {
    for (const std::string& tier : kTiers) {
        const Child child = run_child("three threads do it", {tier, "BATON_MAXTHREADS=3,crash"});
        INFO(child.output);
        CHECK(child.exited(2));
        CHECK(child.has("baton: program exceeds 3-thread limit\nfatal error: thread exhaustion\n"));
        CHECK(!child.has(kReached));
    }
}

TEST_CASE("child: default limit" * doctest::skip()) {
    block_many(1);
    CHECK(baton::stats().threads_limit == 10'000);
    CHECK(baton::stats().threads_refused == 0);
    reached();
}

TEST_CASE("limits: a wrong BATON_MAXTHREADS costs one line and its default") {
    for (const char* value : {"0", "x", "20000", "5,crush", "5,", ",crash"}) {
        const Child child = run_child("default limit", {std::string("BATON_MAXTHREADS=") + value});
        check_works(child);
        INFO(child.output);
        const Strings said = child.said();
        REQUIRE(said.size() == 1);
        CHECK(said[0].starts_with(std::string("baton: BATON_MAXTHREADS=") + value +
                                  ": not a number from 1 to 16383"));
    }
    check_works(run_child("default limit"));
}

// ---- the reserve: threads for the first blocks ----

namespace {

constexpr int kReserve = 3;

/// Once all threads of the start are there. One of them may have served other work meanwhile, and
/// is an idle one like others then.
int reserve() {
    using baton::rt::sched;
    for (int i = 0; i < 5000 && sched.mborn.load() != 0; i++) ::usleep(1000);
    int n = 0;
    for (int same = 0; same < 20; same++) { // born, it is not at once on its list
        const int now = sched.mreserve.n.load();
        if (now != n) same = 0;
        n = now;
        ::usleep(1000);
    }
    return n;
}

} // namespace

TEST_CASE("child: takes all idle threads" * doctest::skip()) {
    using namespace baton::rt;
    baton::run([] {
        const int n = reserve();
        REQUIRE(n > 0);
        std::vector<M*> taken;
        while (M* m = mget_far(0)) taken.push_back(m);
        CHECK(sched.mreserve.n.load() == n);
        for (int i = 0; i < n; i++) {
            M* m = mget_near(0);
            REQUIRE(m != nullptr);
            taken.push_back(m);
        }
        for (M* m : taken) {
            m->near = 0;
            unsteer(m);
            mput(m, 0);
        }
    });
    reached();
}

TEST_CASE("limits: a fresh process has idle threads for its first blocks, not for new work") {
    for (const char* tier : {"BATON_ASSIST=probe", "BATON_ASSIST=understudy"})
        check_works(run_child("takes all idle threads", {tier}));
}

TEST_CASE("child: as many run as may be" * doctest::skip()) {
    constexpr int kThreads = kReserve + 1;
    baton::run([] {
        REQUIRE(reserve() <= kReserve);
        baton::set_max_threads(kThreads);
        std::atomic<int> running{0};
        baton::WaitGroup wg;
        for (int i = 0; i < kThreads; i++) {
            wg.go([&] {
                running++;
                while (running.load() < kThreads) {
                }
            });
        }
        wg.wait();
    });
    reached();
}

TEST_CASE("limits: where there may be no more threads those for the first blocks do all work") {
    for (const char* tier : {"BATON_ASSIST=probe", "BATON_ASSIST=understudy"})
        check_works(run_child("as many run as may be", {tier, "BATON_MAXPROCS=4"}));
}
