// SPDX-License-Identifier: Apache-2.0
//
// A mutex that one CPU uses is biased to it (src/sync/mutex.cpp). Who has it must not depend on
// that; where there are no restartable sequences, it never is.
#include "baton/sync.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include <doctest/doctest.h>

#include "assist/ownership.hpp"
#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/run.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using procs_test::over_procs;
using Steady = std::chrono::steady_clock;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

constexpr std::uint8_t kLocked = 1;
constexpr std::uint8_t kBiased = 0x80;

std::uint8_t lock_byte(baton::Mutex& mu) {
    return std::atomic_ref(*reinterpret_cast<std::uint8_t*>(&mu)).load(kRelaxed);
}

/// Locks and unlocks until it is biased. False: that takes too long, as when this thread is moved
/// to another CPU again and again.
bool bias(baton::Mutex& mu, int tries = 10'000'000) {
    for (int i = 0; i < tries && lock_byte(mu) != kBiased; i++) {
        mu.lock();
        mu.unlock();
    }
    return lock_byte(mu) == kBiased;
}

bool sequences_there() {
    baton::run([] {});
    if (baton::assist::use_rseq) return true;
    std::printf("skip: no restartable sequences here\n");
    return false;
}

/// What the mutex guards: a torn count or an overlap shows that two had it.
struct Guarded {
    baton::Mutex mu;
    long counter = 0;
    bool inside = false;
    std::atomic<int> overlaps{0};

    /// The caller has the lock.
    void use() {
        overlaps.fetch_add(inside, kRelaxed);
        inside = true;
        counter++;
        std::atomic_signal_fence(std::memory_order_seq_cst); // a store for each
        inside = false;
    }
};

} // namespace

TEST_CASE("a mutex that one CPU uses is biased to it, and anybody may have it") {
    if (!sequences_there()) return;
    over_procs([](int) {
        baton::Mutex mu;
        REQUIRE(bias(mu));
        mu.lock();
        CHECK_FALSE(mu.try_lock());
        std::jthread([&] {
            CHECK_FALSE(mu.try_lock());
            mu.unlock(); // by another than who locked it
            REQUIRE(mu.try_lock());
            CHECK(lock_byte(mu) == kLocked); // no more
            mu.unlock();
            CHECK(lock_byte(mu) == 0);
        }).join();
        CHECK(mu.try_lock());
        mu.unlock();
        REQUIRE(bias(mu)); // once more
        std::jthread([&] {
            mu.lock();
            CHECK(lock_byte(mu) == kLocked);
        }).join();
        CHECK_FALSE(mu.try_lock());
        mu.unlock(); // of a lock that a thread made
        REQUIRE(bias(mu));
        std::error_code ec;
        CHECK(mu.lock(1h, ec));
        CHECK_FALSE(mu.try_lock_for(1us)); // somebody waited: never again
        mu.unlock();
        CHECK_FALSE(bias(mu, 20'000));
    });
}

/// Uses it, without ever waiting: that would be the end of all bias.
void try_to_use(Guarded& it, long& times) {
    if (!it.mu.try_lock()) return;
    it.use();
    it.mu.unlock();
    times++;
}

/// Goroutines that use it one after the other, so that it is biased to the CPU of one of them.
struct Users {
    Guarded it;
    std::atomic<bool> stop{false};
    std::atomic<long> times{0};
    baton::Chan<int> turn{1};
    baton::WaitGroup wg;

    Users() {
        for (int i = 0; i < 2; i++) wg.go([this] { work(); });
        turn.send(0);
    }
    void work() {
        long n = 0;
        while (!stop.load(kRelaxed)) {
            (void)turn.recv();
            for (int k = 0; k < 50'000; k++) try_to_use(it, n);
            turn.send(0);
            baton::yield();
        }
        times.fetch_add(n, kRelaxed);
    }
    /// Ends the bias whenever there is one, for so long: how often.
    int intrude(std::chrono::milliseconds time) {
        long n = 0;
        int met = 0;
        const auto end = Steady::now() + time;
        while (Steady::now() < end) {
            if (lock_byte(it.mu) & kBiased) {
                met++;
                for (int k = 0; k < 100 && (lock_byte(it.mu) & kBiased); k++) try_to_use(it, n);
            }
            if (met % 64 == 0) baton::yield();
        }
        times.fetch_add(n, kRelaxed);
        stop.store(true, kRelaxed);
        return met;
    }
};

// Whoever ends a bias has to see to it that no sequence stores after that.
TEST_CASE("a bias that is ended again and again lets nobody in twice") {
    if (!sequences_there()) return;
    for (const bool plain : {true, false})
        over_procs([plain](int) {
            Users users;
            int met = 0;
            if (plain) {
                baton::blocking([&] { std::jthread([&] { met = users.intrude(200ms); }).join(); });
            } else {
                met = users.intrude(50ms);
            }
            users.wg.wait();
            CHECK(users.it.overlaps.load(kRelaxed) == 0);
            CHECK(users.it.counter == users.times.load(kRelaxed));
            if (met < 2) std::printf("skip: others use the CPUs: the bias was hardly met\n");
        });
}

TEST_CASE("the first who waits for a biased mutex is woken") {
    if (!sequences_there()) return;
    constexpr int kMutexes = 300;
    constexpr int kGs = 3;
    constexpr int kTimes = 20;
    over_procs([](int) {
        int biased = 0;
        for (int i = 0; i < kMutexes; i++) {
            Guarded it;
            biased += bias(it.mu);
            baton::WaitGroup wg;
            for (int g = 0; g < kGs; g++)
                wg.go([&] {
                    for (int n = 0; n < kTimes; n++) {
                        const std::scoped_lock hold(it.mu);
                        it.use();
                        if (n == 1) baton::yield(); // the others queue
                    }
                });
            wg.wait();
            REQUIRE(it.counter == long{kGs} * kTimes);
            REQUIRE(it.overlaps.load(kRelaxed) == 0);
        }
        CHECK(biased > kMutexes / 2);
    });
}
