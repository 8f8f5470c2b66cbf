// SPDX-License-Identifier: Apache-2.0
//
// Raw system calls that the kernel does not restart after a handler: none sees the signal that
// preempts, and all see the program's own.
// run: tiers
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <thread>

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/probe.hpp"

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

/// How often `call`, which sleeps for a moment, ended with EINTR within a while, on one P beside a
/// goroutine that computes. It computes a little itself before each, so as to be seen awake.
long interrupted(const std::function<long()>& call) {
    long count = 0;
    baton::run([&] {
        baton::set_max_procs(1);
        std::atomic<bool> done{false};
        baton::WaitGroup wg;
        wg.go([&] {
            for (const auto end = Clock::now() + 1500ms; Clock::now() < end;) {
                for (const auto until = Clock::now() + 5us; Clock::now() < until;) {
                }
                count += call() < 0 && errno == EINTR;
            }
            done = true;
        });
        wg.go([&] {
            while (!done.load(std::memory_order_relaxed)) { // relaxed: a flag alone
            }
        });
        wg.wait();
    });
    return count;
}

} // namespace

TEST_CASE("preempt: a raw call that has just begun begins anew") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delivers signals when it likes\n");
    return;
#endif
    if (baton::assist_tier() != baton::Assist::kProbe) {
        std::printf("skip: no probe in this tier: a raw call may return EINTR\n");
        return;
    }
    const timespec sleep{0, 50'000};
    CHECK(interrupted([&] { return ::syscall(SYS_nanosleep, &sleep, nullptr); }) == 0);
    CHECK(interrupted([&] {
              return ::syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &sleep, nullptr);
          }) == 0);
    CHECK(interrupted([] { return ::syscall(SYS_poll, nullptr, 0, 1); }) == 0);
    const int epfd = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event;
    CHECK(interrupted([&] { return ::syscall(SYS_epoll_wait, epfd, &event, 1, 1); }) == 0);
    ::close(epfd);
}

TEST_CASE("preempt: the program's own signal ends a raw call") {
    struct sigaction sa = {}, old[2];
    sa.sa_handler = [](int) {};
    const int signals[] = {SIGUSR1, SIGRTMIN}; // below and above SIGURG
    for (int i = 0; i < 2; i++) sigaction(signals[i], &sa, &old[i]);
    for (const int sig : signals) {
        std::atomic<long> tid{0};
        std::atomic<pthread_t> thread{};
        int error = 0;
        std::thread killer([&] {
            while (tid == 0) std::this_thread::yield();
            CHECK(probe_test::sleeps(tid));
            ::pthread_kill(thread, sig);
        });
        baton::run([&] {
            const timespec sleep{20, 0};
            thread = ::pthread_self();
            tid = ::syscall(SYS_gettid);
            const auto start = Clock::now();
            error = ::syscall(SYS_nanosleep, &sleep, nullptr) == 0 ? 0 : errno;
            CHECK(Clock::now() - start < 15s);
        });
        CHECK(error == EINTR);
        killer.join();
    }
    for (int i = 0; i < 2; i++) sigaction(signals[i], &old[i], nullptr);
}
