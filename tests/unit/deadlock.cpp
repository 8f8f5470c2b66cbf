// SPDX-License-Identifier: Apache-2.0
//
// A process whose goroutines all sleep for ever says so and ends; one where anything can still come
// does not. Each case in a process of its own.
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/child.hpp"

using namespace child_process;
using baton::Chan;
using baton::WaitGroup;

// Not static: its name is to be found on the stack.
constexpr int kWaitsInLine = __LINE__ + 2;
[[gnu::noinline]] void wait_in_here(const Chan<int>& c) {
    (void)c.recv();
    asm volatile(""); // no tail call
}

namespace {

const Strings kDefault = each_of("BATON_MAXPROCS", {""});
constexpr const char* kDeadlock = "fatal error: all goroutines are asleep - deadlock!\n";
constexpr auto kLong = 500ms; // several looks of sysmon's

void check_dead(const char* title, const Strings& on = kDefault) {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer has a thread of its own, of which nobody can know what it "
                "wakes\n");
    (void)title, (void)on;
#else
    for (const std::string& procs : on) {
        for (const Child& child : run_on_tiers(title, {procs})) {
            INFO(title << "\n" << procs << "\n" << child.output);
            CHECK(!child.hung);
            CHECK(child.exited(2));
            CHECK(child.has(kDeadlock));
            CHECK(!child.has(kReached));
        }
    }
#endif
}

void check_alive(const char* title, const Strings& on = kDefault) {
    for (const std::string& procs : on) {
        for (const Child& child : run_on_tiers(title, {procs})) check_works(child);
    }
}

/// A goroutine that waits for ever, so that the question is asked at all.
void leave_one_asleep() {
    baton::run([] { baton::go([] { (void)Chan<int>().recv(); }); });
}

} // namespace

// ---- where it is one ----

const bool in_init = [] {
    if (std::getenv("BATON_TEST_IN_INIT") == nullptr) return false;
    baton::run([] { (void)Chan<int>().recv(); });
    return true;
}();

TEST_CASE("child: all asleep" * doctest::skip()) {
    baton::run([] {
        Chan<int> a, b;
        baton::Mutex mutex;
        mutex.lock();
        WaitGroup wg;
        wg.go([=] { wait_in_here(a); });
        wg.go([=] { b.send(1); });
        wg.go([&] { mutex.lock(); });
        wg.wait();
    });
    reached();
}
TEST_CASE("child: locked and asleep" * doctest::skip()) {
    baton::run([] {
        baton::lock_os_thread();
        (void)Chan<int>().recv();
    });
    reached();
}
TEST_CASE("child: asleep and one locked" * doctest::skip()) {
    baton::run([] {
        Chan<int> c;
        baton::go([=] {
            baton::lock_os_thread();
            (void)c.recv();
        });
        baton::sleep_for(1ms);
        (void)c.recv();
    });
    reached();
}
TEST_CASE("child: asleep after a timer" * doctest::skip()) {
    baton::run([] {
        baton::sleep_for(kLong);
        (void)Chan<int>().recv();
    });
    reached();
}
TEST_CASE("child: asleep after a call" * doctest::skip()) {
    baton::run([] {
        baton::go([] { baton::blocking([] { ::usleep(300'000); }); });
        (void)Chan<int>().recv();
    });
    reached();
}
TEST_CASE("child: asleep after a thread" * doctest::skip()) {
    std::thread([] { std::this_thread::sleep_for(kLong); }).detach();
    baton::run([] { (void)Chan<int>().recv(); });
    reached();
}

TEST_CASE("deadlock: all goroutines asleep ends the process and shows each") {
    check_dead("all asleep", kProcs);
#if !defined(BATON_TSAN)
    const Child child = run_child("all asleep");
    INFO(child.output);
    CHECK(child.has(std::string(kDeadlock) + "\ngoroutine 1 [sync.WaitGroup.Wait]:\n"));
    CHECK(count(child.output, "\ngoroutine ") == 4);
    CHECK(child.has(" [sync.Mutex.Lock]:\n"));
    CHECK(child.has(" [chan send]:\n"));
    CHECK(child.has(" [chan receive]:\nbaton::Chan<int>::recv() const (inlined)\n\t"));
    CHECK(child.has("\nwait_in_here(baton::Chan<int> const&)\n\t"));
    CHECK(child.has("/tests/unit/deadlock.cpp:" + std::to_string(kWaitsInLine) + " +0x"));
    const Child locked = run_child("locked and asleep");
    INFO(locked.output);
    CHECK(locked.has(" [chan receive, locked to thread]:\nbaton::Chan<int>::recv() const"));
#endif
}

TEST_CASE("deadlock: found when the last timer, call or plain thread that could help is gone") {
    check_dead("asleep after a timer");
    check_dead("asleep after a call");
    check_dead("asleep after a thread");
}

// TestLockedDeadlock, TestLockedDeadlock2
TEST_CASE("deadlock: with goroutines locked to their threads as without") {
    check_dead("locked and asleep", kProcs);
    check_dead("asleep and one locked", kProcs);
}

// TestInitDeadlock
TEST_CASE("deadlock: also before main begins") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer has a thread of its own\n");
#else
    for (const std::string& tier : kTiers) {
        const Child child = run_child("all asleep", {tier, "BATON_TEST_IN_INIT=1"});
        INFO(child.output);
        CHECK(child.exited(2));
        CHECK(child.has(kDeadlock));
        CHECK(!child.has("case: "));
    }
#endif
}

// ---- where it is none ----

TEST_CASE("child: a timer to come" * doctest::skip()) {
    baton::run([] {
        Chan<int> c;
        baton::go([=] {
            baton::sleep_for(kLong);
            c.send(1);
        });
        CHECK(c.recv() == 1);
    });
    reached();
}
TEST_CASE("child: a call to return" * doctest::skip()) {
    baton::run([] {
        Chan<int> c;
        baton::go([=] {
            baton::blocking([] { ::usleep(500'000); });
            c.send(1);
            timespec half{0, 500'000'000};
            ::nanosleep(&half, nullptr); // unannounced
            c.send(2);
        });
        CHECK(c.recv() == 1);
        CHECK(c.recv() == 2);
    });
    reached();
}
TEST_CASE("child: a plain thread to send" * doctest::skip()) {
    Chan<int> c(1);
    std::thread sender([=] {
        std::this_thread::sleep_for(kLong);
        CHECK(c.try_send(1));
    });
    baton::run([=] { CHECK(c.recv() == 1); });
    sender.join();
    reached();
}
TEST_CASE("child: a connection to come" * doctest::skip()) {
    const std::string name = "baton-deadlock-" + std::to_string(::getpid());
    if (::fork() == 0) { // before the runtime starts
        ::usleep(500'000);
        sockaddr_un to{};
        to.sun_family = AF_UNIX;
        std::memcpy(to.sun_path + 1, name.data(), name.size());
        const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
        const auto length =
            static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
        // Starting the runtime may take longer than that.
        for (int i = 0; i < 1000; i++) {
            if (::connect(fd, reinterpret_cast<sockaddr*>(&to), length) == 0) ::_exit(0);
            ::usleep(10'000);
        }
        ::_exit(1);
    }
    baton::run([&] {
        baton::Listener listener = baton::Listener::listen("unix", "@" + name);
        const baton::Conn conn = listener.accept();
        CHECK(conn);
    });
    reached();
}
TEST_CASE("child: main goes on" * doctest::skip()) {
    leave_one_asleep();
    ::usleep(500'000); // outside run
    reached();
}
TEST_CASE("child: threads come and go" * doctest::skip()) {
    leave_one_asleep();
    const auto end = std::chrono::steady_clock::now() + 3s;
    for (int i = 0; std::chrono::steady_clock::now() < end; i++) {
        std::thread one([] { baton::run([] {}); });
        baton::run([i] {
            Chan<int> c;
            baton::go([=] { c.send(i); });
            CHECK(c.recv() == i);
        });
        one.join();
        if (i % 50 == 0) ::usleep(120'000);
    }
    reached();
}

TEST_CASE("deadlock: not while a timer, a call, or a plain thread can wake one") {
    check_alive("a timer to come");
    check_alive("a call to return");
    check_alive("a plain thread to send");
}

// TestNetpollDeadlock
TEST_CASE("deadlock: not while one waits for a connection") {
    check_alive("a connection to come", kProcs);
}

TEST_CASE("deadlock: not while main is outside run, or threads come and go") {
    check_alive("main goes on");
    check_alive("threads come and go");
}
