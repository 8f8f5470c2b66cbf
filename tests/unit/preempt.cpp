// SPDX-License-Identifier: Apache-2.0
//
// Goroutines that make no runtime call are preempted by signal, where they are and on their thread;
// after the reference's TestPreemption, TestAsyncPreempt and TestGCFairness.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/busy.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using procs_test::over_procs;

namespace {

int tid() { return static_cast<int>(::syscall(SYS_gettid)); }

std::atomic<int> urgent{0}; // SIGURGs that were for the program

// Before the runtime starts, so that its own handler comes in front of this one.
struct UrgentHandler {
    UrgentHandler() {
        struct sigaction sa = {};
        sa.sa_handler = [](int) { urgent++; };
        sigaction(SIGURG, &sa, nullptr);
    }
} urgent_handler;

bool preempted_here() { return std::getenv("BATON_PREEMPT") == nullptr; }

/// Computes until the flag is set, without a call of the runtime's; false if it never was.
bool compute_until(const std::atomic<bool>& flag) {
    for (const auto until = Clock::now() + 20s; Clock::now() < until;) {
        for (int i = 0; i < 1000; i++) {
            if (flag.load()) return true;
        }
    }
    return false;
}

void compute_for(Clock::duration d) {
    for (const auto until = Clock::now() + d; Clock::now() < until;) {
    }
}

std::int64_t thread_cpu_ns() {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

/// This program once more, with a variable set, running one case; what it printed.
std::string run_self(const char* env, const char* test_case) {
    std::array<char, 4096> self{};
    if (::readlink("/proc/self/exe", self.data(), self.size() - 1) < 0) return "readlink failed";
    const std::string command =
        std::string(env) + " '" + self.data() + "' -tc='" + test_case + "' 2>&1";
    std::string out;
    FILE* p = ::popen(command.c_str(), "r");
    std::array<char, 512> line;
    while (p && std::fgets(line.data(), line.size(), p)) out += line.data();
    if (p) ::pclose(p);
    return out;
}

} // namespace

TEST_CASE("preempt: as many hogs as Ps wait for one more goroutine") {
    if (!preempted_here()) return;
    over_procs([](int n) {
        std::atomic<bool> flag{false};
        std::atomic<int> saw{0}, began{0};
        baton::WaitGroup wg;
        for (int i = 0; i < n; i++) {
            wg.go([&] {
                began++;
                saw += compute_until(flag);
            });
        }
        wg.go([&] {
            while (began < n) baton::yield();
            flag = true;
        });
        wg.wait();
        CHECK(saw == n);
    });
}

TEST_CASE("preempt: hogs alternate with each other, each on its own thread") {
    if (!preempted_here()) return;
    over_procs([](int procs) {
        const int hogs = procs + 1;
        const int rounds = procs == 1 ? 5 : 1;
        std::atomic<int> turn{0}, moved{0}, lost{0};
        baton::WaitGroup wg;
        for (int g = 0; g < hogs; g++) {
            wg.go([&, g] {
                const int home = tid();
                errno = 40 + g;
                // Each waits, computing, for the step of the one before it.
                for (int i = 0; i < rounds; i++) {
                    for (const auto until = Clock::now() + 20s; turn % hogs != g;) {
                        if (Clock::now() > until) {
                            lost++;
                            return;
                        }
                    }
                    moved += tid() != home;
                    moved += errno != 40 + g;
                    turn++;
                }
            });
        }
        wg.wait();
        CHECK(lost == 0);
        CHECK(moved == 0);
        CHECK(turn == hogs * rounds);
    });
}

// Sent away after 10 ms in which it had 3 of a CPU, each would hold a thread, until all had begun.
TEST_CASE("preempt: time without a CPU is not counted") {
    if (!preempted_here()) return;
    constexpr int kCount = 12;
    baton::run([] {}); // starting takes long beside those
    const busy::Processes others(4);
    int inside = 0, most = 0; // by the mutex
    baton::run([&] {
        baton::set_max_procs(2);
        baton::Mutex mutex;
        baton::WaitGroup wg;
        for (int i = 0; i < kCount; i++) {
            wg.go([&] {
                mutex.lock();
                most = std::max(most, ++inside);
                mutex.unlock();
                for (const auto end = thread_cpu_ns() + 6'000'000; thread_cpu_ns() < end;) {
                }
                mutex.lock();
                inside--;
                mutex.unlock();
            });
        }
        wg.wait();
    });
    INFO(most << " of " << kCount << " had begun and not ended");
    CHECK(most <= 4);
}

TEST_CASE("preempt: floating point and vector registers come back") {
    if (!preempted_here()) return;
    over_procs([](int procs) {
        auto work = [] {
            asm volatile(""); // not for the compiler to work out
            std::array<double, 64> v{};
            for (std::size_t i = 0; i < v.size(); i++) v[i] = 1.0 + static_cast<double>(i);
            for (int k = 0; k < 600'000; k++) {
                for (std::size_t i = 0; i < v.size(); i++) v[i] = v[i] * 0.999999 + 1e-3;
            }
            double sum = 0;
            for (double x : v) sum += x;
            return sum;
        };
        const double right = work();
        std::atomic<int> wrong{0};
        baton::WaitGroup wg;
        for (int g = 0; g < 4 + 2 * procs; g++) wg.go([&] { wrong += work() != right; });
        wg.wait();
        CHECK(wrong == 0);
    });
}

TEST_CASE("preempt: stopping the world does not wait for hogs") {
    if (!preempted_here()) return;
    over_procs([](int procs) {
        std::clock_t best = 3600 * CLOCKS_PER_SEC;
        for (int round = 0; round < 3; round++) {
            std::atomic<bool> stop{false};
            std::atomic<int> began{0};
            const int hogs = procs == 1 ? 1 : procs - 1;
            baton::WaitGroup wg;
            for (int i = 0; i < hogs; i++) {
                wg.go([&] {
                    began++;
                    compute_until(stop);
                });
            }
            while (began < hogs) baton::yield();
            const std::clock_t start = std::clock(); // as others may have the CPUs, too
            baton::set_max_procs(procs + round % 2);
            best = std::min(best, std::clock() - start);
            stop = true;
            wg.wait();
        }
        // Two CPUs burn that much in 200 ms; the hogs would have gone on for 20 s.
        CHECK(best * 1000 / CLOCKS_PER_SEC < 400);
    });
}

TEST_CASE("preempt: a hog that lives in announced calls and on credit is fair, too") {
    if (!preempted_here()) return;
    over_procs([](int procs) {
        std::atomic<bool> stop{false};
        std::atomic<int> ticks{0};
        baton::WaitGroup wg;
        for (int i = 0; i < procs; i++) {
            wg.go([&] {
                while (!stop) baton::blocking([] { compute_for(100us); });
            });
            wg.go([&] {
                while (!stop) compute_for(100us);
            });
        }
        wg.go([&] {
            while (!stop) {
                baton::sleep_for(1ms);
                ticks++;
            }
        });
        // 20 ms each if only slices end; on a machine with other work some more.
        const auto end = Clock::now() + 10s;
        while (ticks < 20 && Clock::now() < end) baton::sleep_for(10ms);
        stop = true;
        wg.wait();
        CHECK(ticks >= 20);
    });
}

TEST_CASE("preempt: an M that lost its P in its sleep does not go on for long without one") {
    if (!preempted_here()) return;
    baton::run([] {
        const int procs = baton::set_max_procs(1);
        std::atomic<bool> stop{false};
        baton::WaitGroup wg;
        wg.go([&] { compute_until(stop); });
        double share = 1;
        wg.go([&] {
            timespec ts{0, 20'000'000};
            while (::nanosleep(&ts, &ts) != 0) {
            }
            const auto cpu = [] {
                timespec t;
                ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
                return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
            };
            const double before = cpu();
            compute_for(400ms);
            share = (cpu() - before) / 0.4;
            stop = true;
        });
        wg.wait();
        // One of two who compute, and the first 10 ms are free. On credit for ever: all of a CPU.
        CHECK(share < 0.8);
        baton::set_max_procs(procs);
    });
}

TEST_CASE("preempt: sleeps that nobody announced are not cut short") {
    if (!preempted_here()) return;
    over_procs([](int procs) {
        std::atomic<int> cut{0};
        baton::WaitGroup wg;
        for (int g = 0; g < 2 + procs; g++) {
            wg.go([&] {
                for (int i = 0; i < 3; i++) {
                    const timespec ts{0, 60'000'000};
                    cut += ::nanosleep(&ts, nullptr) != 0;
                    baton::yield();
                }
            });
        }
        wg.wait();
        CHECK(cut == 0);
    });
}

TEST_CASE("preempt: the program's own handler gets the signals that are not ours") {
    baton::run([] {
        urgent = 0;
        std::atomic<bool> flag{false};
        baton::WaitGroup wg;
        const int procs = baton::set_max_procs(1);
        if (preempted_here()) {
            wg.go([&] { compute_until(flag); });
            wg.go([&] { flag = true; });
            wg.wait();
        }
        CHECK(urgent == 0);
        ::kill(::getpid(), SIGURG);
        for (int i = 0; i < 1000 && urgent < 1; i++) baton::sleep_for(1ms);
        CHECK(urgent == 1);
        ::pthread_kill(::pthread_self(), SIGURG);
        for (int i = 0; i < 1000 && urgent < 2; i++) baton::sleep_for(1ms);
        CHECK(urgent == 2);
        baton::set_max_procs(procs);
    });
}

TEST_CASE("preempt: a locked hog keeps its lock and its thread") {
    if (!preempted_here()) return;
    over_procs([](int procs) {
        std::atomic<bool> flag{false};
        baton::WaitGroup wg;
        std::atomic<int> moved{0};
        std::atomic<int> began{0};
        for (int i = 0; i < procs; i++) {
            wg.go([&] {
                baton::lock_os_thread();
                const int home = tid();
                began++;
                CHECK(compute_until(flag));
                for (int k = 0; k < 20; k++) {
                    baton::sleep_for(100us);
                    moved += tid() != home;
                }
                baton::unlock_os_thread();
            });
        }
        wg.go([&] {
            while (began < procs) baton::yield();
            flag = true;
        });
        wg.wait();
        CHECK(moved == 0);
    });
}

TEST_CASE("preempt: (child) what BATON_PREEMPT says") {
    if (std::getenv("BATON_PREEMPT") == nullptr) return;
    baton::run([] {
        baton::set_max_procs(1);
        std::atomic<bool> ran{false};
        baton::go([&] { ran = true; });
        compute_for(100ms);
        std::printf("preempted: %s\n", ran ? "yes" : "no");
    });
}

TEST_CASE("preempt: BATON_PREEMPT=off turns it off, and what is neither on nor off is told") {
    if (!preempted_here()) return;
    const char* child = "preempt: (child)*";
    CHECK(run_self("BATON_PREEMPT=off", child).find("preempted: no") != std::string::npos);
    CHECK(run_self("BATON_PREEMPT=on", child).find("preempted: yes") != std::string::npos);
    const std::string out = run_self("BATON_PREEMPT=maybe", child);
    CHECK(out.find("baton: BATON_PREEMPT=maybe: not one of on, off; using on\n") !=
          std::string::npos);
    CHECK(out.find("preempted: yes") != std::string::npos);
}
