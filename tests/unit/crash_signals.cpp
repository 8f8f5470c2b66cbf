// SPDX-License-Identifier: Apache-2.0
//
// Signals that end a process: what it tells of a fault and of SIGQUIT, and that they end it as
// ever. Each case is a process of its own.
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include <sys/mman.h>
#include <sys/resource.h>
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
void no_core() {
    const rlimit none{0, 0};
    REQUIRE(setrlimit(RLIMIT_CORE, &none) == 0);
}

template <class F>
void do_on_goroutine(F f) {
    no_core();
    baton::run([&] {
        WaitGroup wg;
        wg.go(f);
        wg.wait();
    });
    reached();
}

} // namespace

// Not static: their names are to be found on the stack.
[[gnu::noinline]] void fault_in_here(volatile int* at) {
    *at = 1;
    asm volatile("");
}
[[gnu::noinline]] void throw_in_here() {
    throw std::runtime_error("this was promised not to happen");
}
std::atomic<bool> spin{true};
[[gnu::noinline]] void spin_in_here() {
    while (spin.load()) {
    }
    asm volatile("");
}

TEST_CASE("child: faults" * doctest::skip()) {
    do_on_goroutine([] { fault_in_here(reinterpret_cast<int*>(0x10)); });
}
TEST_CASE("child: is sent SIGSEGV" * doctest::skip()) {
    do_on_goroutine([] { (void)std::raise(SIGSEGV); });
}
TEST_CASE("child: divides" * doctest::skip()) {
    do_on_goroutine([] { asm volatile("xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx"); });
}
TEST_CASE("child: illegal" * doctest::skip()) {
    do_on_goroutine([] { asm volatile("ud2"); });
}
TEST_CASE("child: bus error" * doctest::skip()) {
    const int fd = memfd_create("short", 0);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REQUIRE(page != MAP_FAILED);
    do_on_goroutine([page] { fault_in_here(static_cast<int*>(page)); });
}
TEST_CASE("child: aborts" * doctest::skip()) {
    do_on_goroutine([] { std::abort(); });
}
[[gnu::noinline]] void promises_not_to_throw() noexcept {
    throw_in_here();
    asm volatile("");
}
TEST_CASE("child: breaks its noexcept" * doctest::skip()) {
    do_on_goroutine([] { promises_not_to_throw(); });
}
TEST_CASE("child: handles faults" * doctest::skip()) {
    std::signal(SIGSEGV, [](int) { ::_exit(77); });
    std::signal(SIGFPE, [](int) { ::_exit(78); });
    do_on_goroutine([] {
        if (std::getenv("BATON_TEST_FPE") != nullptr) (void)std::raise(SIGFPE);
        fault_in_here(reinterpret_cast<int*>(0x10));
    });
}
TEST_CASE("child: faults on a thread" * doctest::skip()) {
    no_core();
    baton::run([] {});
    fault_in_here(reinterpret_cast<int*>(0x10));
}

// TestSignalExitStatus, and what the reference prints of a fault
TEST_CASE("crash: a fault shows the signal and the stack, and ends the process as ever") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    std::printf("skip: a sanitizer handles faults itself\n");
#else
    const auto faults = [](const char* title, int sig, const std::string& line) {
        const Child child = run_child(title);
        INFO(child.output);
        CHECK(child.killed_by(sig));
        check_shows(child, "\nfatal error: unexpected signal\n[signal " + line);
        check_shows(child, " [running]:\n");
        check_shows(child, "/tests/unit/crash_signals.cpp:");
    };
    faults("faults", SIGSEGV, "SIGSEGV: segmentation violation code=0x1 addr=0x10 pc=0x");
    faults("is sent SIGSEGV", SIGSEGV, "SIGSEGV: segmentation violation code=0xfffffffa addr=");
    faults("divides", SIGFPE, "SIGFPE: floating-point exception code=0x1 addr=0x");
    faults("illegal", SIGILL, "SIGILL: illegal instruction code=0x2 addr=0x");
    faults("bus error", SIGBUS, "SIGBUS: bus error code=0x2 addr=0x");
    faults("aborts", SIGABRT, "SIGABRT: abort code=0xfffffffa addr=");
    faults("breaks its noexcept", SIGABRT, "SIGABRT: abort code=0xfffffffa addr=");
    const Child broken = run_child("breaks its noexcept");
    check_shows(broken, "this was promised not to happen");
    check_shows(broken, "\npromises_not_to_throw()\n\t");
    check_shows(run_child("faults"), " [running]:\nfault_in_here(int volatile*)\n\t");
    const Child none = run_child("faults", {"BATON_TRACEBACK=none"});
    CHECK(none.killed_by(SIGSEGV));
    check_hides(none, "goroutine");
    CHECK(run_child("handles faults").exited(77));
    CHECK(run_child("handles faults", {"BATON_TEST_FPE=1"}).exited(78));
    const Child plain = run_child("faults on a thread");
    CHECK(plain.killed_by(SIGSEGV));
    check_hides(plain, "fatal error");
#endif
}

TEST_CASE("child: waits for SIGQUIT" * doctest::skip()) {
    baton::run([] {
        leave_one_waiting();
        WaitGroup wg;
        wg.go(spin_in_here);
        wg.go([] { baton::blocking([] { ::sleep(10); }); });
        baton::sleep_for(50ms);
        ::kill(::getpid(), SIGQUIT);
        wg.wait();
    });
    reached();
}
TEST_CASE("child: all idle for SIGQUIT" * doctest::skip()) {
    std::thread([] {
        std::this_thread::sleep_for(3s); // sysmon sleeps deeply by then
        ::kill(::getpid(), SIGQUIT);
        std::this_thread::sleep_for(60s);
    }).detach();
    baton::run([] { (void)Chan<int>().recv(); });
    reached();
}
TEST_CASE("child: ignores SIGQUIT" * doctest::skip()) {
    std::signal(SIGQUIT, SIG_IGN);
    baton::run([] { ::kill(::getpid(), SIGQUIT); });
    reached();
}
TEST_CASE("child: handles SIGQUIT" * doctest::skip()) {
    static std::atomic<int> quits{0};
    if (std::getenv("BATON_TEST_LATER") != nullptr) baton::run([] {});
    std::signal(SIGQUIT, [](int) { quits.fetch_add(1); });
    baton::run([] {
        ::kill(::getpid(), SIGQUIT);
        while (quits.load() == 0) baton::sleep_for(1ms);
    });
    reached();
}

TEST_CASE("crash: SIGQUIT shows all goroutines, and exits with 2") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delays signals until a thread makes a call it knows\n");
#else
    for (const std::string& tier : kTiers) {
        for (const std::string& procs : kProcs) {
            const Child child = run_child("waits for SIGQUIT", {tier, procs});
            check_ends(child, 2);
            check_shows(child, "\nSIGQUIT: quit\nPC=0x");
            check_shows(child, " sigcode=0\n\ngoroutine 1 [");
            CHECK(count(child.output, "\ngoroutine ") == 4);
            check_shows(child, " [chan receive]:\n");
            check_shows(child, "\nspin_in_here()\n\t");
            check_shows(child, " [syscall]:\n");
            INFO(child.output);
            CHECK((child.has("sleep\n\t") || child.has("sleep+0x"))); // without libc's debug file
        }
    }
    for (const Child& idle : run_on_tiers("all idle for SIGQUIT")) check_ends(idle, 2);
    const Child unasked = run_child("waits for SIGQUIT", {"BATON_PREEMPT=off", "BATON_MAXPROCS=2"});
    check_ends(unasked, 2);
    CHECK(count(unasked.output, "\ngoroutine ") == 4);
    check_shows(unasked, "\nspin_in_here()\n\t"); // it is not to come back from this one
    const Child none = run_child("waits for SIGQUIT", {"BATON_TRACEBACK=none"});
    check_ends(none, 2);
    check_shows(none, "\nSIGQUIT: quit\n");
    check_hides(none, "goroutine");
#endif
}

TEST_CASE("crash: SIGQUIT is the program's if it handles or ignores it") {
    check_works(run_child("ignores SIGQUIT"));
    check_works(run_child("handles SIGQUIT"));
    check_works(run_child("handles SIGQUIT", {"BATON_TEST_LATER=1"}));
}

TEST_CASE("child: SIGTERM" * doctest::skip()) {
    baton::run([] {
        ::kill(::getpid(), SIGTERM);
        baton::sleep_for(10s);
    });
    reached();
}

// TestSignalExitStatus
TEST_CASE("crash: other signals end the process as ever") {
    CHECK(run_child("SIGTERM").killed_by(SIGTERM));
}
