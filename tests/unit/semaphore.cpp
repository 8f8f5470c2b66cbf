// SPDX-License-Identifier: Apache-2.0
//
// Semaphore.
// run: tiers
#include "baton/semaphore.hpp"

#include <atomic>
#include <chrono>
#include <stop_token>
#include <system_error>
#include <thread>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "support/child.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"
#include "support/waiters.hpp"

namespace {

using namespace std::chrono_literals;
using namespace child_process;
using baton::Semaphore;
using baton::rt::WaitReason;
using procs_test::over_procs;
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("no more permits are out than there are, whatever their number") {
    over_procs([](int) {
        constexpr int kPermits = 7;
        Semaphore sem(kPermits);
        std::atomic<int> out{0};
        std::atomic<int> too_many{0};
        lock_stress::run(30, [&](lock_stress::Random& random, const std::stop_token& token) {
            const int n = static_cast<int>(1 + random.below(kPermits));
            std::error_code ec;
            const bool got =
                random.below(5) == 0 ? sem.try_acquire(n) : sem.acquire(n, random.limit(token), ec);
            if (!got) return;
            if (out.fetch_add(n, kRelaxed) + n > kPermits) too_many.fetch_add(1, kRelaxed);
            if (random.below(8) == 0) baton::yield();
            out.fetch_sub(n, kRelaxed);
            sem.release(n);
        });
        CHECK(too_many.load(kRelaxed) == 0);
        CHECK(sem.try_acquire(kPermits)); // all are back, and nobody waits
        CHECK_FALSE(sem.try_acquire());
    });
}

TEST_CASE("who wants many permits is not passed by those who want few") {
    over_procs([](int) {
        Semaphore sem(2);
        sem.acquire(2);
        baton::WaitGroup wg;
        std::atomic<int> order{0};
        wg.go([&] {
            sem.acquire(2);
            CHECK(order.fetch_add(1, kRelaxed) == 0);
            sem.release(2);
        });
        waiters_test::await_waiter(&sem, WaitReason::kSemaphoreAcquire);
        wg.go([&] {
            sem.acquire();
            CHECK(order.fetch_add(1, kRelaxed) == 1);
            sem.release();
        });
        sem.release();
        CHECK_FALSE(sem.try_acquire()); // it is the first one's
        baton::sleep_for(1ms);
        CHECK(order.load(kRelaxed) == 0);
        sem.release();
        wg.wait();
        CHECK(sem.try_acquire(2));
    });
}

TEST_CASE("when the first gives up those behind it get what is enough for them") {
    over_procs([](int) {
        Semaphore sem(1);
        baton::WaitGroup wg;
        std::error_code ec;
        std::stop_source source;
        wg.go([&] { CHECK_FALSE(sem.acquire(2, {1h, source.get_token()}, ec)); });
        waiters_test::await_waiter(&sem, WaitReason::kSemaphoreAcquire);
        std::atomic<bool> queues{false};
        wg.go([&] {
            queues.store(true, kRelaxed);
            sem.acquire(); // without a release
        });
        while (!queues.load(kRelaxed)) baton::yield();
        baton::sleep_for(1ms); // it is behind by now, most likely
        source.request_stop();
        wg.wait();
        CHECK(ec == std::errc::operation_canceled);
        CHECK_FALSE(sem.try_acquire());
        CHECK_FALSE(sem.try_acquire_for(1ms));
        CHECK_FALSE(sem.try_acquire_until(std::chrono::steady_clock::now() + 1ms));
        CHECK_THROWS_AS(sem.acquire(1ms), std::system_error);
        CHECK_FALSE(sem.acquire(source.get_token(), ec));
        CHECK(ec == std::errc::operation_canceled);
        sem.release();
        CHECK(sem.acquire(source.get_token(), ec)); // what can be had at once is
    });
}

TEST_CASE("permits are handed over between plain threads and goroutines") {
    over_procs([](int) {
        Semaphore there(0);
        Semaphore back(0);
        long value = 0;
        std::jthread thread([&] {
            for (int i = 0; i < 500; i++) {
                there.acquire();
                value++;
                back.release();
            }
        });
        for (int i = 0; i < 500; i++) {
            value++;
            there.release();
            back.acquire();
        }
        CHECK(value == 1000);
        baton::blocking([&] { thread.join(); });
    });
}

TEST_CASE("child: releases too many" * doctest::skip()) {
    Semaphore sem(Semaphore::max());
    sem.release();
    reached();
}

TEST_CASE("child: releases less than none" * doctest::skip()) {
    Semaphore sem(3);
    sem.release(-1);
    reached();
}

TEST_CASE("child: acquires less than none" * doctest::skip()) {
    Semaphore sem(3);
    sem.acquire(-1);
    reached();
}

TEST_CASE("child: acquires more than there can be" * doctest::skip()) {
    Semaphore sem(3);
    (void)sem.try_acquire(Semaphore::max() + 1);
    reached();
}

TEST_CASE("child: begins with less than none" * doctest::skip()) {
    const Semaphore sem(-1);
    reached();
}

TEST_CASE("misuse of a Semaphore ends the process") {
    for (const char* title : {"acquires less than none", "acquires more than there can be",
                              "begins with less than none"})
        check_dies(title, "baton: Semaphore of, or asked for, fewer permits than none");
    check_dies("releases too many", "baton: Semaphore::release gives more permits than max()");
    check_dies("releases less than none", "baton: Semaphore::release gives more permits");
}
