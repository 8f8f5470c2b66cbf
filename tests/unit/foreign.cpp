// SPDX-License-Identifier: Apache-2.0
//
// Plain threads that use baton as goroutines do.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/patience.hpp"
#include "support/child.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::Conn;
using baton::Listener;
using baton::WaitGroup;
using Clock = std::chrono::steady_clock;

namespace {

/// Over several numbers of processors.
template <class F>
void over_procs(F f) {
    for (const int procs : {1, 2, 4, 8}) {
        baton::run([procs] { baton::set_max_procs(procs); });
        f();
    }
}

/// Of all CPUs, in ticks.
struct CpuTimes {
    double idle = 0, all = 0;
};
CpuTimes cpu_times() {
    CpuTimes times;
    std::ifstream stat("/proc/stat");
    std::string word;
    stat >> word;
    double ticks = 0;
    for (int column = 0; column < 8 && stat >> ticks; column++) {
        times.all += ticks;
        if (column == 3) times.idle = ticks;
    }
    return times;
}

struct Threads {
    std::vector<std::thread> all;
    template <class F>
    void add(F f) {
        all.emplace_back(std::move(f));
    }
    ~Threads() {
        for (std::thread& t : all) t.join();
    }
};

} // namespace

TEST_CASE("foreign: a plain thread and a goroutine hand values to each other, unbuffered") {
    over_procs([] {
        constexpr int kN = 2000;
        Chan<int> there, back;
        baton::go([=] {
            for (const int n : there) back.send(n + 1);
            back.close();
        });
        std::thread([=] {
            for (int i = 0; i < kN; i++) {
                there.send(i);
                CHECK(back.recv() == i + 1);
            }
            there.close();
            CHECK(!back.recv());
        }).join();
    });
}

TEST_CASE("foreign: a plain thread and a goroutine that answer at once do not sleep in between") {
    if (std::thread::hardware_concurrency() < 2) {
        std::printf("skip: one CPU: the two cannot be awake at once\n");
        return;
    }
    over_procs([] {
        constexpr long kN = 200;
        Chan<int> there, back;
        baton::go([=] {
            for (const int n : there) back.send(n + 1);
        });
        std::thread([=] {
            const auto sleeps = [] { // of all threads
                rusage use;
                ::getrusage(RUSAGE_SELF, &use);
                return use.ru_nvcsw;
            };
            // The best of some rounds, and only if the CPUs had nothing else to do: two that sleep
            // at each value leave most of them idle.
            const CpuTimes before = cpu_times();
            long best = 2 * kN;
            for (const auto end = Clock::now() + 3s; best > kN / 4 && Clock::now() < end;) {
                const long slept = sleeps();
                for (int i = 0; i < kN; i++) {
                    there.send(i);
                    (void)back.recv();
                }
                best = std::min(best, sleeps() - slept);
            }
            const CpuTimes after = cpu_times();
            const double idle = (after.idle - before.idle) / (after.all - before.all);
            const bool busy = best > kN / 4 && idle < 0.2;
            if (busy) std::printf("skip: others use the CPUs: nothing to be said of who sleeps\n");
            CHECK((best <= kN / 4 || busy));
        }).join();
        there.close();
    });
}

TEST_CASE("foreign: who stays awake in vain soon does so no longer, but tries again") {
    baton::rt::Patience patience;
    const auto tries = [&](int waits) {
        int n = 0;
        for (int i = 0; i < waits; i++) {
            if (!patience.worth_it()) continue;
            n++;
            patience.note(false);
        }
        return n;
    };
    CHECK(tries(1000) < 40);
    CHECK(tries(100) > 0);
    while (!patience.worth_it()) {
    }
    patience.note(true);
    CHECK(tries(1));
    CHECK(tries(1));
}

TEST_CASE("foreign: two plain threads talk through a channel, buffered and not") {
    for (const std::size_t room : {0, 1, 16}) {
        Chan<int> c(room);
        std::thread sender([=] {
            for (int i = 0; i < 5000; i++) c.send(i);
            c.close();
        });
        int expected = 0;
        for (const int n : c) CHECK(n == expected++);
        CHECK(expected == 5000);
        sender.join();
    }
}

TEST_CASE("foreign: close wakes plain threads that send and receive") {
    Chan<int> in, out;
    std::atomic<int> thrown{0}, ended{0};
    {
        Threads threads;
        for (int i = 0; i < 4; i++) {
            threads.add([&, in] {
                if (!in.recv()) ended++;
            });
            threads.add([&, out] {
                try {
                    out.send(1);
                } catch (const baton::ChanClosed&) {
                    thrown++;
                }
            });
        }
        std::this_thread::sleep_for(20ms);
        baton::run([=] {
            in.close();
            out.close();
        });
    }
    CHECK(ended == 4);
    CHECK(thrown == 4);
}

TEST_CASE("foreign: Mutex between plain threads and goroutines") {
    over_procs([] {
        constexpr int kEach = 3000;
        baton::Mutex mutex;
        int guarded = 0;
        auto work = [&] {
            for (int i = 0; i < kEach; i++) {
                mutex.lock();
                guarded++;
                if (i % 64 == 0) baton::yield();
                mutex.unlock();
            }
        };
        WaitGroup wg;
        Threads threads;
        for (int i = 0; i < 4; i++) wg.go(work);
        for (int i = 0; i < 4; i++) threads.add(work);
        wg.wait(); // on this plain thread
        for (std::thread& t : threads.all) t.join();
        threads.all.clear();
        CHECK(guarded == 8 * kEach);
    });
}

TEST_CASE("foreign: WaitGroup waited for on plain threads, done by either kind") {
    over_procs([] {
        for (int round = 0; round < 50; round++) {
            WaitGroup wg;
            std::atomic<int> sum{0};
            for (int i = 0; i < 8; i++) wg.go([&] { sum++; });
            wg.add(1);
            std::thread other([&] {
                sum++;
                wg.done();
            });
            std::atomic<int> seen{0};
            {
                Threads waiters;
                for (int i = 0; i < 3; i++)
                    waiters.add([&] {
                        wg.wait();
                        seen += sum;
                    });
            }
            other.join();
            CHECK(seen == 27);
        }
    });
}

TEST_CASE("foreign: sleep, yield, goid and blocking on a plain thread") {
    std::thread([] {
        const auto start = Clock::now();
        baton::sleep_for(30ms);
        CHECK(Clock::now() - start >= 30ms);
        baton::yield();
        CHECK(baton::goid() == 0);
        Chan<int> c;
        baton::go([=] { c.send(1); });
        CHECK(c.recv() == 1);
        CHECK(baton::goid() == 0);
        CHECK(baton::blocking([] { return 7; }) == 7);
    }).join();
}

TEST_CASE("foreign: set_max_procs on a plain thread") {
    std::thread([] {
        baton::set_max_procs(3);
        CHECK(baton::max_procs() == 3);
        CHECK(baton::set_max_procs(2) == 3);
        CHECK(baton::set_max_procs(4) == 2);
    }).join();
    {
        Threads threads;
        for (int i = 0; i < 4; i++)
            threads.add([i] {
                for (int n = 0; n < 20; n++) baton::set_max_procs(1 + (i + n) % 4);
            });
    }
    baton::set_max_procs(2);
}

TEST_CASE("foreign: a ring of goroutines and plain threads passes one token") {
    over_procs([] {
        constexpr int kRing = 8, kRounds = 200;
        std::vector<Chan<int>> at(kRing);
        WaitGroup wg;
        Threads threads;
        for (int i = 0; i < kRing; i++) {
            auto station = [&at, i] {
                for (int r = 0; r < kRounds; r++) {
                    const int token = *at[i].recv();
                    CHECK(token == r * kRing + i);
                    if (token + 1 < kRing * kRounds) at[(i + 1) % kRing].send(token + 1);
                }
            };
            if (i % 2) {
                wg.go(station);
            } else {
                threads.add(station);
            }
        }
        at[0].send(0);
        wg.wait();
    });
}

TEST_CASE("foreign: 64 threads at once, that start goroutines and wait for them") {
    over_procs([] {
        std::atomic<long> sum{0};
        {
            Threads threads;
            for (int t = 0; t < 64; t++)
                threads.add([&sum, t] {
                    for (int i = 0; i < 20; i++) {
                        Chan<int> c;
                        WaitGroup wg;
                        for (int g = 0; g < 4; g++) wg.go([=] { c.send(t); });
                        for (int g = 0; g < 4; g++) sum += *c.recv();
                        wg.wait();
                    }
                });
        }
        CHECK(sum == 64 * 63 / 2 * 80);
    });
}

TEST_CASE("foreign: threads that end right after they are woken, while others run") {
    over_procs([] {
        Chan<int> c;
        WaitGroup wg;
        constexpr int kThreads = 400;
        wg.go([=] {
            for (int i = 0; i < kThreads; i++) c.send(i);
        });
        std::atomic<int> sum{0};
        for (int i = 0; i < kThreads; i += 8) {
            Threads few;
            for (int t = 0; t < 8; t++) few.add([&, c] { sum += *c.recv(); });
        }
        wg.wait();
        CHECK(sum == kThreads * (kThreads - 1) / 2);
    });
}

namespace {
struct WaitsAtExit {
    Chan<int> ask, answer;
    std::atomic<bool>* done = nullptr;
    ~WaitsAtExit() {
        if (!done) return;
        ask.send(1);
        *done = answer.recv() == 2;
    }
};
} // namespace

TEST_CASE("foreign: a thread_local's destructor may wait, after the thread has waited and before") {
    for (const bool before : {false, true}) {
        std::atomic<bool> done{false};
        Chan<int> ask, answer;
        baton::go([=] {
            for (const int n : ask) answer.send(n + 1);
        });
        std::thread([&] {
            static thread_local WaitsAtExit at_exit;
            at_exit.ask = ask;
            at_exit.answer = answer;
            at_exit.done = &done;
            if (!before) return;
            ask.send(5);
            CHECK(answer.recv() == 6);
        }).join();
        CHECK(done);
        ask.close();
    }
}

TEST_CASE("foreign: callbacks of a C library's thread") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer does not know of threads that glibc makes for itself\n");
    return;
#endif
    struct Timer {
        Chan<int> c;
        WaitGroup wg;
        timer_t id{};
    } timer;
    timer.wg.add(3);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD;
    event.sigev_value.sival_ptr = &timer;
    event.sigev_notify_function = [](sigval value) {
        auto* t = static_cast<Timer*>(value.sival_ptr);
        if (const auto got = t->c.recv()) { // waits: nobody sends yet
            CHECK(*got == 9);
            t->wg.done();
        }
    };
    REQUIRE(::timer_create(CLOCK_MONOTONIC, &event, &timer.id) == 0);
    const itimerspec every{{0, 2'000'000}, {0, 1'000'000}};
    REQUIRE(::timer_settime(timer.id, 0, &every, nullptr) == 0);
    baton::run([&] {
        baton::sleep_for(10ms);
        for (int i = 0; i < 3; i++) timer.c.send(9);
        timer.wg.wait();
    });
    ::timer_delete(timer.id);
    timer.c.close();
    std::this_thread::sleep_for(20ms); // callbacks on their way
}

TEST_CASE("foreign: plain threads wait although every P is in a blocking call") {
    over_procs([] {
        Chan<int> c;
        const int procs = baton::max_procs();
        std::atomic<bool> stop{false};
        WaitGroup wg;
        for (int i = 0; i < procs; i++)
            wg.go([&] {
                while (!stop) baton::blocking([] { ::usleep(3000); });
            });
        wg.go([=] {
            for (int i = 0; i < 30; i++) c.send(i);
        });
        for (int i = 0; i < 30; i++) CHECK(c.recv() == i);
        stop = true;
        wg.wait();
    });
}

// ---- in a process of its own, as the runtime must not have started ----

TEST_CASE("child: started by another thread" * doctest::skip()) {
    std::thread([] {
        Chan<int> c;
        baton::go([=] { c.send(3); });
        CHECK(c.recv() == 3);
    }).join();
    std::thread([] { baton::run([] { baton::sleep_for(1ms); }); }).join();
    CHECK(baton::run([] { return 4; }) == 4);
    child_process::reached();
}
TEST_CASE("child: never started" * doctest::skip()) {
    Chan<int> c;
    baton::Mutex mutex;
    WaitGroup wg;
    wg.add(1);
    mutex.lock();
    std::thread other([&] {
        mutex.lock();
        mutex.unlock();
        c.send(1);
        wg.done();
    });
    std::this_thread::sleep_for(10ms);
    mutex.unlock();
    CHECK(c.recv() == 1);
    wg.wait();
    other.join();
    CHECK(baton::stats().threads == 0);
    child_process::reached();
}
TEST_CASE("child: started by a socket" * doctest::skip()) {
    Listener listener = Listener::listen("tcp", "127.0.0.1:0");
    std::thread client([&] { (void)Conn::dial("tcp", listener.address()); });
    CHECK(listener.accept());
    client.join();
    child_process::reached();
}
TEST_CASE("child: main alone" * doctest::skip()) {
    baton::run([] {});
    std::this_thread::sleep_for(std::chrono::milliseconds(30)); // nobody is awake by now
    (void)Chan<int>().recv();                                   // nobody will ever send
    child_process::reached();
}

TEST_CASE("foreign: the runtime started by a thread other than main, by a socket, or never") {
    for (const char* title : {"started by another thread", "never started", "started by a socket"})
        child_process::check_works(child_process::run_child(title));
}

TEST_CASE("foreign: a plain thread that waits for ever is part of a deadlock") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer has a thread of its own\n");
#else
    const auto child = child_process::run_child("main alone");
    INFO(child.output);
    CHECK(child.exited(2));
    CHECK(child.has("fatal error: all goroutines are asleep - deadlock!\n\nthread "));
    CHECK(child.has(" [chan receive]\n"));
#endif
}
