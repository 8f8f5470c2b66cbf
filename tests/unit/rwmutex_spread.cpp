// SPDX-License-Identifier: Apache-2.0
//
// RWMutex: readers that are spread over slots of their CPUs while writers come.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <stop_token>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "support/child.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"
#include "support/rw_counts.hpp"
#include "support/waiters.hpp"

namespace {

using namespace std::chrono_literals;
using namespace child_process;
using namespace rw_counts;
using baton::rt::WaitReason;
using procs_test::over_procs;
using waiters_test::await_waiter;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

/// Readers of more than kWorth, and one writer.
void read_and_write(RWMutex& rw, int reads) {
    for (int i = 0; i < reads; i++) std::shared_lock(rw).unlock();
    std::unique_lock(rw).unlock();
}

} // namespace

TEST_CASE("readers that meet while writers come are spread, and no longer if there are few") {
    if (!has_rseq()) return;
    if (std::thread::hardware_concurrency() < 2) {
        std::fprintf(stderr, "skip: one CPU, so no readers meet\n");
        return;
    }
    baton::run([] {
        baton::set_max_procs(2);
        RWMutex rw;
        std::atomic<bool> seen{false};
        const auto end = std::chrono::steady_clock::now() + 10s;
        baton::WaitGroup wg;
        for (int g = 0; g < 4; g++) {
            wg.go([&] {
                while (!seen.load(kRelaxed) && std::chrono::steady_clock::now() < end) {
                    for (int i = 0; i < 20; i++) read_and_write(rw, 100);
                    if (is_spread(rw)) seen.store(true, kRelaxed);
                }
            });
        }
        wg.wait();
        CHECK(seen.load(kRelaxed));
        for (int i = 0; i < 200; i++) read_and_write(rw, 2);
        CHECK_FALSE(is_spread(rw));
        CHECK(as_new(rw));
    });
}

TEST_CASE("a writer waits for readers that are spread, and may give up") {
    over_procs([](int) {
        RWMutex rw;
        if (!spread(rw)) return;
        for (int round = 0; round < 3; round++) {
            const int readers = 10 + round;
            baton::Latch in(readers), go_on(1);
            std::atomic<int> left{0};
            baton::WaitGroup wg;
            for (int i = 0; i < readers; i++) {
                wg.go([&, i] {
                    if (i % 4 == 3) baton::blocking([] { std::this_thread::sleep_for(1ms); });
                    std::shared_lock hold(rw);
                    in.count_down();
                    go_on.wait(); // and goes on on another CPU, perhaps
                    left.fetch_add(1, kRelaxed);
                });
            }
            in.wait();
            std::error_code ec;
            CHECK_FALSE(rw.try_lock());
            CHECK_FALSE(rw.lock(1ms, ec));
            CHECK(rw.try_lock_shared()); // nobody waits any more
            rw.unlock_shared();
            int seen = -1;
            wg.go([&] {
                std::unique_lock hold(rw);
                seen = left.load(kRelaxed);
            });
            await_waiter(&rw, WaitReason::kRWMutexDrain);
            CHECK_FALSE(rw.try_lock_shared());
            go_on.count_down();
            wg.wait();
            CHECK(seen == readers);
            CHECK(is_spread(rw));
            CHECK(as_new(rw));
        }
    });
}

TEST_CASE("who leaves elsewhere than it came is counted, and nothing outlives the lock") {
    baton::run([] {
        alignas(RWMutex) unsigned char space[sizeof(RWMutex)];
        for (int round = 0; round < 3; round++) {
            auto* rw = new (space) RWMutex;
            CHECK(rw->try_lock());
            rw->unlock();
            if (!spread(*rw)) return;
            for (int i = 0; i < 10; i++) {
                rw->lock_shared();
                std::thread([&] { rw->unlock_shared(); }).join(); // in the word
            }
            std::thread([&] { rw->lock_shared(); }).join();
            CHECK_FALSE(rw->try_lock());
            rw->unlock_shared();
            CHECK(as_new(*rw));
            if (round == 1) { // back to the word, which says 0 then
                for (int i = 0; i < 200; i++) read_and_write(*rw, 2);
                CHECK_FALSE(is_spread(*rw));
                CHECK(as_new(*rw));
                REQUIRE(spread(*rw));
                CHECK(as_new(*rw));
            }
            rw->~RWMutex();
        }
    });
}

TEST_CASE("the last of spread readers wakes the writer from where the word counts it, too") {
    over_procs([](int) {
        RWMutex rw;
        if (!spread(rw)) return;
        for (const bool foreign : {true, false}) {
            baton::WaitGroup wg;
            rw.lock_shared();
            rw.lock_shared();
            wg.go([&] { std::unique_lock(rw).unlock(); });
            await_waiter(&rw, WaitReason::kRWMutexDrain);
            if (!foreign) rw.unlock_shared();
            std::thread([&] { rw.unlock_shared(); }).join();
            if (foreign) rw.unlock_shared();
            wg.wait();
            CHECK(as_new(rw));
        }
    });
}

TEST_CASE("readers that are spread see no half of what writers do") {
    over_procs([](int) {
        RWMutex rw;
        if (!spread(rw)) return;
        long a = 0, b = 0;
        std::atomic<int> halves{0};
        std::atomic<int> writers{4};
        baton::WaitGroup wg;
        const auto read = [&](int k) {
            std::shared_lock hold(rw);
            if (a != b) halves.fetch_add(1, kRelaxed);
            if (k % 500 == 0) baton::yield();
        };
        for (int i = 0; i < 4; i++) {
            wg.go([&] {
                for (int k = 0; writers.load(kRelaxed) != 0; k++) read(k);
            });
            wg.go([&] {
                for (int k = 1; k <= 20'000; k++) {
                    if (k % 40 != 0) {
                        read(k);
                        continue;
                    }
                    std::unique_lock hold(rw);
                    a++;
                    if (k % 1000 == 0) baton::yield();
                    b++;
                }
                writers.fetch_sub(1, kRelaxed);
            });
        }
        wg.wait();
        CHECK(halves.load(kRelaxed) == 0);
        CHECK(a == 4 * 500);
        CHECK(is_spread(rw));
        CHECK(as_new(rw));
    });
}

TEST_CASE("readers that come as they are spread, or no longer, are counted once") {
    baton::run([] {
        baton::set_max_procs(2);
        RWMutex rw;
        if (!spread(rw)) return;
        std::atomic<bool> stop{false}, writes{false};
        std::atomic<int> wrong{0};
        int turns = 0;
        baton::WaitGroup wg;
        wg.go([&] {
            while (!stop.load(kRelaxed)) {
                if (!rw.try_lock_shared()) continue;
                wrong.fetch_add(writes.load(kRelaxed), kRelaxed);
                rw.unlock_shared();
            }
        });
        const auto end = std::chrono::steady_clock::now() + 200ms;
        while (turns < 100 && std::chrono::steady_clock::now() < end) {
            turns += try_spread(rw);
            for (int i = 0; i < 128; i++) {
                const std::unique_lock hold(rw);
                writes.store(true, kRelaxed);
                writes.store(false, kRelaxed);
            }
        }
        stop.store(true, kRelaxed);
        wg.wait();
        CHECK(wrong.load(kRelaxed) == 0);
        CHECK(turns > 0);
        CHECK(as_new(rw));
    });
}

TEST_CASE("spread readers, writers, deadlines and stops that meet keep the lock sound") {
    over_procs([](int) {
        RWMutex rw;
        if (spread(rw)) stress(rw, 20, 30, 256);
    });
}

TEST_CASE("an RWMutex may end as soon as the last spread reader has left") {
    if (!has_rseq()) return;
    over_procs([](int) {
        struct Shared {
            RWMutex rw;
            std::atomic<int> to_come{3};
        };
        for (int round = 0; round < 10 * lock_stress::kRounds; round++) {
            auto* shared = new Shared;
            (void)spread(shared->rw);
            baton::WaitGroup wg;
            for (int i = 0; i < 3; i++) {
                wg.go([shared, i] {
                    const std::shared_lock hold(shared->rw);
                    if (i == 1) baton::yield();
                    shared->to_come.fetch_sub(1, kRelaxed);
                });
            }
            wg.go([shared] {
                for (bool last = false; !last; baton::yield()) {
                    const std::unique_lock hold(shared->rw); // those that came have left
                    last = shared->to_come.load(kRelaxed) == 0;
                }
                delete shared;
            });
            wg.wait();
        }
    });
}

TEST_CASE("spread readers are biased once there are no writers") {
    baton::run([] {
        RWMutex rw;
        if (!has_rseq()) return;
        REQUIRE(try_spread(rw));
        const auto end = std::chrono::steady_clock::now() + 10s;
        while (!biased(rw) && std::chrono::steady_clock::now() < end) std::shared_lock(rw).unlock();
        CHECK(biased(rw));
        rw.lock_shared();
        CHECK_FALSE(rw.try_lock());
        CHECK_FALSE(biased(rw));
        rw.unlock_shared();
        CHECK(is_spread(rw));
        CHECK(as_new(rw));
    });
}

TEST_CASE("more locks than there are slots") {
    baton::run([] {
        constexpr int kLocks = 400; // 256 slots
        RWMutex locks[kLocks];
        if (!has_rseq()) return;
        for (RWMutex& rw : locks) (void)try_spread(rw);
        int spread = 0;
        for (RWMutex& rw : locks) spread += is_spread(rw);
        CHECK(spread > 100);
        CHECK(spread <= 256);
        for (RWMutex& rw : locks) {
            rw.lock_shared();
            CHECK_FALSE(rw.try_lock());
            rw.unlock_shared();
            CHECK(as_new(rw));
        }
    });
}

TEST_CASE("child: leaves unread while spread" * doctest::skip()) {
    baton::run([] {
        auto* rw = new RWMutex; // it may not end either
        if (!spread(*rw)) rw->unlock_shared();
        rw->unlock_shared();
        rw->lock();
    });
    reached();
}

TEST_CASE("an unlock too many of spread readers ends the process") {
    check_dies("leaves unread while spread", "baton: unlock_shared of unlocked RWMutex");
}
