// SPDX-License-Identifier: Apache-2.0
//
// The scheduler's hot path makes no system call: on a thread whose first one ends the process,
// goroutines do for a while what they do all day.
// run: tiers
#include <doctest/doctest.h>

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <mutex>
#include <string>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/child.hpp"

using namespace child_process;
using baton::Chan;
using baton::WaitGroup;

namespace {

constexpr int kTimes = 2'000; // much less than a time slice
constexpr int kTries = 10;    // as another thread may have had the CPU in the midst of it

struct Operation {
    const char* name;
    std::function<void()> run;
};

void yields() {
    WaitGroup wg;
    for (int g = 0; g < 4; g++)
        wg.go([] {
            for (int i = 0; i < kTimes; i++) baton::yield();
        });
    wg.wait();
}

void starts() {
    for (int i = 0; i < kTimes; i += 10) {
        WaitGroup wg;
        for (int g = 0; g < 10; g++) wg.go([] {});
        wg.wait();
    }
}

void exchange(std::size_t capacity) {
    Chan<int> there(capacity), back(capacity);
    WaitGroup wg;
    wg.go([&] {
        while (const auto value = there.recv()) back.send(*value);
    });
    for (int i = 0; i < kTimes; i++) {
        there.send(i);
        if (back.recv() != i) std::abort();
    }
    there.close();
    wg.wait();
}

void locks() {
    static baton::Mutex mutex; // the first who has to wait for it makes one, once
    WaitGroup wg;
    for (int g = 0; g < 4; g++)
        wg.go([&] {
            for (int i = 0; i < kTimes; i++) {
                const std::lock_guard lock(mutex);
                if (i % 8 == 0) baton::yield(); // the others queue
            }
        });
    wg.wait();
}

void selects() {
    Chan<int> a(1), b;
    for (int i = 0; i < kTimes; i++) {
        if (baton::select(baton::on_send(a, i), baton::on_recv(b, [](auto) {})) != 0) std::abort();
        if (baton::select(baton::on_recv(a, [](auto) {}), baton::on_recv(b, [](auto) {})) != 0)
            std::abort();
    }
}

void brackets() {
    for (int i = 0; i < kTimes; i++) baton::blocking([] {});
}

const Operation kOperations[] = {
    {"yield", yields},
    {"starts and ends", starts},
    {"an unbuffered channel", [] { exchange(0); }},
    {"a buffered channel", [] { exchange(4); }},
    {"a mutex", locks},
    {"select", selects},
    {"a bracket around nothing", brackets},
};
const Operation kOther = {"a system call", [] { (void)::syscall(SYS_getppid); }};

const Operation& operation(const std::string& name) {
    for (const Operation& one : kOperations)
        if (one.name == name) return one;
    return kOther;
}

Child without_calls(const Operation& one) {
    return run_child("no system call", {std::string("OPERATION=") + one.name, "BATON_MAXPROCS=1"});
}

/// From now on this thread may end the process, say so, and return from a signal.
void forbid_calls() {
    const auto allow = [](unsigned nr) {
        return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1);
    };
    const sock_filter yes = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        allow(SYS_exit_group),
        yes,
        allow(SYS_write),
        yes,
        allow(SYS_rt_sigreturn),
        yes,
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const sock_fprog filter{std::size(code), code};
    REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
}

} // namespace

TEST_CASE("child: no system call" * doctest::skip()) {
    const Operation& one = operation(std::getenv("OPERATION"));
    baton::run([&] {
        one.run(); // now stacks, records and memory are had
        forbid_calls();
        one.run();
        reached();
        ::_exit(0);
    });
}

#if defined(BATON_ASAN) || defined(BATON_TSAN)
TEST_CASE("a sanitizer makes calls of its own") {
    std::printf("skip: a sanitizer makes system calls\n");
    CHECK(std::size(kOperations) > 0);
}
#else
TEST_CASE("the scheduler's hot path makes no system call") {
    for (const Operation& one : kOperations) {
        INFO(std::string(one.name));
        Child child;
        for (int i = 0; i < kTries && !child.has(kReached); i++) child = without_calls(one);
        check_works(child);
    }
    CHECK(without_calls(kOther).killed_by(SIGSYS)); // it would be seen
}
#endif
