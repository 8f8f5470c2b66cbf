// SPDX-License-Identifier: Apache-2.0
//
// Goroutines locked to their thread, after the reference's LockOSThread tests.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <ctime>
#include <set>
#include <string>
#include <vector>

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using procs_test::over_procs;
using Clock = std::chrono::steady_clock;

namespace {

int tid() { return static_cast<int>(::syscall(SYS_gettid)); }

bool thread_lives(int id) {
    return ::access(("/proc/self/task/" + std::to_string(id)).c_str(), F_OK) == 0;
}

bool gone_soon(int id) {
    for (const auto until = Clock::now() + 5s; Clock::now() < until;) {
        if (!thread_lives(id)) return true;
        baton::sleep_for(1ms);
    }
    return false;
}

void sleep_raw(std::chrono::milliseconds d) {
    timespec ts{d.count() / 1000, d.count() % 1000 * 1'000'000};
    while (::nanosleep(&ts, &ts) != 0) {
    }
}

/// Keeps Ps and threads moving until it goes out of scope.
class Noise {
public:
    Noise() {
        for (int i = 0; i < 8; i++) {
            wg_.go([this, i] {
                while (!stop_) {
                    baton::yield();
                    if (i % 4 == 0) baton::sleep_for(50us);
                    if (i % 4 == 1) baton::blocking([] { ::usleep(100); });
                }
            });
        }
    }
    ~Noise() {
        stop_ = true;
        wg_.wait();
    }

private:
    std::atomic<bool> stop_{false};
    baton::WaitGroup wg_;
};

/// What a thread's children inherit.
struct Inherited {
    bool blocks_usr1 = false;
    int nice = 0;
    int cpus = 0;
};

Inherited inherited() {
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    cpu_set_t cpus;
    ::sched_getaffinity(0, sizeof cpus, &cpus);
    return {sigismember(&mask, SIGUSR1) == 1, ::getpriority(PRIO_PROCESS, tid()), CPU_COUNT(&cpus)};
}

void change_what_is_inherited() {
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &usr1, nullptr);
    ::setpriority(PRIO_PROCESS, tid(), 5);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(::sched_getcpu(), &one);
    ::sched_setaffinity(0, sizeof one, &one);
}

struct AtThreadEnd {
    std::atomic<int>* count = nullptr;
    ~AtThreadEnd() {
        if (count) ++*count;
    }
};
thread_local AtThreadEnd at_end;
thread_local bool taken = false;

} // namespace

TEST_CASE("locked: the thread stays the same over parks, calls and unannounced blocks") {
    over_procs([](int) {
        Noise noise;
        baton::WaitGroup wg;
        std::atomic<int> moved{0};
        for (int g = 0; g < 4; g++) {
            wg.go([&, g] {
                baton::lock_os_thread();
                const int home = tid();
                baton::Chan<int> c;
                baton::go([&] {
                    for (int i = 0; i < 200; i++) c.send(i);
                });
                for (int i = 0; i < 200; i++) {
                    if (i % 5 == 0) baton::sleep_for(100us);
                    if (i % 5 == 1) baton::yield();
                    if (i % 5 == 2) baton::blocking([] { ::usleep(50); });
                    if (i % 20 == g) sleep_raw(1ms);
                    if (c.recv() != i || tid() != home) moved++;
                }
                baton::unlock_os_thread();
            });
        }
        wg.wait();
        CHECK(moved == 0);
    });
}

TEST_CASE("locked: nothing else runs on the thread") {
    over_procs([](int) {
        std::atomic<int> strangers{0};
        std::atomic<bool> stop{false};
        baton::WaitGroup wg, others;
        for (int i = 0; i < 4; i++) {
            others.go([&] {
                while (!stop) {
                    if (taken) strangers++;
                    baton::yield();
                }
            });
        }
        for (int i = 0; i < 4; i++) {
            wg.go([&] {
                baton::lock_os_thread();
                taken = true;
                for (int k = 0; k < 300; k++) {
                    baton::yield();
                    if (k % 10 == 0) baton::sleep_for(100us);
                    if (k % 10 == 5) baton::blocking([] { ::usleep(50); });
                }
                taken = false;
                baton::unlock_os_thread();
            });
        }
        wg.wait();
        stop = true;
        others.wait();
        CHECK(strangers == 0);
    });
}

TEST_CASE("locked: locks nest, and an unlock too many does nothing") {
    over_procs([](int) {
        baton::unlock_os_thread();
        Noise noise;
        baton::lock_os_thread();
        baton::lock_os_thread();
        const int home = tid();
        baton::unlock_os_thread();
        int moved = 0;
        for (int i = 0; i < 50; i++) {
            baton::sleep_for(100us);
            moved += tid() != home;
        }
        CHECK(moved == 0);
        baton::unlock_os_thread();
        baton::unlock_os_thread();
        // Free again: in so noisy a place it is soon elsewhere.
        bool free = false;
        for (const auto until = Clock::now() + 10s; !free && Clock::now() < until;) {
            baton::blocking([] { ::usleep(500); });
            baton::yield(); // back from a block it goes on where it is, without a processor
            free = tid() != home;
        }
        CHECK(free);
    });
}

TEST_CASE("locked: a goroutine that ends locked takes its thread along") {
    over_procs([](int) {
        static std::atomic<int> ended{0}; // threads that end count in it
        ended = 0;
        for (int i = 0; i < 20; i++) {
            baton::Chan<int> c(1);
            baton::go([&] {
                baton::lock_os_thread();
                if (i % 2) baton::lock_os_thread();
                if (i % 3 == 0) baton::sleep_for(1ms);
                at_end.count = &ended;
                c.send(tid());
            });
            CHECK(gone_soon(*c.recv()));
        }
        CHECK(ended == 20);
    });
}

TEST_CASE("locked: a goroutine that unlocks before its end leaves the thread") {
    over_procs([](int) {
        baton::Chan<int> c(1);
        baton::go([&] {
            baton::lock_os_thread();
            baton::unlock_os_thread();
            c.send(tid());
        });
        const int id = *c.recv();
        baton::sleep_for(20ms);
        CHECK(thread_lives(id));
    });
}

TEST_CASE("locked: a changed signal mask, priority or set of CPUs does not reach new threads") {
    over_procs([](int) {
        const Inherited clean = inherited();
        baton::WaitGroup wg;
        std::atomic<int> tainted{0};
        std::atomic<int> looked{0};
        baton::Mutex mu;
        std::set<int> threads;
        for (int round = 0; round < 3; round++) {
            wg.go([&] {
                baton::lock_os_thread(); // and ends so
                change_what_is_inherited();
                baton::WaitGroup more;
                for (int i = 0; i < 30; i++) {
                    more.go([&] {
                        const Inherited now = inherited();
                        if (now.blocks_usr1 || now.nice != clean.nice || now.cpus != clean.cpus)
                            tainted++;
                        looked++;
                        mu.lock();
                        threads.insert(tid());
                        mu.unlock();
                        baton::blocking([] { ::usleep(20'000); });
                    });
                }
                more.wait();
            });
        }
        wg.wait();
        CHECK(looked == 90);
        CHECK(tainted == 0);
        CHECK(threads.size() >= 2);
    });
}

TEST_CASE("locked: threads end while others are made for locked goroutines") {
    over_procs([](int) {
        baton::WaitGroup wg;
        std::atomic<int> done{0};
        for (int i = 0; i < 200; i++) {
            wg.go([&, i] {
                baton::lock_os_thread();
                baton::WaitGroup child;
                child.go([&] { done++; });
                if (i % 2) child.wait();
                baton::yield();
                if (i % 2 == 0) child.wait();
            });
        }
        wg.wait();
        CHECK(done == 200);
    });
}

// TestYieldLocked
TEST_CASE("locked: yields let others run, locked or not") {
    over_procs([](int) {
        baton::lock_os_thread();
        std::atomic<bool> ran{false};
        baton::go([&] { ran = true; });
        for (const auto until = Clock::now() + 10s; !ran && Clock::now() < until;) baton::yield();
        CHECK(ran);
        baton::Chan<bool> c(1);
        baton::go([&] {
            baton::lock_os_thread();
            for (int i = 0; i < 10; i++) {
                baton::yield();
                baton::sleep_for(1ms);
            }
            c.send(true);
        });
        CHECK(c.recv() == true);
        baton::unlock_os_thread();
    });
}

// TestBlockLocked
TEST_CASE("locked: a locked goroutine waits at each send for one that is not") {
    over_procs([](int) {
        baton::Chan<int> c;
        baton::go([c] {
            baton::lock_os_thread();
            for (int i = 0; i < 10; i++) c.send(i);
            baton::unlock_os_thread();
            c.send(10);
        });
        for (int i = 0; i <= 10; i++) CHECK(c.recv() == i);
    });
}

TEST_CASE("locked: a goroutine that only yields lets timers fire") {
    over_procs([](int) {
        baton::lock_os_thread();
        std::atomic<bool> woke{false};
        baton::WaitGroup sleeper;
        sleeper.go([&] {
            baton::sleep_for(2ms);
            woke = true;
        });
        for (const auto until = Clock::now() + 10s; !woke && Clock::now() < until;) baton::yield();
        CHECK(woke);
        sleeper.wait();
        baton::unlock_os_thread();
    });
}

// TestMexitSTW
TEST_CASE("locked: threads end while the world is stopped again and again") {
    over_procs([](int procs) {
        std::atomic<bool> stop{false};
        baton::WaitGroup busy, ending;
        for (int i = 0; i < 2; i++) {
            busy.go([&] {
                while (!stop) baton::yield();
            });
        }
        for (int i = 0; i < 50; i++) {
            ending.go([] { baton::lock_os_thread(); });
            CHECK(baton::set_max_procs(procs) == procs);
        }
        ending.wait();
        stop = true;
        busy.wait();
    });
}

TEST_CASE("locked: what is left waiting when a locked goroutine blocks goes on") {
    over_procs([](int) {
        baton::WaitGroup wg;
        std::atomic<int> sum{0};
        wg.go([&] {
            baton::lock_os_thread();
            for (int i = 0; i < 100; i++) {
                for (int k = 0; k < 5; k++) wg.go([&] { sum++; });
                baton::sleep_for(50us);
            }
            baton::unlock_os_thread();
        });
        wg.wait();
        CHECK(sum == 500);
    });
}

TEST_CASE("locked: pairs pass values while the number of Ps changes") {
    baton::run([] {
        std::atomic<bool> stop{false};
        std::atomic<long> wrong{0}, passed{0};
        baton::WaitGroup pairs;
        for (int i = 0; i < 6; i++) {
            pairs.go([&, i] {
                baton::Chan<long> there, back;
                baton::WaitGroup echo;
                echo.go([&, i] {
                    if (i % 2) baton::lock_os_thread();
                    while (const auto v = there.recv()) back.send(*v + 1);
                });
                if (i % 3) baton::lock_os_thread();
                for (long v = 0; !stop; v++) {
                    there.send(v);
                    if (back.recv() != v + 1) wrong++;
                    passed++;
                }
                there.close();
                echo.wait();
                if (i % 3) baton::unlock_os_thread();
            });
        }
        for (int i = 0; i < 60; i++) {
            baton::set_max_procs(1 + i % 5);
            baton::sleep_for(5ms);
        }
        stop = true;
        pairs.wait();
        CHECK(wrong == 0);
        CHECK(passed > 100);
    });
}

TEST_CASE("locked: inside blocking it locks too, and on a plain thread it does nothing") {
    baton::lock_os_thread();
    baton::unlock_os_thread();
    over_procs([](int) {
        Noise noise;
        int home = 0;
        baton::blocking([&] {
            baton::lock_os_thread();
            home = tid();
            ::usleep(2'000);
        });
        int moved = 0;
        for (int i = 0; i < 20; i++) {
            baton::sleep_for(100us);
            moved += tid() != home;
        }
        CHECK(moved == 0);
        baton::unlock_os_thread();
    });
}
