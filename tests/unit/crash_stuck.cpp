// SPDX-License-Identifier: Apache-2.0
//
// What ends a process that fails where its last words cannot be found: sysmon, which looks for the
// names, never comes back from an allocation, as if who failed held the allocator's lock.
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>

#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/crash.hpp"
#include "support/child.hpp"

using namespace child_process;

namespace {

std::atomic<bool> stuck{false};
#if defined(BATON_TSAN)
constexpr unsigned kAlarm_s = 4; // ThreadSanitizer's exit takes a second
#else
constexpr unsigned kAlarm_s = 1;
#endif

void stick() {
    baton::rt::set_crash_patience({.progress_ns = 50'000'000, .alarm_s = kAlarm_s});
    stuck.store(true);
}

void* allocate(std::size_t n) {
    while (stuck.load()) ::pause();
    void* p = std::malloc(n);
    if (!p) throw std::bad_alloc();
    return p;
}

} // namespace

void* operator new(std::size_t n) { return allocate(n); }
void* operator new[](std::size_t n) { return allocate(n); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }

TEST_CASE("child: misuses a mutex while nothing can be allocated" * doctest::skip()) {
    baton::run([] {
        baton::Mutex mutex;
        stick();
        mutex.unlock();
    });
    reached();
}

TEST_CASE("crash: who finds no names in time prints addresses, and the process ends") {
    for (const std::string& tier : kTiers) {
        const Child child = run_child("misuses a mutex while nothing can be allocated", {tier});
        check_ends(child, 2);
        check_shows(child, "baton: unlock of unlocked mutex");
        check_shows(child, "[running]:\n\tno names to be had; addresses:\n\t0x");
    }
}

TEST_CASE("child: is asked for all stacks while nothing can be allocated" * doctest::skip()) {
    baton::run([] {
        stick();
        ::kill(::getpid(), SIGQUIT);
        for (;;) ::pause();
    });
    reached();
}

TEST_CASE("crash: a dump that has no end is ended by the kernel") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delays signals until a thread makes a call it knows\n");
    return;
#endif
    const Child child = run_child("is asked for all stacks while nothing can be allocated");
    INFO(child.output);
    CHECK(!child.hung);
    CHECK(child.killed_by(SIGALRM));
    check_shows(child, "SIGQUIT: quit\nPC=");
}
