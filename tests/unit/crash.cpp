// SPDX-License-Identifier: Apache-2.0
//
// What a process tells when it fails, as BATON_TRACEBACK asks, and how it ends. Each case is a
// process of its own.
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/child.hpp"
#include "support/waiters.hpp"

using namespace child_process;
using baton::Chan;
using baton::WaitGroup;
using waiters_test::leave_one_waiting;

namespace {

/// One goroutine that waits, so that there is another one to be told of.
} // namespace

// Not static: their names are to be found on the stack.
constexpr int kThrowLine = __LINE__ + 1;
[[gnu::noinline]] void throw_in_here(const char* what) { throw std::runtime_error(what); }
struct Guard {
    ~Guard() { std::fprintf(stderr, "unwound\n"); }
};
[[gnu::noinline]] void throws_below_a_guard() {
    const Guard guard;
    throw_in_here("out of cheese");
}
[[gnu::noinline]] void fault_in_here(volatile int* at) {
    *at = 1;
    asm volatile("");
}
std::atomic<bool> spin{true};
[[gnu::noinline]] void spin_in_here() {
    while (spin.load()) {
    }
    asm volatile("");
}

// ---- exceptions and levels ----

TEST_CASE("child: throws" * doctest::skip()) {
    baton::run([] {
        leave_one_waiting();
        WaitGroup wg;
        wg.go(throws_below_a_guard);
        wg.wait();
    });
    reached();
}

TEST_CASE("crash: an exception nobody catches shows the stack of its throw, not yet unwound") {
    for (const std::string& tier : kTiers) {
        for (const std::string& procs : kProcs) {
            const Child child = run_child("throws", {tier, procs});
            check_ends(child, 2);
            check_shows(child, "\npanic: std::runtime_error: out of cheese\n\ngoroutine ");
            check_shows(child, " [running]:\nthrow_in_here(char const*)\n\t");
            check_shows(child, "/tests/unit/crash.cpp:" + std::to_string(kThrowLine) + " +0x");
            check_shows(child, "\nthrows_below_a_guard()");
            check_shows(child, "\ncreated by ");
            check_shows(child, " in goroutine 1\n");
            check_hides(child, "unwound");
            CHECK(count(child.output, "\ngoroutine ") == 1);
        }
    }
}

TEST_CASE("crash: BATON_TRACEBACK says whose stacks") {
    const Child none = run_child("throws", {"BATON_TRACEBACK=none"});
    check_ends(none, 2);
    check_shows(none, "\npanic: std::runtime_error: out of cheese\n");
    check_hides(none, "goroutine ");
    const Child single = run_child("throws", {"BATON_TRACEBACK=single"});
    check_ends(single, 2);
    CHECK(count(single.output, "\ngoroutine ") == 1);
    const Child all = run_child("throws", {"BATON_TRACEBACK=all"});
    check_ends(all, 2);
    CHECK(count(all.output, "\ngoroutine ") == 3);
    check_shows(all, "\ngoroutine 1 [");
    check_shows(all, " [chan receive]:\n");
    check_hides(all, "baton::rt::");
    check_hides(all, " gp=");
    const Child system = run_child("throws", {"BATON_TRACEBACK=system"});
    check_ends(system, 2);
    CHECK(count(system.output, "\ngoroutine ") == 3);
    check_shows(system, "\nbaton::rt::");
    check_shows(system, "__cxa_throw");
    check_shows(system, "\ngoroutine 1 gp=0x");
    check_shows(system, " m=nil [chan receive]:\n");
    const Child wrong = run_child("throws", {"BATON_TRACEBACK=everything"});
    check_ends(wrong, 2);
    check_shows(wrong, "baton: BATON_TRACEBACK=everything: not one of none, single, all, system, "
                       "crash; using single\n");
    CHECK(count(wrong.output, "\ngoroutine ") == 1);
}

TEST_CASE("child: throws without a core" * doctest::skip()) {
    const rlimit no_core{0, 0};
    REQUIRE(setrlimit(RLIMIT_CORE, &no_core) == 0);
    baton::run([] {
        leave_one_waiting();
        WaitGroup wg;
        std::atomic<int> begun{0};
        for (int i = 0; i < 3; i++) {
            wg.go([&] {
                begun.fetch_add(1);
                spin_in_here();
            });
        }
        while (begun.load() < 3) baton::sleep_for(5ms);
        wg.go(throws_below_a_guard);
        wg.wait();
    });
    reached();
}

// TestCrashDumpsAllThreads
TEST_CASE("crash: crash ends in SIGABRT, and shows those that run on other threads") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delays the signal that asks who computes\n");
    CHECK(run_child("throws", {"BATON_TRACEBACK=crash"}).killed_by(SIGABRT));
#else
    const Child child = run_child("throws without a core", {"BATON_TRACEBACK=crash"});
    INFO(child.output);
    CHECK(child.killed_by(SIGABRT));
    CHECK(count(child.output, "\nspin_in_here()\n\t") == 3);
#endif
}

namespace {
class OwnError : public std::exception {
public:
    const char* what() const noexcept override { return "own text"; }
};
class NoException {};
struct Nesting : NoException, std::nested_exception {};
template <class Throw>
void throw_on_goroutine(Throw f) {
    baton::run([&] {
        WaitGroup wg;
        wg.go(f);
        wg.wait();
    });
    reached();
}
} // namespace

TEST_CASE("child: throws its own" * doctest::skip()) {
    throw_on_goroutine([] { throw OwnError(); });
}
TEST_CASE("child: throws no exception" * doctest::skip()) {
    throw_on_goroutine([] { throw NoException(); });
}
TEST_CASE("child: throws an int" * doctest::skip()) {
    throw_on_goroutine([] { throw 7; });
}
TEST_CASE("child: throws words" * doctest::skip()) {
    throw_on_goroutine([] { throw "words alone"; });
}
TEST_CASE("child: throws a string" * doctest::skip()) {
    throw_on_goroutine([] { throw std::string("a string"); });
}
TEST_CASE("child: rethrows" * doctest::skip()) {
    throw_on_goroutine([] {
        try {
            throw_in_here("again");
        } catch (...) {
            throw;
        }
    });
}
TEST_CASE("child: throws nested" * doctest::skip()) {
    throw_on_goroutine([] {
        try {
            try {
                throw 7;
            } catch (...) {
                std::throw_with_nested(std::logic_error("middle"));
            }
        } catch (...) {
            std::throw_with_nested(std::runtime_error("outer"));
        }
    });
}
TEST_CASE("child: throws nested without text" * doctest::skip()) {
    throw_on_goroutine([] {
        try {
            throw_in_here("inner");
        } catch (...) {
            throw Nesting();
        }
    });
}

TEST_CASE("crash: any exception, with those nested in it") {
    const auto panics = [](const char* title, const std::string& lines) {
        const Child child = run_child(title);
        check_ends(child, 2);
        check_shows(child, "\npanic: " + lines + "\n\ngoroutine ");
        check_shows(child, " [running]:\n");
    };
    panics("throws its own", "(anonymous namespace)::OwnError: own text");
    panics("throws no exception", "(anonymous namespace)::NoException");
    panics("throws an int", "int: 7");
    panics("throws words", "char const*: words alone");
    panics("throws a string", "std::string: a string");
    panics("rethrows", "std::runtime_error: again");
    panics("throws nested",
           "std::runtime_error: outer\n\tnested: std::logic_error: middle\n\tnested: int: 7");
    panics("throws nested without text",
           "(anonymous namespace)::Nesting\n\tnested: std::runtime_error: inner");
}

// ---- misuse ----

TEST_CASE("child: unlocks" * doctest::skip()) {
    baton::run([] {
        baton::Mutex mutex;
        mutex.unlock();
    });
    reached();
}
TEST_CASE("child: unlocks on a thread" * doctest::skip()) {
    baton::run([] {});
    baton::Mutex mutex;
    mutex.unlock();
    reached();
}

TEST_CASE("crash: misuse shows where") {
    const Child child = run_child("unlocks");
    check_ends(child, 2);
    check_shows(child, "\nbaton: unlock of unlocked mutex");
    check_shows(child, "\n\ngoroutine 1 [running]:\nbaton::");
    check_shows(child, "\nbaton::Mutex::unlock(");
    check_shows(child, "/tests/unit/crash.cpp:");
    const Child plain = run_child("unlocks on a thread");
    check_ends(plain, 2);
    check_shows(plain, "\nbaton::Mutex::unlock(");
    check_shows(plain, "\n\nthread ");
}

[[gnu::noinline]] int recurse_in_here(int depth) {
    volatile char frame[512];
    frame[depth % 512] = static_cast<char>(depth);
    const int below = depth < 1 << 30 ? recurse_in_here(depth + 1) : 0;
    return below + frame[depth % 512];
}

TEST_CASE("child: overflows" * doctest::skip()) {
    baton::run([] { return recurse_in_here(0); });
    reached();
}
TEST_CASE("child: overflows a big stack" * doctest::skip()) {
    baton::run([] {
        WaitGroup wg;
        wg.add();
        baton::go({.stack_bytes = 1 << 20}, [&] {
            (void)recurse_in_here(0);
            wg.done();
        });
        wg.wait();
    });
    reached();
}

TEST_CASE("crash: a stack that overflows is shown, a deep one by both its ends") {
    const Child child = run_child("overflows");
    check_ends(child, 2);
    check_shows(child, "\npanic: goroutine 1 overflowed its stack of 64 KiB");
    check_shows(child, "\n\ngoroutine 1 [running]:\nrecurse_in_here(int)");
    const Child big = run_child("overflows a big stack");
    check_ends(big, 2);
    check_shows(big, " frames elided...\nrecurse_in_here(int)");
    check_shows(big, "\ncreated by ");
}

// ---- failures that meet ----

TEST_CASE("child: many throw" * doctest::skip()) {
    baton::run([] {
        WaitGroup wg;
        for (int i = 0; i < 50; i++) wg.go([] { throw_in_here("one of many"); });
        wg.wait();
    });
    reached();
}
namespace {
std::atomic<bool> telling{false};
struct TellsOf : std::exception {
    const char* what() const noexcept override {
        telling.store(true);
        return "first";
    }
};
} // namespace
TEST_CASE("child: ends while it fails" * doctest::skip()) {
    baton::run([] { baton::go([] { throw TellsOf(); }); });
    while (!telling.load()) std::this_thread::yield();
    std::exit(0);
}
namespace {
struct FaultyText : std::exception {
    const char* what() const noexcept override {
        fault_in_here(reinterpret_cast<int*>(0x10));
        return "";
    }
};
struct ThrowingText : std::exception {
    const char* what() const noexcept override {
        throw_in_here("from what()");
        return "";
    }
};
} // namespace
TEST_CASE("child: faults in what" * doctest::skip()) {
    throw_on_goroutine([] { throw FaultyText(); });
}
TEST_CASE("child: throws in what" * doctest::skip()) {
    const rlimit no_core{0, 0};
    REQUIRE(setrlimit(RLIMIT_CORE, &no_core) == 0);
    throw_on_goroutine([] { throw ThrowingText(); });
}
namespace {
/// Overwrites word `n` of its own frame (0: the caller's frame pointer, 1: the return address).
[[gnu::noinline]] void tear_and_wait(int n, const Chan<int>& c) {
    auto* frame = static_cast<volatile std::uintptr_t*>(__builtin_frame_address(0));
    asm volatile("" : "+r"(frame));
    frame[n] = 0x10;
    (void)c.recv();
    asm volatile("");
}
/// Its frame is found by the frame pointer alone.
[[gnu::noinline]] void waits_in_a_torn_frame(int n, const Chan<int>& c) {
    volatile char* room =
        static_cast<volatile char*>(__builtin_alloca(static_cast<unsigned>(n) + 9));
    room[0] = 1;
    tear_and_wait(n, c);
    asm volatile("" ::"r"(room));
}
} // namespace
TEST_CASE("child: tears its stack" * doctest::skip()) {
    baton::run([] {
        leave_one_waiting();
        for (int n = 0; n < 2; n++) {
            baton::go([n] { waits_in_a_torn_frame(n, Chan<int>()); });
        }
        (void)Chan<int>().recv();
    });
    reached();
}

TEST_CASE("crash: of many that fail one tells, and no other end overtakes it") {
    for (const std::string& procs : kProcs) {
        const Child many = run_child("many throw", {procs});
        check_ends(many, 2);
        CHECK(count(many.output, "panic: ") == 1);
        CHECK(count(many.output, "\ngoroutine ") == 1);
        check_shows(many, "\ncreated by ");
        const Child ends = run_child("ends while it fails", {procs});
        check_ends(ends, 2);
        check_shows(ends, "::TellsOf: first\n\ngoroutine ");
        check_shows(ends, "\ncreated by ");
    }
}

TEST_CASE("crash: a failure within is the end") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    std::printf("skip: a sanitizer handles faults itself\n");
#else
    const Child faults = run_child("faults in what");
    check_ends(faults, 2);
    check_shows(faults, "baton: failed again while telling of a failure\n");
    CHECK(!run_child("throws in what").hung);
#endif
}

TEST_CASE("crash: a stack that cannot be read is left out, the others are shown") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    std::printf("skip: a sanitizer sees the stack torn\n");
#else
    const Child child = run_child("tears its stack");
    check_ends(child, 2);
    check_shows(child, "\nfatal error: all goroutines are asleep - deadlock!\n");
    CHECK(count(child.output, " [chan receive]:\n") == 4);
    CHECK(count(child.output, "::tear_and_wait(") == 2);
    CHECK(count(child.output, "\tthe rest of the stack cannot be read\n") == 2);
#endif
}

// ---- setuid ----

TEST_CASE("child: is secure" * doctest::skip()) {
    std::fprintf(stderr, "secure %d\n", ::geteuid() != ::getuid());
    throw_on_goroutine([] { throw_in_here("secretly"); });
}

TEST_CASE("crash: a setuid program shows no stacks") {
    if (::geteuid() != 0) {
        std::printf("skip: only root can make a setuid program of another user's\n");
        return;
    }
    const std::string copy = "/tmp/baton-setuid-" + std::to_string(::getpid());
    std::ofstream(copy, std::ios::binary)
        << std::ifstream("/proc/self/exe", std::ios::binary).rdbuf();
    REQUIRE(::chown(copy.c_str(), 65533, 65533) == 0);
    REQUIRE(::chmod(copy.c_str(), 06755) == 0);
    const Child child = run_child("is secure", {"BATON_TRACEBACK=all"}, 15s, copy.c_str());
    ::unlink(copy.c_str());
    if (!child.has("secure 1\n")) {
        std::printf("skip: /tmp is mounted nosuid\n");
        return;
    }
    check_ends(child, 2);
    check_shows(child, "\npanic: std::runtime_error: secretly\n");
    check_hides(child, "goroutine ");
}
