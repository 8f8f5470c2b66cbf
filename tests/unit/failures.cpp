// SPDX-License-Identifier: Apache-2.0
//
// What the runtime does when it is misused, or when the kernel refuses it something: the exit code,
// the one line on stderr, and that work goes on where it can. Each case is a process of its own:
// this very program with another environment and one of the cases whose titles begin with "child".
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/sched.hpp"
#include "support/child.hpp"
#include "support/confine.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::WaitGroup;
using namespace child_process;
using namespace confine;

namespace {

/// A little of everything; false if anything was lost.
bool works(int procs = 0) {
    return baton::run([procs] {
        if (procs != 0) baton::set_max_procs(procs);
        constexpr int kEach = 10;
        std::atomic<int> sum{0};
        Chan<int> channel(4);
        baton::Mutex mutex;
        int guarded = 0;
        WaitGroup wg, receivers;
        receivers.go([&, channel] {
            for (const int n : channel) sum.fetch_add(n);
        });
        for (int i = 0; i < kEach; i++) {
            wg.go([&] {
                baton::blocking([] { ::usleep(2000); });
                baton::sleep_for(500us);
                baton::yield();
                channel.send(1);
                mutex.lock();
                baton::yield();
                guarded++;
                mutex.unlock();
            });
        }
        wg.wait();
        channel.close();
        receivers.wait();
        return sum.load() == kEach && guarded == kEach;
    });
}

} // namespace

// ---- the environment ----

TEST_CASE("child: works" * doctest::skip()) {
    REQUIRE(works());
    reached();
}

TEST_CASE("failures: a wrong value in the environment costs one line and its default") {
    const std::string procs = ": not a number from 1 to 1024; using ";
    const std::vector<std::pair<std::string, std::string>> values = {
        {"BATON_MAXPROCS=abc", procs},
        {"BATON_MAXPROCS=0", procs},
        {"BATON_MAXPROCS=100000", procs},
        {"BATON_MAXPROCS=-3", procs},
        {"BATON_MAXPROCS=4x", procs},
        {"BATON_STACK=x", ": not a size from 16k to 1g; using 64k"},
        {"BATON_STACK=1k", ": not a size from 16k to 1g; using 64k"},
        {"BATON_STACK=2g", ": not a size from 16k to 1g; using 64k"},
        {"BATON_ASSIST=foo", ": not one of probe, understudy, sysmon; using the best there is"},
        {"BATON_FILE_THREADS=0", ": not a number from 1 to 16383; using 32"},
        {"BATON_FILE_THREADS=20000", ": not a number from 1 to 16383; using 32"},
        {"BATON_DISABLE=warp_drive", ": unknown feature 'warp_drive'; known: "},
    };
    for (const auto& [variable, text] : values) {
        const Child child = run_child("works", {variable});
        check_works(child);
        INFO(child.output);
        const Strings said = child.said();
        REQUIRE(said.size() == 1);
        CHECK(said[0].starts_with("baton: " + variable + text));
    }
    for (const char* variable : {"BATON_MAXPROCS=3", "BATON_STACK=256k", "BATON_STACK=16384",
                                 "BATON_ASSIST=sysmon", "BATON_MAXPROCS=", "BATON_DISABLE="}) {
        const Child child = run_child("works", {variable});
        check_works(child);
        CHECK(child.said().empty());
    }
}

TEST_CASE("child: runs as its parent" * doctest::skip()) {
    CHECK(baton::run(baton::assist_tier) == baton::Assist::kSysmon);
    CHECK(baton::max_procs() == 3);
    reached();
}
TEST_CASE("child: has a child" * doctest::skip()) {
    CHECK(kTiers == Strings{"BATON_ASSIST=sysmon"});
    CHECK(kProcs == Strings{"BATON_MAXPROCS=3"});
    check_works(run_child("runs as its parent"));
    reached();
}

// What the runs on one tier and number of Ps after another rely on.
TEST_CASE("failures: a test told its tier and its number of Ps has its children run on them") {
    check_works(run_child("has a child", {"BATON_ASSIST=sysmon", "BATON_MAXPROCS=3"}));
}

TEST_CASE("failures: every fallback works, each alone and all at once") {
    std::string all;
    for (const baton::KernelFeature& feature : baton::kernel_features()) {
        check_works(run_child("works", {"BATON_DISABLE=" + feature.name}));
        check_works(run_child("works", {"BATON_DISABLE=" + feature.name, "BATON_MAXPROCS=4"}));
        all += feature.name + ",";
    }
    check_works(run_child("works", {"BATON_DISABLE=" + all}));
    check_works(run_child("works", {"GLIBC_TUNABLES=glibc.pthread.rseq=0"}));
}

// ---- misuse ----

TEST_CASE("child: throws" * doctest::skip()) {
    baton::run([] {
        std::fprintf(stderr, "number %llu\n", static_cast<unsigned long long>(baton::goid()) + 1);
        WaitGroup wg;
        wg.go([] {
            baton::yield();
            throw std::runtime_error("out of cheese");
        });
        wg.wait();
    });
    reached();
}
TEST_CASE("child: throws int" * doctest::skip()) {
    baton::run([] {
        baton::go([] { throw 7; });
        baton::sleep_for(10s);
    });
    reached();
}
TEST_CASE("child: throws in blocking" * doctest::skip()) {
    baton::run([] {
        baton::go([] {
            baton::blocking([] {
                ::usleep(1000);
                throw std::logic_error("there");
            });
        });
        baton::sleep_for(10s);
    });
    reached();
}

namespace {
/// While 16 goroutines go round with f.
template <class F>
void throw_beside(F f) {
    baton::run([&] {
        WaitGroup wg;
        for (int i = 0; i < 16; i++) {
            wg.go([&] {
                for (;;) f();
            });
        }
        wg.go([] {
            baton::sleep_for(20ms);
            throw std::runtime_error("beside");
        });
        wg.wait();
    });
    reached();
}
} // namespace
TEST_CASE("child: throws beside yields" * doctest::skip()) { throw_beside(baton::yield); }
TEST_CASE("child: throws beside calls" * doctest::skip()) {
    throw_beside([] { baton::blocking([] { ::usleep(100); }); });
}

// TestPanicDeadlockGosched, TestPanicDeadlockSyscall
TEST_CASE("failures: so it does while others yield, or are in calls") {
    for (const char* title : {"throws beside yields", "throws beside calls"}) {
        for (const std::string& tier : kTiers) {
            for (const std::string& procs : kProcs)
                check_dies(title, "panic: std::runtime_error: beside", {tier, procs});
        }
    }
}

TEST_CASE("failures: an exception that escapes a goroutine ends the process") {
    check_dies("throws", "panic: std::runtime_error: out of cheese");
    check_dies("throws int", "panic: int");
    check_dies("throws in blocking", "panic: std::logic_error: there");
    const Child child = run_child("throws");
    const std::size_t at = child.output.find("number ");
    REQUIRE(at != std::string::npos);
    const std::string number = std::to_string(std::stoull(child.output.substr(at + 7)));
    INFO(child.output);
    CHECK(child.has("\n\ngoroutine " + number + " [running]:\n"));
}

namespace {
[[gnu::noinline]] int recurse(int depth) {
    volatile char frame[512];
    frame[depth % 512] = static_cast<char>(depth);
    const int below = depth < 1 << 30 ? recurse(depth + 1) : 0;
    return below + frame[depth % 512];
}
} // namespace

TEST_CASE("child: overflows" * doctest::skip()) {
    baton::run([] {
        std::fprintf(stderr, "number %llu\n", static_cast<unsigned long long>(baton::goid()));
        return recurse(0);
    });
    reached();
}

TEST_CASE("failures: a stack that overflows names its goroutine and the cure") {
    for (const char* guards : {"BATON_DISABLE=", "BATON_DISABLE=guard_pages"}) {
        const Child child = run_child("overflows", {guards});
        INFO(guards << "\n" << child.output);
        CHECK(child.exited(2));
        const std::size_t at = child.output.find("number ");
        REQUIRE(at != std::string::npos);
        const std::string number = std::to_string(std::stoull(child.output.substr(at + 7)));
        const Strings said = child.said();
        REQUIRE(said.size() == 1);
        CHECK(said[0] == "panic: goroutine " + number +
                             " overflowed its stack of 64 KiB: give it more with baton::go("
                             "{.stack_bytes = ...}, f), or all of them with BATON_STACK=256k");
    }
}

TEST_CASE("child: sleeps in blocking" * doctest::skip()) {
    baton::run([] { baton::blocking([] { baton::sleep_for(1ms); }); });
    reached();
}
TEST_CASE("child: waits in blocking" * doctest::skip()) {
    WaitGroup wg;
    wg.add(1);
    baton::run([&] { baton::blocking([&] { wg.wait(); }); });
    reached();
}
TEST_CASE("child: receives in blocking" * doctest::skip()) {
    baton::run([] { baton::blocking([] { (void)Chan<int>().recv(); }); });
    reached();
}
TEST_CASE("child: locks in blocking" * doctest::skip()) {
    baton::Mutex mutex;
    mutex.lock();
    baton::run([&] { baton::blocking([&] { mutex.lock(); }); });
    reached();
}
TEST_CASE("child: sets procs in blocking" * doctest::skip()) {
    baton::run([] { baton::blocking([] { baton::set_max_procs(2); }); });
    reached();
}

TEST_CASE("failures: a call that would park where it cannot ends the process and says where") {
    const std::string inside = " inside baton::blocking in goroutine 1: a goroutine has no "
                               "processor there; move the call out of the bracket";
    check_dies("sleeps in blocking", "baton: sleep_for" + inside);
    check_dies("waits in blocking", "baton: WaitGroup::wait" + inside);
    check_dies("receives in blocking", "baton: Chan::recv" + inside);
    check_dies("locks in blocking", "baton: Mutex::lock" + inside);
    check_dies("sets procs in blocking", "baton: set_max_procs" + inside);
}

TEST_CASE("child: unlocks" * doctest::skip()) {
    baton::Mutex mutex;
    mutex.unlock();
    reached();
}
TEST_CASE("child: too many done" * doctest::skip()) {
    WaitGroup wg;
    wg.add(1);
    wg.done();
    wg.done();
    reached();
}

TEST_CASE("failures: misuse of Mutex and WaitGroup") {
    check_dies("unlocks", "baton: unlock of unlocked mutex");
    check_dies("too many done", "baton: negative WaitGroup counter");
    CHECK_THROWS_AS(baton::set_max_procs(0), std::invalid_argument);
    CHECK_THROWS_AS(baton::set_max_procs(2000), std::invalid_argument);
}

// ---- what the kernel refuses ----

namespace {
/// With room for so many threads run must throw; once there is room for more it must work.
void refused_first(rlim_t threads) {
    REQUIRE(drop_root());
    limit(RLIMIT_NPROC, threads);
    CHECK_THROWS_AS(baton::run([] {}), std::system_error);
    limit(RLIMIT_NPROC, RLIM_INFINITY);
    for (int procs = 1; procs <= 4; procs++) CHECK(works(procs));
    reached();
}
} // namespace

TEST_CASE("child: no thread" * doctest::skip()) { refused_first(1); }
TEST_CASE("child: one thread" * doctest::skip()) { refused_first(2); }
TEST_CASE("child: few threads" * doctest::skip()) {
    REQUIRE(drop_root());
    limit(RLIMIT_NPROC, 5);
    REQUIRE(works(4));
    for (int i = 0; i < 5; i++) REQUIRE(works());
    limit(RLIMIT_NPROC, RLIM_INFINITY); // AddressSanitizer looks for leaks in a thread of its own
    reached();
}

TEST_CASE("failures: run throws when the kernel refuses the first thread, and works later") {
    if (!root_or_skip()) return;
    for (const char* title : {"no thread", "one thread"}) {
        check_works(run_child(title, {"BATON_ASSIST=sysmon"}));
    }
}

TEST_CASE("failures: threads refused later cost one line; the work waits for those there are") {
    if (!root_or_skip()) return;
    for (const char* tier : {"BATON_ASSIST=sysmon", "BATON_ASSIST=understudy"}) {
        const Child child = run_child("few threads", {tier});
        check_works(child);
        INFO(child.output);
        const Strings said = child.said();
        REQUIRE(said.size() == 1);
        CHECK(said[0].starts_with("baton: cannot start a thread (EAGAIN): see ulimit -u"));
    }
}

namespace {

void limit_memory() {
    ::mallopt(M_ARENA_MAX, 1); // or a thread that allocates for the first time wants room for one
    std::ifstream statm("/proc/self/statm");
    rlim_t pages = 0;
    statm >> pages;
    limit(RLIMIT_AS, pages * static_cast<rlim_t>(getpagesize()) + (8 << 20));
}

/// Goroutines that wait at a gate, as many as there is memory for, but for a little that malloc
/// has.
struct Crowd {
    Chan<int> gate;
    std::atomic<int> ended{0};
    int started = 0;
    WaitGroup wg;
    std::error_code why; // no more

    Crowd() {
        const auto little = std::make_unique<std::array<char, 64 << 10>>();
        asm volatile("" : : "r"(little.get())); // or it might be left out
        while (!why && started < 20'000) {
            try {
                wg.go([this] {
                    (void)gate.recv();
                    ended.fetch_add(1);
                });
                started++;
            } catch (const std::system_error& e) {
                why = e.code();
            }
        }
    }
    void leave() {
        gate.close();
        wg.wait();
    }
};

} // namespace

TEST_CASE("child: no stacks" * doctest::skip()) {
    REQUIRE(works());
    limit_memory();
    baton::run([] {
        Crowd crowd;
        CHECK(crowd.why.value() == ENOMEM);
        crowd.leave();
        CHECK(crowd.ended.load() == crowd.started);
    });
    REQUIRE(works());
    reached();
}
// What a Pool holds is released by a goroutine of the runtime's forced pass.
TEST_CASE("child: no stack for a pool" * doctest::skip()) {
    baton::rt::sched.forced_pass_ns.store(5'000'000);
    baton::run([] {
        baton::Pool<int> pool;
        constexpr std::size_t kHeld = 3;
        limit_memory();
        Crowd crowd;
        REQUIRE(crowd.why.value() == ENOMEM);
        for (std::size_t i = 0; i < kHeld; i++) pool.put(std::make_unique<int>(0));
        baton::sleep_for(200ms); // some passes, each refused
        CHECK(pool.size() == kHeld);
        crowd.leave();
        const auto end = std::chrono::steady_clock::now() + 10s;
        while (pool.size() != 0 && std::chrono::steady_clock::now() < end) baton::sleep_for(1ms);
        CHECK(pool.size() == 0);
    });
    reached();
}
TEST_CASE("child: no descriptors" * doctest::skip()) {
    // UndefinedBehaviorSanitizer checks a type's first object by way of a pipe.
    CHECK_THROWS_AS(throw std::system_error(EMFILE, std::generic_category(), ""),
                    std::system_error);
    limit(RLIMIT_NOFILE, 3);
    CHECK_THROWS_AS(baton::run([] {}), std::system_error);
    limit(RLIMIT_NOFILE, 256);
    CHECK(works());
    reached();
}

TEST_CASE("failures: refused memory and descriptors are errors the caller gets") {
#if defined(BATON_ASAN) || defined(BATON_TSAN)
    std::printf("skip: a sanitizer needs all the address space there is\n");
#else
    check_works(run_child("no stacks"));
    check_works(run_child("no stack for a pool"));
#endif
    check_works(run_child("no descriptors"));
}
