// SPDX-License-Identifier: Apache-2.0
//
// The memory of goroutines that have ended goes back to the system, in the background.
// run: tiers
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include <sys/mman.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/sched.hpp"

using namespace std::chrono_literals;
using namespace baton;
using Clock = std::chrono::steady_clock;

namespace {

constexpr long kMiB = 1 << 20;

long rss() {
    long size = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> size >> resident;
    return resident * getpagesize();
}

long available() {
    std::ifstream info("/proc/meminfo");
    for (std::string word; info >> word;) {
        long kib = 0;
        if (word == "MemAvailable:" && info >> kib) return kib * 1024;
    }
    return 0;
}

[[gnu::noinline]] void touch(std::size_t bytes) {
    char frame[256];
    std::memset(frame, 1, sizeof frame);
    asm volatile("" : : "r"(frame) : "memory");
    if (bytes > sizeof frame) touch(bytes - sizeof frame);
    asm volatile("" : : "r"(frame) : "memory");
}

/// What it takes a thread to give the memory of one stack back, beside others of this process that
/// run: on a virtual machine mostly until the other CPUs have forgotten it.
Clock::duration cost_of_a_stack() {
    constexpr std::size_t kStack = 64 << 10, kStacks = 1000;
    void* at = ::mmap(nullptr, kStack * kStacks, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(at != MAP_FAILED);
    char* const stacks = static_cast<char*>(at);
    for (std::size_t end = kStack; end <= kStack * kStacks; end += kStack)
        std::memset(stacks + end - (8 << 10), 1, 8 << 10);
    const auto start = Clock::now();
    for (std::size_t i = 0; i < kStacks; i++)
        (void)::madvise(stacks + i * kStack, kStack, MADV_DONTNEED);
    const auto took = Clock::now() - start;
    ::munmap(at, kStack * kStacks);
    return took / kStacks;
}

/// So many at once, each using so much of its stack; the most memory that was resident.
long burst(int goroutines, std::size_t bytes, std::size_t stack = 0) {
    long most = 0;
    baton::run([&] {
        Chan<int> gate;
        std::atomic<int> begun{0};
        WaitGroup wg;
        for (int i = 0; i < goroutines; i++) {
            wg.add(1);
            baton::go({.stack_bytes = stack}, [&, gate] {
                touch(bytes);
                begun.fetch_add(1);
                (void)gate.recv();
                wg.done();
            });
        }
        while (begun.load() < goroutines) sleep_for(5ms);
        most = rss();
        gate.close();
        wg.wait();
    });
    return most;
}

/// How long until no more than so much is resident; -1 when it takes over a minute.
double seconds_until(long bytes) {
    const auto start = Clock::now();
    while (rss() > bytes) {
        if (Clock::now() - start > 60s) return -1;
        std::this_thread::sleep_for(10ms);
    }
    return std::chrono::duration<double>(Clock::now() - start).count();
}

} // namespace

TEST_CASE("scavenge: after a burst of goroutines the memory is back within a minute") {
#if defined(BATON_ASAN) || defined(BATON_TSAN)
    std::printf("skip: a sanitizer's shadow memory counts as ours, and stays\n");
#else
    // A fifth of them will do in the other tiers, as the same thread sees to it, in the same way.
    const bool all = baton::run([] { return assist_tier(); }) == Assist::kProbe;
    int goroutines = all ? 200'000 : 40'000;
    constexpr std::size_t kTouched = 8 << 10;
    if (available() < long{goroutines} * 16'384 + 1024 * kMiB) {
        goroutines = 20'000;
        std::printf("skip: no memory for 200,000 goroutines, 20,000 instead\n");
    }
    burst(100, kTouched); // threads, caches
    const long start = rss();
    const long most = burst(goroutines, kTouched);
    const double seconds = seconds_until(start + start / 10 + 8 * kMiB);
    std::printf("%d goroutines: %ld MiB, %ld MiB, %ld MiB after %.1f s\n", goroutines, start / kMiB,
                most / kMiB, rss() / kMiB, seconds);
    CHECK(most > start + long{goroutines} * static_cast<long>(kTouched));
    CHECK(seconds >= 0);
    CHECK(burst(goroutines / 10, kTouched) > start); // and all of it can be used again
#endif
}

TEST_CASE("scavenge: stacks of other sizes go back too") {
#if defined(BATON_ASAN) || defined(BATON_TSAN)
    std::printf("skip: a sanitizer's shadow memory counts as ours, and stays\n");
#else
    const long start = rss();
    const long most = burst(20'000, 8 << 10, 128 << 10);
    CHECK(most > start + 20'000L * (8 << 10));
    CHECK(seconds_until(start + start / 10 + 8 * kMiB) >= 0);
#endif
}

TEST_CASE("scavenge: beside goroutines that run memory goes back too, and what is in use stays") {
    constexpr int kGoroutines = 12'000;
    constexpr auto kLongest = 40s;
    burst(100, 8 << 10);
    const long goal = rss() + rss() / 10 + 16 * kMiB;
    const long most = burst(kGoroutines, 8 << 10);
    std::atomic<int> wrong{0};
    std::atomic<bool> stop{false};
    std::chrono::duration<double> took{0}, each{0};
    baton::run([&] {
        WaitGroup busy;
        for (int i = 0; i < 2 * max_procs(); i++)
            busy.go([&] {
                while (!stop.load()) yield();
            });
        blocking([&] { each = cost_of_a_stack(); });
        // A steady to and fro needs its stacks every time: they are the ones that stay.
        const auto start = Clock::now();
        while (took < 2500ms || (rss() > goal && took < kLongest)) {
            WaitGroup wg;
            for (int i = 0; i < 500; i++) {
                wg.go([&, i] {
                    int copy[64];
                    for (int& c : copy) c = i;
                    yield();
                    for (const int& c : copy) {
                        if (c != i) wrong.fetch_add(1);
                    }
                });
            }
            wg.wait();
            sleep_for(5ms);
            took = Clock::now() - start;
        }
        stop = true;
        busy.wait();
    });
    CHECK(wrong.load() == 0);
#if defined(BATON_ASAN) || defined(BATON_TSAN)
    std::printf("skip: a sanitizer's shadow memory counts as ours, and stays\n");
#else
    CHECK(most > goal + 4'000L * (8 << 10));
    std::printf("%d goroutines: back after %.1f s\n", kGoroutines, took.count());
    // 200,000 within a minute are these in 4 s; until they count as idle it takes two. But 4 % of a
    // CPU is all there is for it, and sysmon has to wait for one.
    const auto least = each * kGoroutines * 25;
    std::printf("%.1f us for a stack, so not before %.1f s\n", each.count() * 1e6, least.count());
    CHECK(took < std::max<std::chrono::duration<double>>(8s, 4s + 3 * least));
#endif
}

TEST_CASE("scavenge: the forced pass leaves nothing that is idle") {
    baton::run([] {
        WaitGroup wg;
        for (int i = 0; i < 1000; i++) wg.go([] { yield(); });
        wg.wait();
    });
    std::this_thread::sleep_for(50ms); // all Ps idle
    rt::gfperiod(true);
    rt::gfperiod(false); // sysmon's next period, before the pass is done
    while (rt::gfscavenge()) {
    }
    std::uint32_t stacks = 0, gs = rt::sched.gfree.list.size();
    for (const rt::FreeStacks& f : rt::sched.stackfree) stacks += f.list.size();
    for (int i = 0; i < max_procs(); i++) {
        stacks += rt::sched.allp[i]->stackfree.n;
        gs += rt::sched.allp[i]->gfree.n;
    }
    CHECK(stacks <= 1); // of a goroutine that ended as we looked
    CHECK(gs <= 1);
    baton::run([] {
        WaitGroup wg;
        for (int i = 0; i < 1000; i++) wg.go([] { yield(); });
        wg.wait();
    });
}
