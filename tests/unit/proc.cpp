// SPDX-License-Identifier: Apache-2.0
//
// Goroutines as their users see them: run, go, yield, blocking, exceptions, errno, the number of
// processors. No INFO and no CAPTURE where a goroutine may park: doctest keeps those per thread.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <exception>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using baton::WaitGroup;
using procs_test::eventually;
using procs_test::over_procs;

namespace {

/// Noinline and opaque: errno's address is the thread's, and a goroutine changes threads.
[[gnu::noinline]] int get_errno() {
    asm volatile("" ::: "memory");
    return errno;
}
[[gnu::noinline]] void set_errno(int value) {
    asm volatile("" ::: "memory");
    errno = value;
}
long tid() { return ::syscall(SYS_gettid); }

double cpu_seconds() {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

} // namespace

TEST_CASE("proc: run returns what its function returns and rethrows what it throws") {
    CHECK(baton::run([] { return 42; }) == 42);
    CHECK(*baton::run([] { return std::make_unique<std::string>("moved"); }) == "moved");
    bool ran = false;
    baton::run([&] { ran = true; });
    CHECK(ran);
    CHECK_THROWS_WITH_AS(baton::run([] { throw std::range_error("no"); }), "no", std::range_error);
    CHECK_THROWS_AS(baton::run([]() -> int { throw 7; }), int);
    CHECK_THROWS_AS(baton::run([] { baton::run([] {}); }), std::logic_error);
}

TEST_CASE("proc: go works from plain threads, and the arguments are moved and decayed") {
    std::atomic<int> sum{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([&] {
            for (int n = 0; n < 100; n++) baton::go([&sum] { sum.fetch_add(1); });
        });
    }
    for (std::thread& t : threads) t.join();
    CHECK(eventually([&] { return sum.load() == 400; }));

    baton::run([] {
        WaitGroup wg;
        int number = 1;
        wg.go(
            [](std::unique_ptr<int> p, const std::string& s, int n) {
                CHECK(*p == 5);
                CHECK(s == "array decays");
                CHECK(n == 1);
            },
            std::make_unique<int>(5), "array decays", number);
        number = 2; // it has its copy
        wg.wait();
        struct alignas(256) Aligned {
            int value = 9;
        };
        wg.go(
            [](const Aligned& a) {
                CHECK(reinterpret_cast<std::uintptr_t>(&a) % 256 == 0);
                CHECK(a.value == 9);
            },
            Aligned{});
        std::array<char, 16 << 10> large{};
        large.fill('x');
        wg.go([large] { CHECK(std::count(large.begin(), large.end(), 'x') == 16 << 10); });
        struct CopyThrows {
            CopyThrows() = default;
            CopyThrows(const CopyThrows&) { throw std::runtime_error("copy"); }
        } bad;
        CHECK_THROWS_AS(baton::go([](const CopyThrows&) {}, bad), std::runtime_error);
        CHECK_THROWS_AS(baton::go({.stack_bytes = std::size_t{2} << 30}, [] {}), std::system_error);
        wg.wait();
    });
    auto alive = std::make_shared<int>(0);
    baton::run([&] { baton::go([alive] {}); });
    CHECK(eventually([&] { return alive.use_count() == 1; })); // the closure was destroyed
}

TEST_CASE("proc: goroutine numbers are unique and never 0; 0 is a plain thread's") {
    CHECK(baton::goid() == 0);
    constexpr int kEach = 2000;
    std::vector<std::uint64_t> ids;
    over_procs([&](int) {
        ids.assign(2 * kEach, 0);
        CHECK(baton::goid() != 0);
        WaitGroup wg;
        for (int i = 0; i < kEach; i++) wg.go([&, i] { ids[i] = baton::goid(); });
        wg.add(kEach);
        std::thread plain([&] {
            for (int i = kEach; i < 2 * kEach; i++) {
                baton::go([&, i] {
                    ids[i] = baton::goid();
                    wg.done();
                });
            }
        });
        baton::blocking([&] { plain.join(); });
        wg.wait();
        CHECK(!std::count(ids.begin(), ids.end(), 0u));
        CHECK(std::set<std::uint64_t>(ids.begin(), ids.end()).size() == ids.size());
    });
}

namespace {

struct Sad {
    int value;
};

/// Yields while an exception unwinds past it.
struct YieldsInDestructor {
    int* seen;
    ~YieldsInDestructor() {
        for (int i = 0; i < 3; i++) baton::yield();
        *seen = std::uncaught_exceptions();
    }
};

/// Parks in every place where exception state is live; false if any of it was another's.
bool exceptions_of(int me) {
    bool good = std::uncaught_exceptions() == 0;
    int during = -1;
    try {
        try {
            YieldsInDestructor unwinding{&during};
            throw Sad{me};
        } catch (const Sad& sad) {
            baton::yield();
            good &= sad.value == me;
            try {
                throw std::runtime_error(std::to_string(me));
            } catch (const std::runtime_error& inner) {
                baton::sleep_for(100us);
                good &= inner.what() == std::to_string(me);
                good &= std::uncaught_exceptions() == 0;
            }
            baton::blocking([] { ::usleep(100); });
            good &= std::current_exception() != nullptr;
            baton::yield();
            throw; // the outer one again, not the inner, and nobody else's
        }
    } catch (const Sad& again) {
        baton::yield();
        good &= again.value == me;
    }
    good &= during == 1;
    try { // out of a blocking call, which may come back on another thread
        baton::blocking([me] {
            ::usleep(50);
            throw Sad{-me};
        });
        good = false;
    } catch (const Sad& sad) {
        good &= sad.value == -me;
    }
    return good && std::current_exception() == nullptr && std::uncaught_exceptions() == 0;
}

} // namespace

TEST_CASE("proc: exceptions stay with their goroutine when it parks in a catch block") {
    over_procs([](int) {
        std::atomic<int> good{0};
        WaitGroup wg;
        for (int i = 1; i <= 8; i++) {
            wg.go([&, i] {
                for (int round = 0; round < 25; round++) good.fetch_add(exceptions_of(i));
            });
        }
        wg.wait();
        CHECK(good.load() == 8 * 25);
    });
}

TEST_CASE("proc: errno survives blocking, also when the goroutine comes back on another thread") {
    std::atomic<int> moved{0};
    over_procs([&](int) {
        std::atomic<int> wrong{0};
        std::atomic<bool> stop{false};
        WaitGroup busy, wg;
        for (int i = 0; i < 4; i++) {
            busy.go([&] {
                while (!stop.load()) {
                    set_errno(-1);
                    baton::yield();
                }
            });
        }
        timespec start{};
        ::clock_gettime(CLOCK_MONOTONIC, &start);
        // All come back at once, and are more than may go on without a processor.
        for (int i = 0; i < 32; i++) {
            wg.go([&, i] {
                for (int round = 1; round <= 10; round++) {
                    const long before = tid();
                    baton::blocking([&] {
                        const long ns = start.tv_nsec + round * 25'000'000L;
                        const timespec until{start.tv_sec + ns / 1'000'000'000, ns % 1'000'000'000};
                        ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
                        set_errno(1000 + i);
                    });
                    wrong.fetch_add(get_errno() != 1000 + i);
                    moved.fetch_add(tid() != before);
                }
            });
        }
        wg.wait();
        stop.store(true);
        busy.wait();
        CHECK(wrong.load() == 0);
    });
    CHECK(moved.load() > 0); // the premise
}

TEST_CASE("proc: blocking returns values, nests, starts goroutines, and works on a plain thread") {
    CHECK(baton::blocking([] { return 3; }) == 3);
    over_procs([](int) {
        const std::uint64_t me = baton::goid();
        WaitGroup wg;
        std::atomic<int> ran{0};
        const int value = baton::blocking([&] {
            ::usleep(100);
            wg.go([&] { ran.fetch_add(1); });
            const int inner = baton::blocking([&] {
                ::usleep(1000);
                wg.go([&] { ran.fetch_add(1); });
                return 20;
            });
            CHECK(baton::goid() == me);
            wg.go([&] { ran.fetch_add(1); });
            return inner + 1;
        });
        CHECK(value == 21);
        wg.wait();
        CHECK(ran.load() == 3);
    });
}

TEST_CASE("proc: while one goroutine blocks in the kernel the others run, also on one processor") {
    over_procs([](int) {
        int ends[2];
        REQUIRE(::pipe(ends) == 0);
        std::atomic<bool> got{false};
        WaitGroup wg;
        for (int round = 0; round < 20; round++) {
            got.store(false);
            wg.go([&] {
                char c = 0;
                baton::blocking([&] { return ::read(ends[0], &c, 1); });
                got.store(c == 'x');
            });
            baton::yield(); // it is in the kernel now
            CHECK(!got.load());
            REQUIRE(::write(ends[1], "x", 1) == 1);
            wg.wait();
            CHECK(got.load());
        }
        ::close(ends[0]);
        ::close(ends[1]);
    });
}

TEST_CASE("proc: set_max_procs up and down under load loses nothing") {
    baton::run([] {
        std::atomic<std::uint64_t> done{0};
        std::atomic<bool> stop{false};
        std::uint64_t started = 0;
        WaitGroup wg;
        for (int i = 0; i < 16; i++) {
            started++;
            wg.go([&, i] {
                while (!stop.load()) {
                    if (i % 4 == 0) baton::sleep_for(200us);
                    if (i % 4 == 1) baton::blocking([] { ::usleep(200); });
                    if (i % 4 == 2) wg.go([&] { done.fetch_add(1); }), done.fetch_sub(1);
                    baton::yield();
                }
                done.fetch_add(1);
            });
        }
        CHECK(baton::set_max_procs(1) >= 1);
        int former = 1;
        for (const int n : {2, 4, 8, 16, 32, 64, 33, 16, 7, 3, 2, 1, 64, 1, 2, 1, 5}) {
            CHECK(baton::set_max_procs(n) == former);
            CHECK(baton::max_procs() == n);
            former = n;
            baton::sleep_for(5ms);
        }
        stop.store(true);
        wg.wait();
        CHECK(done.load() == started);
        CHECK_THROWS_AS(baton::set_max_procs(0), std::invalid_argument);
        CHECK_THROWS_AS(baton::set_max_procs(2000), std::invalid_argument);
        CHECK(baton::max_procs() == 5);
    });
}

namespace {

/// Uses about `bytes` of stack, parking at the bottom of it.
[[gnu::noinline]] std::uint64_t deep(std::size_t bytes) {
    volatile char frame[1024];
    for (std::size_t i = 0; i < sizeof frame; i += 64) frame[i] = static_cast<char>(bytes >> 10);
    if (bytes <= sizeof frame) {
        for (int i = 0; i < 3; i++) baton::yield();
        return 1;
    }
    const std::uint64_t below = deep(bytes - sizeof frame);
    for (std::size_t i = 0; i < sizeof frame; i += 64) {
        if (frame[i] != static_cast<char>(bytes >> 10)) return 0;
    }
    return below != 0 ? below + 1 : 0;
}

} // namespace

#if defined(BATON_ASAN)
constexpr std::size_t kLarge = 600; // its frames are larger
#else
constexpr std::size_t kLarge = 900;
#endif

TEST_CASE("proc: stacks can be used, the usual 64 KiB and a larger one") {
    over_procs([](int) {
        std::atomic<int> good{0};
        WaitGroup wg;
        wg.add(16);
        for (int i = 0; i < 16; i++) {
            const std::size_t large = i % 2 == 0 ? 0 : 1 << 20;
            const std::size_t use = large != 0 ? kLarge << 10 : 40 << 10;
            baton::go({.stack_bytes = large}, [&, use] {
                good.fetch_add(deep(use) == use >> 10);
                wg.done();
            });
        }
        wg.wait();
        CHECK(good.load() == 16);
    });
}

// TestNumGoroutine, TestNoHelperGoroutines. The dump is counted in deadlock.cpp.
TEST_CASE("proc: goroutines are counted, and the runtime has none of its own") {
    over_procs([](int) {
        const auto alone = [] {
            for (int i = 0; i < 1000 && baton::stats().goroutines != 1; i++) baton::sleep_for(5ms);
            return baton::stats().goroutines == 1;
        };
        CHECK(alone()); // those of other cases end a moment after they were waited for
        baton::Chan<int> never;
        WaitGroup wg;
        for (int i = 0; i < 100; i++) wg.go([=] { (void)never.recv(); });
        CHECK(baton::stats().goroutines == 101);
        never.close();
        wg.wait();
        CHECK(alone());
    });
}

TEST_CASE("proc: stats, the tier and the features say what is the case") {
    over_procs([](int) {
        const baton::Stats before = baton::stats();
        WaitGroup wg;
        std::atomic<bool> counted{false};
        for (int i = 0; i < 100; i++) {
            wg.go([&] {
                while (!counted.load()) baton::sleep_for(std::chrono::milliseconds(1));
                baton::blocking([] { ::usleep(1000); });
            });
        }
        CHECK(baton::stats().goroutines >= 100);
        counted.store(true);
        wg.wait();
        const baton::Stats after = baton::stats();
        CHECK(after.threads >= 1);
        CHECK(after.threads <= after.threads_peak);
        CHECK(after.threads_idle <= after.threads);
        CHECK(after.handoffs >= before.handoffs);
        CHECK(after.handoffs == after.handoffs_understudy + after.handoffs_scan +
                                    after.handoffs_ringbuf + after.handoffs_sysmon);
    });
    CHECK(eventually([] { return baton::stats().goroutines == 0; }));
    std::set<std::string> names;
    for (const baton::KernelFeature& f : baton::kernel_features()) names.insert(f.name);
    for (const char* name : {"rseq", "futex2", "bpf"}) CHECK(names.count(name) == 1);
    MESSAGE(std::string(baton::to_string(baton::assist_tier())));
}

TEST_CASE("proc: an idle process uses no CPU") {
    over_procs([](int) {
        WaitGroup wg;
        for (int i = 0; i < 100; i++) wg.go([] { baton::sleep_for(1ms); });
        wg.wait();
    });
    std::this_thread::sleep_for(2500ms); // dead goroutines' stacks go back to the system first
    // What other machines on this hardware take is counted as ours, and what earlier tests left is
    // still given back: there must be such a second before long.
    double used = 1;
    for (int i = 0; i < 60 && used >= 0.005; i++) {
        const double before = cpu_seconds();
        std::this_thread::sleep_for(1s);
        used = std::min(used, cpu_seconds() - before);
    }
    CHECK(used < 0.005);
}
