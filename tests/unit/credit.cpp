// SPDX-License-Identifier: Apache-2.0
//
// Blocks that nobody announced: the P goes on without the M that sleeps, and the M comes back on
// credit.
// run: tiers
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>

#include <sys/mman.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "runtime/entry.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using procs_test::over_procs;
using Clock = std::chrono::steady_clock;

namespace {

/// Sleeps in the kernel where no bracket says so.
void sleep_raw(std::chrono::milliseconds d) {
    timespec ts{d.count() / 1000, d.count() % 1000 * 1'000'000};
    while (::nanosleep(&ts, &ts) != 0) {
    }
}

bool credit_here() {
    if (baton::assist_tier() == baton::Assist::kProbe) return true;
    for (const baton::KernelFeature& f : baton::kernel_features()) {
        if (f.name != "sleepers" || f.usable) continue;
        std::printf("skip: no probe, and no /proc to tell who sleeps: %s\n", f.detail.c_str());
        return false;
    }
    return true;
}

/// A thread on its way out that takes its time, asleep mostly.
struct Leaver {
    static inline std::atomic<bool> leaving{false}, quit{false};
    ~Leaver() {
        leaving = true;
        while (!quit) sleep_raw(1ms);
    }
};

} // namespace

TEST_CASE("credit: Gs that sleep unannounced do not keep the Ps they have") {
    if (!credit_here()) return;
    over_procs([](int procs) {
        const int naps = procs == 1 ? 20 : 6;
        int computed = 0; // in so many naps; the machine may have had other things to do in some
        for (int i = 0; i < naps; i++) {
            std::atomic<int> asleep{procs};
            std::atomic<long> steps{0};
            baton::WaitGroup wg;
            for (int g = 0; g < procs; g++) {
                wg.go([&] {
                    sleep_raw(20ms);
                    asleep--;
                });
            }
            wg.go([&] {
                while (asleep == procs) {
                    steps++;
                    baton::yield();
                }
            });
            wg.wait();
            computed += steps > 100; // with the Ps kept there is one, once they are back
        }
        CHECK(computed >= naps / 2);
    });
    CHECK(baton::stats().handoffs >= 10);
}

TEST_CASE("credit: who comes back without a P gets one at its next call") {
    if (!credit_here()) return;
    over_procs([](int procs) {
        const int gs = 8 * procs;
        std::atomic<int> done{0};
        baton::Mutex mu;
        long sum = 0;
        baton::WaitGroup wg;
        for (int g = 0; g < gs; g++) {
            wg.go([&] {
                for (int i = 0; i < 50; i++) {
                    sleep_raw(1ms);
                    mu.lock();
                    sum++;
                    mu.unlock();
                    baton::yield();
                    baton::Chan<int> c(1);
                    c.send(i);
                    CHECK(c.recv() == i);
                }
                done++;
            });
        }
        wg.wait();
        CHECK(done == gs);
        CHECK(sum == 50L * gs);
    });
}

TEST_CASE("credit: sleeps side by side take no longer than one, on however few Ps") {
    if (!credit_here()) return;
    over_procs([](int procs) {
        const auto start = Clock::now();
        baton::WaitGroup wg;
        for (int g = 0; g < 16 * procs; g++) wg.go([] { sleep_raw(100ms); });
        wg.wait();
        CHECK(Clock::now() - start < 800ms); // one after the other on each: 1600
    });
}

TEST_CASE("credit: a bracket, and the end of a goroutine, right after an unannounced block") {
    if (!credit_here()) return;
    over_procs([](int) {
        std::atomic<int> n{0};
        baton::WaitGroup wg;
        for (int g = 0; g < 200; g++) {
            wg.go([&, g] {
                sleep_raw(1ms);
                if (g % 2) baton::blocking([] { sleep_raw(1ms); });
                n++;
            });
        }
        wg.wait();
        CHECK(n == 200);
    });
}

TEST_CASE("credit: a thread that leaves takes no P from the next one in its place") {
    if (!credit_here()) return;
    baton::run([] {
        baton::set_max_procs(4);
        std::atomic<std::uint32_t> place{0};
        std::atomic<int> looked{0}, robbed{0};
        std::atomic<bool> done{false};
        baton::go([&] {
            baton::lock_os_thread(); // to the end: so the thread ends, too
            thread_local Leaver leaver;
            (void)&leaver;
            place = baton::rt::getm()->slot;
        });
        while (!Leaver::leaving) baton::yield();
        // Threads are made until one has the place: first those go that earlier cases left idle.
        baton::WaitGroup wg;
        for (int i = 0; i < 2000 && looked == 0; i++) {
            wg.go([&] {
                baton::rt::M* m = baton::rt::getm();
                if (m->slot != place) {
                    baton::blocking([&] {
                        while (!done) sleep_raw(1ms);
                    });
                    return;
                }
                for (const auto end = Clock::now() + 50ms; Clock::now() < end; looked++) {
                    robbed += baton::rt::state_of(m) != baton::shared::M_RUNNING;
                }
            });
            baton::sleep_for(1ms);
        }
        done = true;
        wg.wait();
        CHECK(looked > 0);
        CHECK(robbed == 0);
        Leaver::quit = true;
    });
}

TEST_CASE("credit: who sleeps unannounced does not hold up who stops the world") {
    if (!credit_here()) return;
    over_procs([](int procs) {
        std::atomic<int> sleeping{0};
        std::atomic<int> left{procs};
        baton::WaitGroup wg;
        for (int g = 0; g < procs; g++) {
            wg.go([&] {
                sleeping++;
                sleep_raw(150ms);
                left--;
            });
        }
        while (sleeping < procs) baton::yield();
        baton::set_max_procs(procs + 1);
        CHECK(left == procs); // nobody had to come back for it
        wg.wait();
    });
}
