// SPDX-License-Identifier: Apache-2.0
//
// Storms on the scheduler: many are started, yield, sleep, or are readied from plain threads, while
// the number of processors changes all along. Each storm counts what it did.
// run: tiers
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "baton/baton.hpp"
#include "kernel/build.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::WaitGroup;
using Clock = std::chrono::steady_clock;

namespace {

std::chrono::milliseconds how_long() { return std::getenv("SOAK") != nullptr ? 30s : 700ms; }

/// Changes the number of processors until it is told to stop.
class Changer {
public:
    Changer() {
        baton::go([this] {
            constexpr int kProcs[] = {1, 2, 4, 3, 16, 1, 64, 2, 5};
            for (; !stop_.load(); changes_++) {
                baton::set_max_procs(kProcs[changes_ % std::size(kProcs)]);
                baton::sleep_for(3ms);
            }
            wg_.done();
        });
    }
    /// How often it did.
    int stop() {
        stop_.store(true);
        wg_.wait();
        return changes_;
    }

private:
    std::atomic<bool> stop_{false};
    int changes_ = 0;
    WaitGroup wg_;
    struct Count {
        explicit Count(WaitGroup& wg) { wg.add(1); }
    } count_{wg_};
};

/// Runs storm(until) as a goroutine under changing numbers of processors.
template <class F>
void under_change(F storm) {
    baton::run([&] {
        auto changer = std::make_unique<Changer>();
        storm(Clock::now() + how_long());
        CHECK(changer->stop() > 5);
        CHECK(baton::set_max_procs(2) >= 1);
    });
}

/// A tree of goroutines: each starts two more, down to `depth`.
void grow(WaitGroup& wg, std::atomic<std::uint64_t>& leaves, int depth) {
    if (depth == 0) {
        leaves.fetch_add(1);
        return;
    }
    for (int i = 0; i < 2; i++) wg.go([&, depth] { grow(wg, leaves, depth - 1); });
}

} // namespace

TEST_CASE("sched: a storm of starts") {
    under_change([](Clock::time_point until) {
        std::uint64_t trees = 0;
        std::atomic<std::uint64_t> leaves{0};
        do {
            WaitGroup wg;
            grow(wg, leaves, 10);
            wg.wait();
            trees++;
        } while (Clock::now() < until);
        CHECK(leaves.load() == trees * 1024);
    });
}

TEST_CASE("sched: a storm of yields") {
    under_change([](Clock::time_point until) {
        constexpr int kYielders = 300;
        std::vector<std::atomic<std::uint64_t>> turns(kYielders);
        std::atomic<bool> stop{false};
        WaitGroup wg;
        for (int i = 0; i < kYielders; i++) {
            wg.go([&, i] {
                do {
                    baton::yield();
                    turns[i]++;
                } while (!stop.load());
            });
        }
        auto fewest = [&] { return std::min_element(turns.begin(), turns.end())->load(); };
        // Nobody starves; but others may have the machine for a while.
        const auto patience = until + 30s;
        while (Clock::now() < until || (fewest() <= 10 && Clock::now() < patience))
            baton::sleep_for(5ms);
        CHECK(fewest() > 10);
        stop.store(true);
        wg.wait();
    });
}

TEST_CASE("sched: a storm of sleeps, none of which ends early") {
    under_change([](Clock::time_point until) {
        std::atomic<std::uint64_t> early{0};
        std::atomic<std::uint64_t> slept{0};
        WaitGroup wg;
        for (int i = 0; i < 500; i++) {
            wg.go([&, i] {
                for (int n = 0; n == 0 || Clock::now() < until; n++) {
                    const auto length = std::chrono::microseconds(1 + (i * 37 + n * 101) % 5000);
                    const auto start = Clock::now();
                    baton::sleep_for(length);
                    early.fetch_add(Clock::now() - start < length);
                    slept.fetch_add(1);
                }
            });
        }
        wg.wait();
        CHECK(early.load() == 0);
        CHECK(slept.load() >= 500);
    });
}

TEST_CASE("sched: goroutines readied by plain threads") {
    under_change([](Clock::time_point until) {
        // A thread per lane sees `asked` and calls done() on the lane's group.
        struct Lane {
            WaitGroup wg;
            std::atomic<std::uint64_t> asked{0};
            std::atomic<std::uint64_t> answered{0};
        };
        std::vector<std::unique_ptr<Lane>> lanes;
        for (int i = 0; i < 4; i++) lanes.push_back(std::make_unique<Lane>());
        std::atomic<bool> stop{false};
        std::vector<std::thread> threads;
        WaitGroup all;
        for (auto& lane : lanes) {
            threads.emplace_back([&stop, &l = *lane] {
                for (std::uint64_t n = 0; !stop.load();) {
                    if (l.asked.load() == n) {
                        std::this_thread::yield();
                        continue;
                    }
                    n++;
                    l.answered.store(n);
                    l.wg.done();
                }
            });
            all.go([until, &l = *lane] {
                std::uint64_t rounds = 0;
                while (rounds < 10 || Clock::now() < until) {
                    l.wg.add(1);
                    l.asked.store(++rounds);
                    l.wg.wait();
                    if (l.answered.load() != rounds) break;
                }
            });
        }
        all.wait();
        stop.store(true);
        baton::blocking([&] {
            for (std::thread& t : threads) t.join();
        });
        for (auto& lane : lanes) CHECK(lane->answered.load() == lane->asked.load());
        for (auto& lane : lanes) CHECK(lane->asked.load() >= 10);
    });
}

TEST_CASE("sched: goroutines started by four plain threads") {
    under_change([](Clock::time_point until) {
        std::atomic<std::uint64_t> started{0};
        std::atomic<std::uint64_t> ended{0};
        WaitGroup wg;
        wg.add(1); // ours, so that it is never zero while they add
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; i++) {
            threads.emplace_back([&] {
                for (std::uint64_t n = 0; n < 100 || Clock::now() < until; n++) {
                    // In bounds: a plain thread is faster than a goroutine's life.
                    while (started.load() - ended.load() > 2000) std::this_thread::yield();
                    started.fetch_add(1);
                    wg.go([&, n] {
                        if (n % 8 == 0) baton::yield();
                        if (n % 32 == 0) baton::sleep_for(50us);
                        ended.fetch_add(1);
                    });
                }
            });
        }
        baton::blocking([&] {
            for (std::thread& t : threads) t.join();
        });
        wg.done();
        wg.wait();
        CHECK(ended.load() == started.load());
        CHECK(started.load() >= 400);
    });
}

TEST_CASE("sched: a chain of 10,000 goroutines") {
    under_change([](Clock::time_point until) {
#if defined(BATON_TSAN)
        constexpr int kLinks = 2000; // ThreadSanitizer has room for 8000 stacks
#else
        constexpr int kLinks = 10'000;
#endif
        do {
            Chan<int> last, right = last;
            for (int i = 0; i < kLinks; i++) {
                Chan<int> left;
                baton::go([right, left] { right.send(left.recv().value() + 1); });
                right = left;
            }
            right.send(0);
            CHECK(last.recv() == kLinks);
        } while (Clock::now() < until);
    });
}
