// SPDX-License-Identifier: Apache-2.0
//
// Who runs when: whatever others do, everybody's turn comes. After the reference's proc_test. Waits
// end after ten seconds and more at the earliest, so that a busy machine is no failure.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <system_error>
#include <thread>

#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::Listener;
using baton::WaitGroup;
using procs_test::over_procs;
using Clock = std::chrono::steady_clock;

namespace {

constexpr auto kLong = 20s;

/// So many that meet: each spins, without a call of the runtime's, until all have come.
class Meeting {
public:
    explicit Meeting(int all) : all_(all) {}
    void attend() {
        arrived_.fetch_add(1);
        const auto end = Clock::now() + kLong;
        while (arrived_.load() < all_ && Clock::now() < end) __builtin_ia32_pause();
        met_.fetch_add(arrived_.load() == all_);
    }
    [[nodiscard]] bool all_met() const { return met_.load() == all_; }

private:
    const int all_;
    std::atomic<int> arrived_{0};
    std::atomic<int> met_{0};
};

/// Makes threads that may come for what is left on a queue.
void make_idle_threads() {
    WaitGroup wg;
    for (int i = 0; i < 10; i++) wg.go([] { baton::blocking([] { usleep(5000); }); });
    wg.wait();
}

/// A goroutine sets the flag after 20 ms.
void ring_soon(WaitGroup& wg, std::atomic<bool>& rang) {
    wg.go([&rang] {
        baton::sleep_for(20ms);
        rang.store(true);
    });
}

} // namespace

// TestYieldProgress, TestYieldLockedProgress
TEST_CASE("progress: goroutines that only yield let others run, locked to their threads or not") {
    for (const bool locked : {false, true}) {
        over_procs([locked](int procs) {
            std::atomic<bool> stop{false};
            WaitGroup wg;
            for (int i = 0; i < procs; i++) {
                wg.go([&] {
                    if (locked) baton::lock_os_thread();
                    while (!stop.load()) baton::yield();
                });
            }
            baton::sleep_for(10ms);
            for (int i = 0; i < 100; i++) baton::yield();
            stop.store(true);
            wg.wait();
            CHECK(stop.load());
        });
    }
}

// TestGoroutineParallelism
TEST_CASE("progress: as many goroutines run at the same time as there are processors") {
    over_procs([](int procs) {
        for (int round = 0; round < 10; round++) {
            Meeting meeting(procs);
            WaitGroup wg;
            for (int i = 0; i < procs; i++) wg.go([&] { meeting.attend(); });
            wg.wait();
            CHECK(meeting.all_met());
        }
    });
}

// TestGoroutineParallelism2
TEST_CASE("progress: so they do just after others have run, and while the network is polled") {
    over_procs([](int procs) {
        for (const bool polled : {false, true}) {
            Listener listener;
            WaitGroup acceptor;
            if (polled) {
                listener = Listener::listen("tcp", "127.0.0.1:0");
                acceptor.go([&] {
                    std::error_code ec;
                    (void)listener.accept(ec); // until it is closed
                });
            }
            for (int round = 0; round < 3; round++) {
                Meeting before(procs), meeting(procs);
                WaitGroup wg;
                for (int i = 0; i < procs; i++) wg.go([&] { before.attend(); });
                wg.wait(); // now their threads are about to park
                for (int i = 0; i < procs; i++) wg.go([&] { wg.go([&] { meeting.attend(); }); });
                wg.wait();
                CHECK(meeting.all_met());
            }
            if (polled) listener.close();
            acceptor.wait();
        }
    });
}

// TestPingPongHog: a pair that readies each other through runnext shares one time slice.
TEST_CASE("progress: a pair that plays ping-pong does not starve a third") {
    over_procs([](int) {
        Chan<int> ping, pong;
        std::atomic<bool> stop{false};
        std::atomic<std::uint64_t> rallies{0};
        const auto end = Clock::now() + kLong;
        WaitGroup wg;
        wg.go([&] {
            for (const int ball : ping) pong.send(ball);
            pong.close();
        });
        wg.go([&] {
            while (!stop.load() && Clock::now() < end) {
                ping.send(1);
                if (pong.recv() == 1) rallies.fetch_add(1);
            }
            ping.close();
        });
        int turns = 0;
        for (; (turns < 10 || rallies.load() < 1000) && Clock::now() < end; turns++) baton::yield();
        stop.store(true);
        wg.wait();
        CHECK(turns >= 10);
        CHECK(rallies.load() >= 1000);
    });
}

// TestTimerFairness
TEST_CASE("progress: timers fire while goroutines pass values as fast as they can") {
    over_procs([](int) {
        Chan<int> c;
        std::atomic<bool> rang{false};
        WaitGroup senders, bell;
        for (int i = 0; i < 2; i++) {
            senders.go([=] {
                try {
                    for (;;) c.send(1);
                } catch (const baton::ChanClosed&) {
                }
            });
        }
        ring_soon(bell, rang);
        for (const auto end = Clock::now() + kLong; !rang.load() && Clock::now() < end;)
            (void)c.recv();
        CHECK(rang.load());
        c.close();
        senders.wait();
        bell.wait();
    });
}

// TestTimerFairness2
TEST_CASE("progress: timers fire while goroutines go from one call into the next") {
    over_procs([](int) {
        int ends[2];
        REQUIRE(::pipe(ends) == 0);
        std::atomic<int> heard{0};
        Chan<int> c(1);
        WaitGroup wg;
        for (int i = 0; i < 2; i++) {
            wg.go([&] {
                std::atomic<bool> rang{false};
                WaitGroup bell;
                ring_soon(bell, rang);
                for (const auto end = Clock::now() + kLong; !rang.load() && Clock::now() < end;) {
                    char none;
                    (void)baton::blocking([&] { return ::read(ends[0], &none, 0); });
                    if (!c.try_send(1)) (void)c.try_recv();
                }
                heard.fetch_add(rang.load());
                bell.wait();
            });
        }
        wg.wait();
        CHECK(heard.load() == 2);
        ::close(ends[0]);
        ::close(ends[1]);
    });
}

// TestNetpollBreak
TEST_CASE("progress: a wait for the network that is to last long ends for a timer set meanwhile") {
    over_procs([](int) {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        listener.set_deadline(Clock::now() + 1h);
        WaitGroup acceptor;
        std::atomic<bool> closed{false};
        acceptor.go([&] {
            std::error_code ec;
            (void)listener.accept(ec);
            closed.store(ec == std::errc::bad_file_descriptor);
        });
        // A plain thread, so that all goroutines but the acceptor come and go.
        std::atomic<int> woken{0};
        const auto start = Clock::now();
        std::thread plain([&] {
            for (int i = 0; i < 10; i++) {
                baton::run([&] {
                    baton::sleep_for(1ms);
                    woken.fetch_add(1);
                });
                std::this_thread::sleep_for(1ms);
            }
        });
        baton::blocking([&] { plain.join(); });
        CHECK(woken.load() == 10);
        CHECK(Clock::now() - start < kLong);
        listener.close();
        acceptor.wait();
        CHECK(closed.load());
    });
}

// A thief that takes what a P would run next gives it a moment first (pair.cpp).
TEST_CASE("two that ready each other mostly stay on one thread") {
    static constexpr int kRounds = 20'000;
    static constexpr int kTimes = 5;
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    static constexpr int kMost = kRounds / 4; // each takes so much longer
#else
    static constexpr int kMost = kRounds / 40;
#endif
    over_procs([](int) {
        make_idle_threads();
        std::array<int, kTimes> moved{};
        for (int& times : moved) {
            Chan<int> there, back;
            WaitGroup echo;
            echo.go([&] {
                for (const int n : there) back.send(n);
            });
            const baton::rt::M* last = nullptr;
            for (int i = 0; i < kRounds; i++) {
                there.send(i);
                (void)back.recv();
                const baton::rt::M* m = baton::rt::getm();
                times += m != last;
                last = m;
            }
            there.close();
            echo.wait();
        }
        std::sort(moved.begin(), moved.end());
        CAPTURE(moved[kTimes / 2]);
        CHECK(moved[kTimes / 2] < kMost);
    });
}

namespace {

/// How often threads were woken, be it for nothing.
std::uint64_t wakes() {
    using baton::rt::sched;
    const baton::rt::LockGuard guard(sched.mlock);
    std::uint64_t n = 0;
    for (std::uint32_t slot = 1; slot <= sched.mslots; slot++) n += sched.allm[slot]->park.load();
    return n;
}

} // namespace

// Each time the buffer is full or empty one readies the other: some 12,000 times.
TEST_CASE("a stream between two goroutines does not wake a thread for each burst") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    std::printf("skip: under a sanitizer a burst takes longer than a thief waits\n");
#else
    static constexpr int kValues = 800'000;
    static constexpr int kTimes = 5;
    static constexpr std::uint64_t kMost = 60;
    over_procs([](int) {
        make_idle_threads();
        std::array<std::uint64_t, kTimes> woken{};
        for (std::uint64_t& times : woken) {
            Chan<int> values(128);
            WaitGroup receiver;
            const std::uint64_t before = wakes();
            receiver.go([&] {
                for (const int n : values) (void)n;
            });
            for (int i = 0; i < kValues; i++) values.send(i);
            values.close();
            receiver.wait();
            times = wakes() - before;
        }
        std::sort(woken.begin(), woken.end());
        CAPTURE(woken[1]); // two of five at least: a burst may be cut short on a busy machine
        CHECK(woken[1] < kMost);
    });
#endif
}

// Pairs are left alone, but looked at.
TEST_CASE("who is readied by one of a pair that computes all of a sudden soon runs elsewhere") {
    static constexpr int kTimes = 20;
    over_procs([](int procs) {
        if (procs == 1) return; // it waits for the other's slice to end
        make_idle_threads();
        std::array<std::chrono::microseconds, kTimes> took{};
        for (auto& late : took) {
            Chan<bool> there, back;
            std::atomic<bool> ran{false};
            WaitGroup other;
            other.go([&] {
                while (there.recv().value_or(false)) back.send(true);
                ran.store(true);
            });
            for (int i = 0; i < 5'000; i++) {
                there.send(true);
                (void)back.recv();
            }
            for (int i = 0; i < 3; i++) baton::yield(); // the other one waits to receive
            const auto start = Clock::now();
            there.send(false);
            while (!ran.load() && Clock::now() - start < kLong) __builtin_ia32_pause();
            late = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start);
            other.wait();
        }
        std::sort(took.begin(), took.end());
        CAPTURE(took[kTimes * 3 / 4].count());
        CHECK(took[kTimes * 3 / 4] < 5ms); // a slice is 10
    });
}

namespace {

/// Yields 100,000 times, or until the other of the two was not the one that ran in between, on this
/// processor: a third may have stolen it, and then nobody is on the queue. So many times `none` was
/// counted up while it was there.
std::uint64_t yield_together(const std::atomic<const baton::rt::P*>& others_p,
                             const std::atomic<std::uint64_t>& others_turns,
                             const std::atomic<std::uint64_t>& none) {
    std::uint64_t sure = 0;
    const baton::rt::P* p = baton::rt::getm()->p;
    for (int i = 0; i < 100'000; i++) {
        const std::uint64_t so_far = none.load(), turns = others_turns.load();
        baton::yield();
        if (baton::rt::getm()->p != p || others_p.load() != p || others_turns.load() != turns + 1)
            break;
        sure = so_far;
    }
    return sure;
}

/// How often the queue of two that yield to each other looked empty to a third, on the other of two
/// processors. Adds to `looks`.
std::uint64_t times_empty(std::uint64_t& looks) {
    std::atomic<const baton::rt::P*> looked_at{nullptr}, others_p{nullptr};
    std::atomic<std::uint64_t> none{0}, turns{0};
    std::atomic<int> phase{0}; // 1: it looks, 2: it is to end, 3: it has
    WaitGroup wg;
    wg.go([&] {
        for (phase.store(1); phase.load() != 2;) {
            const baton::rt::P* p = looked_at.load();
            if (!p) continue;
            const bool empty = baton::rt::runqempty(p);
            if (looked_at.load() != p) continue;
            looks++;
            if (empty) none.fetch_add(1);
        }
        phase.store(3);
    });
    while (phase.load() == 0) baton::yield(); // now it computes on the other processor
    std::atomic<bool> stop{false};
    wg.go([&] {
        while (!stop.load()) {
            others_p.store(baton::rt::getm()->p);
            turns.fetch_add(1);
            baton::yield();
        }
    });
    while (turns.load() == 0) baton::yield();
    looked_at.store(baton::rt::getm()->p);
    const std::uint64_t sure = yield_together(others_p, turns, none);
    looked_at.store(nullptr);
    phase.store(2);
    while (phase.load() != 3) baton::yield();
    stop.store(true);
    wg.wait();
    return sure;
}

} // namespace

// An M that goes to sleep looks at all queues last. One that is on none at that moment, and whom
// nobody wakes an M for, would wait for as long as the one before it computes.
TEST_CASE("progress: one of two that yield to each other is always on their queue") {
    baton::set_max_procs(2);
    baton::run([] {
        std::uint64_t none = 0, looks = 0;
        for (int round = 0; round < 3; round++) none += times_empty(looks);
        CHECK(looks > 0);
        CHECK(none == 0);
    });
}

TEST_CASE("progress: an idle processor comes for one behind another that computes") {
    over_procs([](int procs) {
        if (procs == 1) return;
        make_idle_threads();
        std::atomic<baton::rt::G*> waits{nullptr};
        std::atomic<bool> ran{false};
        WaitGroup wg;
        wg.go([&] {
            const baton::rt::Entry entry;
            waits.store(baton::rt::getg());
            baton::rt::gopark(nullptr, nullptr, baton::rt::WaitReason::kSemacquire);
            ran.store(true);
        });
        const auto parked = [&] {
            const baton::rt::G* gp = waits.load();
            return gp && gp->status.load() == baton::rt::GStatus::kWaiting;
        };
        while (!parked()) baton::sleep_for(1ms);
        {
            const baton::rt::Entry entry; // as goready, but that nobody is woken
            waits.load()->status.store(baton::rt::GStatus::kRunnable);
            baton::rt::runqput(baton::rt::getm()->p, waits.load(), false);
        }
        for (const auto end = Clock::now() + kLong; !ran.load() && Clock::now() < end;)
            __builtin_ia32_pause();
        CHECK(ran.load());
        wg.wait();
    });
}
