// SPDX-License-Identifier: Apache-2.0
//
// RWMutex.
// run: tiers
#include "baton/rwmutex.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <new>
#include <shared_mutex>
#include <stop_token>
#include <system_error>
#include <thread>
#include <vector>

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
using baton::RWMutex;
using baton::rt::WaitReason;
using procs_test::over_procs;
using waiters_test::await_waiter;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("readers hold an RWMutex together") {
    // The reference's TestParallelReaders: none may leave before all are in.
    over_procs([](int procs) {
        for (const int readers : {1, 3, procs, 4 * procs}) {
            RWMutex rw;
            baton::Latch all_in(readers);
            baton::WaitGroup wg;
            for (int i = 0; i < readers; i++) {
                wg.go([&] {
                    rw.lock_shared();
                    all_in.arrive_and_wait();
                    rw.unlock_shared();
                });
            }
            wg.wait();
            CHECK(as_new(rw));
        }
    });
}

TEST_CASE("writers hold an RWMutex alone, readers see no half of what they do") {
    // The reference's TestRWMutex, through the standard's guards.
    over_procs([](int) {
        RWMutex rw;
        long a = 0;
        long b = 0;
        std::atomic<int> active{0}; // readers, and 10,000 for a writer
        std::atomic<int> wrong{0};
        baton::WaitGroup wg;
        const auto reader = [&] {
            for (int i = 0; i < 500; i++) {
                std::shared_lock hold(rw);
                const int n = active.fetch_add(1, kRelaxed) + 1;
                if (n < 1 || n >= 10'000 || a != b) wrong.fetch_add(1, kRelaxed);
                if (i % 32 == 0) baton::yield();
                active.fetch_sub(1, kRelaxed);
            }
        };
        const auto writer = [&] {
            for (int i = 0; i < 500; i++) {
                std::unique_lock hold(rw);
                if (active.fetch_add(10'000, kRelaxed) != 0) wrong.fetch_add(1, kRelaxed);
                a++;
                if (i % 32 == 0) baton::yield();
                b++;
                active.fetch_sub(10'000, kRelaxed);
            }
        };
        for (int i = 0; i < 10; i++) wg.go(reader);
        for (int i = 0; i < 3; i++) wg.go(writer);
        {
            std::jthread foreign_writer(writer);
            std::jthread foreign_reader(reader);
            wg.wait();
            baton::blocking([&] {
                foreign_writer.join();
                foreign_reader.join();
            });
        }
        CHECK(wrong.load(kRelaxed) == 0);
        CHECK(a == 4 * 500);
        CHECK(as_new(rw));
    });
}

TEST_CASE("a writer that waits keeps later readers out, and lets them in before the next writer") {
    over_procs([](int) {
        RWMutex rw;
        std::atomic<int> step{0};
        rw.lock_shared();
        baton::WaitGroup wg;
        wg.go([&] {
            rw.lock();
            CHECK(step.fetch_add(1, kRelaxed) == 0);
            await_waiter(&rw, WaitReason::kRWMutexLock);
            rw.unlock();
        });
        await_waiter(&rw, WaitReason::kRWMutexDrain);
        CHECK_FALSE(rw.try_lock());
        CHECK_FALSE(rw.try_lock_shared());
        CHECK_FALSE(rw.try_lock_shared_for(1ms));
        wg.go([&] {
            rw.lock_shared();
            CHECK(step.fetch_add(1, kRelaxed) == 1);
            baton::sleep_for(2ms);
            rw.unlock_shared();
        });
        await_waiter(&rw, WaitReason::kRWMutexRLock);
        CHECK(step.load(kRelaxed) == 0);
        wg.go([&] {
            rw.lock();
            CHECK(step.fetch_add(1, kRelaxed) == 2);
            rw.unlock();
        });
        await_waiter(&rw, WaitReason::kRWMutexLock);
        rw.unlock_shared();
        wg.wait();
        CHECK(step.load(kRelaxed) == 3);
        CHECK(as_new(rw));
    });
}

TEST_CASE("readers that were woken in vain are let in before the next writer") {
    baton::run([] {
        baton::set_max_procs(1); // what is woken runs when this goroutine lets it
        bool seen = false;
        for (int i = 0; i < 100 && !seen; i++) {
            RWMutex rw;
            bool read = false;
            int begun = 0;
            baton::WaitGroup wg;
            rw.lock();
            const auto reader = [&] {
                begun++;
                const std::shared_lock hold(rw);
                read = true;
            };
            for (int k = 0; k < 3; k++) wg.go(reader); // more than there are processors
            while (begun < 3) baton::yield();
            await_waiter(&rw, WaitReason::kRWMutexRLock);
            rw.unlock();
            bool again = rw.try_lock();
            if (again && !read) { // else it ran, as we were preempted
                await_waiter(&rw, WaitReason::kRWMutexRLock);
                rw.unlock();
                again = rw.try_lock();
                seen = !again && !read;
            }
            if (again) rw.unlock();
            wg.wait();
            CHECK(as_new(rw));
        }
        CHECK(seen);
    });
}

TEST_CASE("tries take what is free and never wait") {
    RWMutex rw; // a plain thread may, too
    REQUIRE(rw.try_lock());
    CHECK_FALSE(rw.try_lock());
    CHECK_FALSE(rw.try_lock_shared());
    rw.unlock();
    REQUIRE(rw.try_lock_shared());
    REQUIRE(rw.try_lock_shared());
    CHECK_FALSE(rw.try_lock());
    rw.unlock_shared();
    rw.unlock_shared();
    CHECK(as_new(rw));
}

TEST_CASE("a reader's lock is a lock of its own") {
    // The reference's TestRLocker.
    baton::run([] {
        RWMutex rw;
        auto readers = rw.rlocker();
        for (int i = 0; i < 10; i++) {
            std::scoped_lock one(readers);
            std::scoped_lock other(readers);
            CHECK_FALSE(rw.try_lock());
        }
        std::scoped_lock hold(rw);
        CHECK_FALSE(readers.try_lock());
    });
}

TEST_CASE("a writer that gives up lets in the readers that queued behind it") {
    over_procs([](int) {
        RWMutex rw;
        rw.lock_shared();
        baton::WaitGroup wg;
        std::error_code ec;
        std::stop_source source;
        wg.go([&] { CHECK_FALSE(rw.lock(source.get_token(), ec)); });
        await_waiter(&rw, WaitReason::kRWMutexDrain);
        for (int i = 0; i < 3; i++) {
            wg.go([&] {
                std::shared_lock behind(rw); // we read on: it is the writer that goes
            });
        }
        await_waiter(&rw, WaitReason::kRWMutexRLock);
        source.request_stop();
        wg.wait();
        CHECK(ec == std::errc::operation_canceled);
        CHECK_FALSE(rw.try_lock_for(1ms));
        CHECK_THROWS_AS(rw.lock(1ms), std::system_error);
        rw.unlock_shared();
        CHECK(as_new(rw));
        CHECK(rw.try_lock_until(std::chrono::steady_clock::now() - 1s)); // it is free
        CHECK_FALSE(rw.lock_shared(1ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK_FALSE(rw.lock_shared(source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        rw.unlock();
        CHECK(rw.try_lock_shared_until(std::chrono::steady_clock::now()));
        rw.unlock_shared();
        CHECK(as_new(rw));
    });
}

TEST_CASE("readers, writers, deadlines and stops that meet keep the lock sound") {
    over_procs([](int) {
        RWMutex rw;
        rw_counts::stress(rw, 30, 4, 64);
    });
}

TEST_CASE("an RWMutex may end as soon as it is unlocked") {
    over_procs([](int) {
        struct Shared {
            RWMutex rw;
            std::atomic<int> references{0};
        };
        for (int round = 0; round < 100 * lock_stress::kRounds; round++) {
            auto* shared = new Shared;
            shared->references.store(4, kRelaxed);
            baton::WaitGroup wg;
            for (int i = 0; i < 4; i++) {
                wg.go([shared, i] {
                    bool last;
                    if (i % 2 == 0) {
                        std::unique_lock hold(shared->rw);
                        last = shared->references.fetch_sub(1) == 1;
                    } else {
                        std::shared_lock hold(shared->rw);
                        last = shared->references.fetch_sub(1) == 1;
                    }
                    if (last) delete shared;
                });
            }
            wg.wait();
        }
    });
}

TEST_CASE("a writer waits for readers that are counted on their CPUs") {
    over_procs([](int) {
        RWMutex rw;
        for (int round = 0; round < 3 && bias(rw); round++) {
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
            CHECK(biased(rw));
            std::error_code ec;
            CHECK_FALSE(rw.try_lock());
            CHECK_FALSE(biased(rw));
            CHECK_FALSE(rw.lock(1ms, ec));
            go_on.count_down();
            rw.lock();
            CHECK(left.load(kRelaxed) == readers);
            rw.unlock();
            wg.wait();
            CHECK(as_new(rw));
        }
    });
}

TEST_CASE("one that reads alone is counted on its CPU after a while without writers") {
    if (!has_rseq()) return;
    baton::run([] {
        RWMutex rw;
        for (int i = 0; i < 8000; i++) {
            std::shared_lock(rw).unlock();
            if (i == 4000) std::unique_lock(rw).unlock();
        }
        CHECK_FALSE(biased(rw));
        for (int i = 0; i < 1000; i++) std::shared_lock(rw).unlock();
        CHECK(biased(rw));
    });
}

TEST_CASE("who leaves a RWMutex elsewhere than it came is counted, and nothing outlives the lock") {
    baton::run([] {
        alignas(RWMutex) unsigned char space[sizeof(RWMutex)];
        for (int round = 0; round < 3; round++) {
            auto* rw = new (space) RWMutex;
            CHECK(rw->try_lock());
            rw->unlock();
            if (!bias(*rw)) return;
            for (int i = 0; i < 10; i++) {
                rw->lock_shared();
                std::thread([&] { rw->unlock_shared(); }).join(); // in the word
            }
            std::thread([&] { rw->lock_shared(); }).join();
            CHECK_FALSE(rw->try_lock());
            rw->unlock_shared();
            if (round == 0) CHECK(rw->try_lock());
            if (round == 0) rw->unlock();
            rw->~RWMutex();
        }
    });
}

TEST_CASE("readers that are counted on their CPUs see no half of what writers do") {
    over_procs([](int) {
        RWMutex rw;
        long a = 0, b = 0;
        std::atomic<int> halves{0}, biases{0};
        std::atomic<bool> stop{false};
        baton::WaitGroup wg;
        for (int i = 0; i < 6; i++) {
            wg.go([&] {
                while (!stop.load(kRelaxed)) {
                    for (int k = 0; k < 1000; k++) {
                        std::shared_lock hold(rw);
                        if (a != b) halves.fetch_add(1, kRelaxed);
                        if (k % 100 == 0) baton::yield();
                    }
                    if (biased(rw)) biases.fetch_add(1, kRelaxed);
                }
            });
        }
        for (int i = 0; i < 8; i++) {
            baton::sleep_for(12ms);
            for (int k = 0; k < 3; k++) {
                std::unique_lock hold(rw);
                a++;
                baton::yield();
                b++;
            }
        }
        stop.store(true, kRelaxed);
        wg.wait();
        CHECK(halves.load(kRelaxed) == 0);
        CHECK((biases.load(kRelaxed) > 0 || !bias(rw)));
        CHECK(as_new(rw));
    });
}

TEST_CASE("child: unlocks unlocked" * doctest::skip()) {
    RWMutex rw;
    rw.unlock();
    reached();
}

TEST_CASE("child: unlocks read" * doctest::skip()) {
    RWMutex rw;
    rw.lock_shared();
    rw.unlock();
    reached();
}

TEST_CASE("child: leaves unread" * doctest::skip()) {
    RWMutex rw;
    rw.unlock_shared();
    reached();
}

// What readers count on their CPUs is not looked at before a writer comes.
TEST_CASE("child: leaves unread while biased" * doctest::skip()) {
    baton::run([] {
        RWMutex rw;
        if (!bias(rw)) rw.unlock_shared();
        rw.unlock_shared();
        rw.lock();
    });
    reached();
}

TEST_CASE("child: leaves unread after a bias" * doctest::skip()) {
    baton::run([] {
        RWMutex rw;
        if (!bias(rw)) rw.unlock_shared();
        rw.lock();
        rw.unlock();
        rw.unlock_shared();
        rw.lock();
    });
    reached();
}

TEST_CASE("child: leaves written" * doctest::skip()) {
    RWMutex rw;
    rw.lock();
    rw.unlock_shared();
    reached();
}

TEST_CASE("misuse of an RWMutex ends the process") {
    check_dies("unlocks unlocked", "baton: unlock of unlocked RWMutex");
    check_dies("unlocks read", "baton: unlock of unlocked RWMutex");
    check_dies("leaves unread", "baton: unlock_shared of unlocked RWMutex");
    check_dies("leaves unread while biased", "baton: unlock_shared of unlocked RWMutex");
    check_dies("leaves unread after a bias", "baton: unlock_shared of unlocked RWMutex");
    check_dies("leaves written", "baton: unlock_shared of unlocked RWMutex");
}
