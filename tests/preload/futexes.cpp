// SPDX-License-Identifier: Apache-2.0
//
// Waits by syscall(SYS_futex), as those of libstdc++'s std::latch and its like, park.
#include <doctest/doctest.h>

#include <atomic>
#include <climits>
#include <latch>
#include <semaphore>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "preload/hooked.hpp"
#include "preload/many.hpp"

namespace {

using namespace many;
using child_process::check_works;
using child_process::reached;
using child_process::run_child;
using hooked::preload;

using Word = std::atomic<std::uint32_t>;

long futex(Word& word, int op, std::uint32_t value, long timeout = 0, Word* other = nullptr,
           std::uint32_t bits = 0) {
    return ::syscall(SYS_futex, &word, op, value, timeout, other, bits);
}

/// On many goroutines, until the word is another; `release` has changed it.
template <class Release>
void many_at(Word& word, Release release) {
    baton::run([&] {
        hold(
            [&](int) {
                while (word == 0) futex(word, FUTEX_WAIT_PRIVATE, 0);
            },
            release);
    });
}

TEST_CASE("child: latch" * doctest::skip()) {
    std::latch latch(1);
    baton::run([&] { hold([&](int) { latch.wait(); }, [&] { latch.count_down(); }); });
}
TEST_CASE("child: semaphore" * doctest::skip()) {
    std::counting_semaphore<kMany> semaphore(0);
    baton::run([&] {
        hold([&](int) { semaphore.acquire(); },
             [&] { std::thread([&] { semaphore.release(kMany); }).join(); });
    });
}
TEST_CASE("child: atomic" * doctest::skip()) {
    std::atomic<int> word{0};
    baton::run([&] {
        hold([&](int) { word.wait(0); },
             [&] {
                 word = 1;
                 word.notify_all();
             });
    });
}
// So long that the next look of their own is far.
TEST_CASE("child: requeue" * doctest::skip()) {
    Word word{0}, other{0};
    std::chrono::steady_clock::time_point moved;
    many_at(word, [&] {
        baton::sleep_for(350ms);
        moved = std::chrono::steady_clock::now();
        word = 1;
        futex(word, FUTEX_CMP_REQUEUE_PRIVATE, 1, INT_MAX, &other, 1);
        futex(other, FUTEX_WAKE_PRIVATE, INT_MAX);
    });
    CHECK(std::chrono::steady_clock::now() - moved < 150ms);
}
// Others may have it.
TEST_CASE("child: shared" * doctest::skip()) {
    void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    Word& word = *static_cast<Word*>(at);
    baton::run([&] {
        hold(
            [&](int) {
                while (word == 0) futex(word, FUTEX_WAIT, 0);
            },
            [&] {
                word = 1;
                std::printf("%ld woken\n", futex(word, FUTEX_WAKE, INT_MAX));
            });
    });
}
TEST_CASE("goroutines that wait for futexes hold no threads") {
    for (const char* what : {"latch", "semaphore", "atomic", "requeue"}) {
        INFO(what);
        check_works(run_child(what, {preload()}));
    }
    const auto shared = run_child("shared", {preload()});
    CHECK(shared.has("200 woken"));
    CHECK_FALSE(shared.has(child_process::kReached));
}

// Those that look by themselves at that moment are not among them.
TEST_CASE("child: how many" * doctest::skip()) {
    Word word{0};
    long woken = 0, one = 0;
    many_at(word, [&] {
        one = futex(word, FUTEX_WAKE_PRIVATE, 1);
        word = 1;
        woken = futex(word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, 0, nullptr, 1);
    });
    std::printf("%ld, %ld\n", one, woken);
    CHECK(one == 1);
    CHECK(woken >= kMany / 2);
    CHECK(woken <= kMany);
}
TEST_CASE("who wakes those that are parked is told how many") {
    check_works(run_child("how many", {preload()}));
}

TEST_CASE("child: unseen" * doctest::skip()) {
    Word word{0};
    many_at(word, [&] {
        word = 1;
        long r;
        const long op = FUTEX_WAKE_PRIVATE, most = INT_MAX;
        asm volatile("syscall"
                     : "=a"(r)
                     : "a"(SYS_futex), "D"(&word), "S"(op), "d"(most)
                     : "rcx", "r11", "memory");
        CHECK(r == 0); // nobody sleeps in the kernel
    });
}
TEST_CASE("a wake that no hook sees is late, not lost") {
    check_works(run_child("unseen", {preload()}));
}

// A lock of three states, which goroutines hold across sleeps and threads fight for.
class Lock {
public:
    void lock() {
        std::uint32_t seen = 0;
        if (word_.compare_exchange_strong(seen, 1)) return;
        while (word_.exchange(2) != 0) futex(word_, FUTEX_WAIT_PRIVATE, 2);
    }
    void unlock() {
        if (word_.exchange(0) == 2) futex(word_, FUTEX_WAKE_PRIVATE, 1);
    }

private:
    Word word_{0};
};
TEST_CASE("child: lock" * doctest::skip()) {
    constexpr int kG = 40, kT = 3, kRounds = 200;
    Lock lock;
    long n = 0;
    const auto work = [&](bool sleeps) {
        for (int i = 0; i < kRounds; i++) {
            lock.lock();
            const long seen = n;
            if (sleeps && i % 50 == 0) ::usleep(50);
            n = seen + 1;
            lock.unlock();
        }
    };
    baton::run([&] {
        baton::WaitGroup wg;
        std::vector<std::thread> threads;
        for (int i = 0; i < kT; i++) threads.emplace_back(work, false);
        for (int i = 0; i < kG; i++) wg.go([&] { work(true); });
        wg.wait();
        for (std::thread& t : threads) t.join();
    });
    std::printf("%ld, peak %llu threads\n", n,
                static_cast<unsigned long long>(baton::stats().threads_peak));
    if (n == (kG + kT) * kRounds) reached();
}
TEST_CASE("goroutines and threads share a lock of their own making") {
    check_works(run_child("lock", {preload()}));
}

} // namespace
