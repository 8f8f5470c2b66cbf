// SPDX-License-Identifier: Apache-2.0
//
// One goroutine that waits for several descriptors at once (runtime/netpoll_any.hpp).
//
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <sys/eventfd.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/clock.hpp"
#include "runtime/netpoll_any.hpp"

using namespace std::chrono_literals;
using baton::rt::PollAsk;
using baton::rt::PollDesc;
using baton::rt::PollMode;

namespace {

constexpr std::int64_t kSoon = 20'000'000;
constexpr std::int64_t kLate = 20'000'000'000;

std::int64_t in(std::int64_t ns) { return baton::kernel::nanotime() + ns; }

/// An eventfd that is polled.
class Event {
public:
    Event() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        int err = 0;
        pd_ = baton::rt::poll_open(fd_, &err);
        REQUIRE(err == 0);
    }
    ~Event() {
        evict();
        baton::rt::poll_close(pd_);
        ::close(fd_);
    }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    void tell() const {
        const std::uint64_t one = 1;
        (void)!::write(fd_, &one, sizeof one);
    }
    /// How often it was told since.
    std::uint64_t take() const {
        std::uint64_t n = 0;
        return ::read(fd_, &n, sizeof n) == sizeof n ? n : 0;
    }
    void evict() {
        if (!evicted_) baton::rt::poll_evict(pd_);
        evicted_ = true;
    }
    PollDesc* desc() const { return pd_; }
    PollAsk reads() const { return {pd_, PollMode::kRead}; }
    PollAsk writes() const { return {pd_, PollMode::kWrite}; }
    /// As before each wait of the hooks'.
    void rearm() const {
        CHECK(baton::rt::poll_reset(pd_, PollMode::kRead) == 0);
        CHECK(baton::rt::poll_rearm(pd_, PollMode::kRead) == 0);
    }
    void disarm() const { baton::rt::poll_disarm(pd_, PollMode::kRead); }

private:
    int fd_;
    PollDesc* pd_ = nullptr;
    bool evicted_ = false;
};

int wait_any(std::initializer_list<PollAsk> asks, std::int64_t when) {
    return baton::rt::poll_wait_any(asks.begin(), static_cast<unsigned>(asks.size()), when);
}

/// Those of `all` that were told of nothing yet.
void reset(std::initializer_list<const Event*> all) {
    for (const Event* e : all) {
        (void)baton::rt::poll_reset(e->desc(), PollMode::kRead);
        (void)baton::rt::poll_reset(e->desc(), PollMode::kWrite);
    }
}

} // namespace

TEST_CASE("whichever of several descriptors is ready first ends the wait") {
    baton::run([] {
        std::array<Event, 3> events;
        for (const Event& told : events) {
            reset({&events[0], &events[1], &events[2]});
            baton::WaitGroup wg;
            wg.go([&] {
                baton::sleep_for(2ms);
                told.tell();
            });
            CHECK(wait_any({events[0].reads(), events[1].reads(), events[2].reads()}, in(kLate)) ==
                  0);
            CHECK(told.take() == 1);
            wg.wait();
        }
        // Afterwards each can be waited for by itself.
        reset({&events[1]});
        events[1].tell();
        CHECK(baton::rt::poll_wait(events[1].desc(), PollMode::kRead) == 0);
    });
}

TEST_CASE("what was ready before does not wait") {
    baton::run([] {
        Event a, b;
        b.tell();
        baton::sleep_for(1ms); // an M has heard of it
        CHECK(wait_any({a.reads(), b.reads()}, in(kLate)) == 0);
        // Both directions of one: an eventfd is writable.
        Event c;
        CHECK(wait_any({c.reads(), c.writes()}, in(kLate)) == 0);
    });
}

TEST_CASE("a wait for several ends at its deadline, and with a descriptor's deadline or end") {
    baton::run([] {
        Event a, b;
        reset({&a, &b});
        const std::int64_t start = baton::kernel::nanotime();
        CHECK(wait_any({a.reads(), b.reads()}, in(kSoon)) == ETIMEDOUT);
        CHECK(baton::kernel::nanotime() - start >= kSoon);
        CHECK(wait_any({a.reads(), b.reads()}, 1) == ETIMEDOUT); // long past
        CHECK(wait_any({}, in(kSoon)) == ETIMEDOUT);

        baton::WaitGroup wg;
        wg.go([&] {
            baton::sleep_for(2ms);
            baton::rt::poll_set_deadline(b.desc(), 1, true, false);
        });
        CHECK(wait_any({a.reads(), b.reads()}, in(kLate)) == 0);
        wg.wait();
        // It has passed before the wait begins.
        CHECK(wait_any({a.reads(), b.reads()}, in(kLate)) == 0);
        baton::rt::poll_set_deadline(b.desc(), 0, true, false);

        wg.go([&] {
            baton::sleep_for(2ms);
            a.evict();
        });
        CHECK(wait_any({a.reads(), b.reads()}, in(kLate)) == 0);
        wg.wait();
        CHECK(baton::rt::poll_wait(a.desc(), PollMode::kRead) == EBADF);
    });
}

// Each is told of things by two others, all the time, while its waits end by deadlines as well:
// none of it may be lost, and no wait of something else ended.
TEST_CASE("nothing is lost between waits for several descriptors that end at once") {
    constexpr int kWaiters = 8;
    constexpr std::uint64_t kEach = 3000;
    baton::run([] {
        if (!baton::rt::poll_rearms()) {
            std::puts("skip: this engine rearms nothing, and the hooks wait for nothing here");
            return;
        }
        std::atomic<std::uint64_t> lost = 0, early = 0;
        baton::WaitGroup wg;
        for (int i = 0; i < kWaiters; i++)
            wg.go([&, i] {
                Event a, b;
                baton::WaitGroup tellers;
                baton::Mutex other; // waits by numbers, too, are what a late claim would end
                for (const Event* e : {&a, &b})
                    tellers.go([&other, e, i] {
                        for (std::uint64_t n = 0; n < kEach; n++) {
                            e->tell();
                            if (n % 7 == static_cast<std::uint64_t>(i) % 7) baton::yield();
                            if (n % 64 == 0) {
                                const std::unique_lock hold(other);
                                baton::yield();
                            }
                        }
                    });
                std::uint64_t got = 0;
                for (std::uint64_t round = 0; got < 2 * kEach; round++) {
                    a.rearm();
                    b.rearm();
                    const bool limited = round % 3 == 0;
                    const int err = wait_any({a.reads(), b.reads()}, in(limited ? 50'000 : kLate));
                    a.disarm();
                    b.disarm();
                    got += a.take() + b.take();
                    if (err != 0 && !limited) {
                        lost++;
                        break;
                    }
                    if (round % 5 == 0) {
                        const std::int64_t until = in(100'000);
                        baton::sleep_until(
                            std::chrono::steady_clock::time_point(std::chrono::nanoseconds(until)));
                        early += baton::kernel::nanotime() < until;
                    }
                    const std::unique_lock hold(other);
                }
                tellers.wait();
            });
        wg.wait();
        CHECK(lost == 0);
        CHECK(early == 0);
    });
}
