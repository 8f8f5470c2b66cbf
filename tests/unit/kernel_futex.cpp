// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "kernel/futex.hpp"

using namespace baton::kernel;

namespace {

using Word = std::atomic<std::uint32_t>;

constexpr std::int64_t kMillisecond = 1'000'000;
/// Long enough for any machine; a test that needs it has failed.
constexpr std::int64_t kGiveUpNs = 20'000 * kMillisecond;

/// Runs `test` with each futex call this machine has.
template <class Test>
void with_each_call(Test test) {
    SUBCASE("futex(2)") { test(FutexCall::kFutex); }
    SUBCASE("futex2") {
        if (features().futex2) {
            test(FutexCall::kFutex2);
        } else {
            MESSAGE("SKIPPED: no futex2 here, or switched off");
        }
    }
}

/// Waits until the kernel says that `n` threads were woken: they may not be waiting yet.
void wake_all(FutexCall call, const Word* word, int n) {
    const std::int64_t end = nanotime() + kGiveUpNs;
    while (n > 0 && nanotime() < end) {
        n -= futex_wake_by(call, word, n);
        std::this_thread::yield();
    }
    CHECK(n == 0);
}

void ignore_signal(int) {}

} // namespace

TEST_CASE("kernel futex: a word that already differs is -EAGAIN") {
    with_each_call([](FutexCall call) {
        const Word word{1};
        CHECK(futex_wait_by(call, &word, 0, kForever) == -EAGAIN);
        CHECK(futex_wait_by(call, &word, 0, nanotime() + kGiveUpNs) == -EAGAIN);
        CHECK(futex_wait_by(call, &word, 0, 0) == -EAGAIN);
    });
}

TEST_CASE("kernel futex: a deadline that passes is -ETIMEDOUT, and not early") {
    with_each_call([](FutexCall call) {
        const Word word{0};
        const std::int64_t deadline = nanotime() + 5 * kMillisecond;
        CHECK(futex_wait_by(call, &word, 0, deadline) == -ETIMEDOUT);
        CHECK(nanotime() >= deadline);
    });
}

TEST_CASE("kernel futex: a deadline in the past is -ETIMEDOUT at once") {
    with_each_call([](FutexCall call) {
        const Word word{0};
        for (const std::int64_t deadline : {std::int64_t{INT64_MIN}, std::int64_t{-1},
                                            std::int64_t{0}, std::int64_t{1}, nanotime()}) {
            CHECK(futex_wait_by(call, &word, 0, deadline) == -ETIMEDOUT);
        }
    });
}

TEST_CASE("kernel futex: a wake without waiters is 0, even of memory that is gone") {
    with_each_call([](FutexCall call) {
        const Word word{0};
        CHECK(futex_wake_by(call, &word, 1) == 0);
        void* page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(page, 4096);
        CHECK(futex_wake_by(call, static_cast<const Word*>(page), 1) == 0);
    });
}

TEST_CASE("kernel futex: a waiter is woken") {
    with_each_call([](FutexCall call) {
        Word word{0};
        int result = -1;
        std::thread waiter([&] {
            // Woken for nothing is allowed, interrupted too: as every caller does, look again.
            do {
                result = futex_wait_by(call, &word, 0, nanotime() + kGiveUpNs);
            } while (word.load() == 0 && result != -ETIMEDOUT);
        });
        wake_all(call, &word, 1); // a waiter is there: its next look finds the old value
        word.store(1);
        (void)futex_wake_by(call, &word, 1);
        waiter.join();
        CHECK((result == 0 || result == -EAGAIN));
    });
}

TEST_CASE("kernel futex: a wake reaches no more waiters than asked") {
    with_each_call([](FutexCall call) {
        constexpr int kWaiters = 4;
        const Word word{0};
        std::atomic<int> returned{0};
        std::vector<std::thread> waiters;
        waiters.reserve(kWaiters);
        for (int i = 0; i < kWaiters; ++i) {
            waiters.emplace_back([&] {
                CHECK(futex_wait_by(call, &word, 0, nanotime() + kGiveUpNs) == 0);
                ++returned;
            });
        }
        wake_all(call, &word, 1);
        wake_all(call, &word, 1);
        while (returned.load() < 2) std::this_thread::yield();
        CHECK(returned.load() == 2);
        wake_all(call, &word, kWaiters - 2);
        for (std::thread& waiter : waiters) waiter.join();
        CHECK(returned.load() == kWaiters);
    });
}

TEST_CASE("kernel futex: a signal ends a wait with -EINTR") {
    with_each_call([](FutexCall call) {
        struct sigaction action {};
        action.sa_handler = ignore_signal; // no SA_RESTART
        struct sigaction before;
        sigaction(SIGUSR2, &action, &before);
        const Word word{0};
        std::atomic<bool> done{false};
        int result = 0;
        std::thread waiter([&] {
            result = futex_wait_by(call, &word, 0, nanotime() + kGiveUpNs);
            done = true;
        });
        while (!done.load()) {
            pthread_kill(waiter.native_handle(), SIGUSR2);
            usleep(1000);
        }
        waiter.join();
        sigaction(SIGUSR2, &before, nullptr);
        CHECK(result == -EINTR);
    });
}

TEST_CASE("kernel futex: the default is the faster call this machine has") {
    CHECK((futex_call() == FutexCall::kFutex2) == features().futex2);
    const Word word{1};
    CHECK(futex_wait(&word, 0) == -EAGAIN);
    CHECK(futex_wake(&word, 1) == 0);
}

TEST_CASE("kernel futex_waitv: bad counts and differing words are refused") {
    const Word a{0}, b{1};
    CHECK(futex_waitv({}) == -EINVAL);
    const std::vector<FutexWaiter> many(kFutexWaitersMax + 1, FutexWaiter{&a, 0});
    CHECK(futex_waitv(many) == -EINVAL);
    const FutexWaiter waiters[] = {{&a, 0}, {&b, 0}};
    CHECK(futex_waitv(waiters) == (features().futex_waitv ? -EAGAIN : -ENOSYS));
}

TEST_CASE("kernel futex_waitv: the word that was woken is told, and a deadline ends the wait") {
    if (!features().futex_waitv) {
        MESSAGE("SKIPPED: no futex_waitv here, or switched off");
        return;
    }
    const Word words[3] = {0, 0, 0};
    const FutexWaiter waiters[] = {{&words[0], 0}, {&words[1], 0}, {&words[2], 0}};
    CHECK(futex_waitv(waiters, nanotime() + 2 * kMillisecond) == -ETIMEDOUT);
    CHECK(futex_waitv(waiters, -5) == -ETIMEDOUT);
    for (int which = 0; which < 3; ++which) {
        for (const FutexCall call : {FutexCall::kFutex, futex_call()}) {
            int result = -1;
            std::thread waiter([&] { result = futex_waitv(waiters, nanotime() + kGiveUpNs); });
            wake_all(call, &words[which], 1);
            waiter.join();
            CHECK(result == which);
        }
    }
}
