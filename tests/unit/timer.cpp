// SPDX-License-Identifier: Apache-2.0
//
// The timer heap against a std::multimap that does the same, and what it promises its readers.
#include "runtime/timer.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace {

using baton::rt::Timer;
using baton::rt::TimerEntry;
using baton::rt::Timers;

constexpr auto kSeqCst = std::memory_order_seq_cst;

struct Fired {
    std::vector<std::uintptr_t> seqs;
    std::vector<std::int64_t> late;
};

void note(void* arg, std::uintptr_t seq, std::int64_t late) {
    auto* fired = static_cast<Fired*>(arg);
    fired->seqs.push_back(seq);
    fired->late.push_back(late);
}

std::int64_t next_when(const Timers& timers) { return timers.next_when.load(kSeqCst); }

void check_invariants(const Timers& timers) {
    std::uint32_t zombies = 0;
    std::int64_t least = 0;
    for (std::size_t i = 0; i < timers.heap.size(); i++) {
        const TimerEntry& entry = timers.heap.begin()[i];
        if (i > 0) REQUIRE(timers.heap.begin()[(i - 1) / 4].when <= entry.when);
        REQUIRE(entry.timer->heap.load(kSeqCst) == &timers);
        REQUIRE(entry.timer->entry_when == entry.when);
        zombies += entry.timer->zombie ? 1 : 0;
        if (!entry.timer->zombie && (least == 0 || entry.timer->when < least))
            least = entry.timer->when;
    }
    REQUIRE(timers.zombies == zombies);
    REQUIRE(zombies <= timers.heap.size() / 4);
    if (!timers.heap.empty()) {
        REQUIRE(!timers.heap.first().timer->zombie);
        REQUIRE(timers.heap.first().timer->when == timers.heap.first().when);
    }
    // Never later than the first is due; earlier only after a timer moved up was moved back.
    REQUIRE((next_when(timers) != 0) == (least != 0));
    REQUIRE(next_when(timers) <= least);
}

} // namespace

TEST_CASE("timers fire in order, once, with their lateness") {
    Timers timers;
    Fired fired;
    std::deque<Timer> all(100);
    for (std::size_t i = 0; i < all.size(); i++) {
        const auto when = static_cast<std::int64_t>((i * 37) % 100 + 1);
        const auto armed =
            timers.arm(&all[i], when, note, &fired, static_cast<std::uintptr_t>(when));
        CHECK_FALSE(armed.pending);
    }
    CHECK(next_when(timers) == 1);
    CHECK(timers.run(0) == 1);
    CHECK(fired.seqs.empty());
    CHECK(timers.run(50) == 51);
    CHECK(timers.run(1000) == 0);
    CHECK(timers.run(1000) == 0);
    REQUIRE(fired.seqs.size() == 100);
    for (std::size_t i = 0; i < 100; i++) {
        CHECK(fired.seqs[i] == i + 1);
        const std::int64_t now = i < 50 ? 50 : 1000;
        CHECK(fired.late[i] == now - static_cast<std::int64_t>(i + 1));
    }
    CHECK(next_when(timers) == 0);
}

TEST_CASE("arm tells whether it was pending and whether the first is sooner") {
    Timers timers;
    Fired fired;
    Timer a;
    Timer b;
    auto armed = timers.arm(&a, 100, note, &fired, 1);
    CHECK_FALSE(armed.pending);
    CHECK(armed.sooner);
    armed = timers.arm(&b, 200, note, &fired, 2);
    CHECK_FALSE(armed.sooner);
    armed = timers.arm(&b, 50, note, &fired, 3); // up, past the head
    CHECK(armed.pending);
    CHECK(armed.sooner);
    CHECK(next_when(timers) == 50);
    armed = timers.arm(&a, 300, note, &fired, 4); // the head, back
    CHECK(armed.pending);
    CHECK_FALSE(armed.sooner);
    CHECK(next_when(timers) == 50);
    CHECK(timers.run(60) == 300);
    CHECK(timer_stop(&a));
    CHECK_FALSE(timer_stop(&a));
    CHECK_FALSE(timer_stop(&b));
    CHECK(next_when(timers) == 0);
    CHECK(timers.run(1000) == 0);
    CHECK(fired.seqs == std::vector<std::uintptr_t>{3});
    armed = timers.arm(&a, -5, note, &fired, 5); // long past
    CHECK_FALSE(armed.pending);
    CHECK(next_when(timers) == 1);
    CHECK(timers.run(1) == 0);
    CHECK(fired.seqs == std::vector<std::uintptr_t>{3, 5});
}

TEST_CASE("a stopped timer armed again fires at the new time only") {
    Timers timers;
    Fired fired;
    std::deque<Timer> all(10);
    for (std::size_t i = 0; i < all.size(); i++)
        timers.arm(&all[i], static_cast<std::int64_t>(10 * (i + 1)), note, &fired, i);
    CHECK(timer_stop(&all[7]));
    CHECK(timers.zombies == 1);
    CHECK_FALSE(timers.arm(&all[7], 15, note, &fired, 77).pending);
    CHECK(timers.zombies == 0);
    check_invariants(timers);
    timers.run(1000);
    CHECK(fired.seqs == std::vector<std::uintptr_t>{0, 77, 1, 2, 3, 4, 5, 6, 8, 9});
}

TEST_CASE("a callback may arm and stop timers, its own included") {
    struct Again {
        Timers timers;
        Timer own;
        Timer other;
        int times = 0;
    } again;
    const Timer::Fn f = [](void* arg, std::uintptr_t, std::int64_t) {
        auto* a = static_cast<Again*>(arg);
        a->times++;
        CHECK_FALSE(timer_stop(&a->own));
        CHECK(timer_stop(&a->other) == (a->times == 1));
        if (a->times < 3) {
            const auto g = a->own.f;
            a->timers.arm(&a->own, a->times + 1, g, a, 0);
        }
    };
    again.timers.arm(&again.own, 1, f, &again, 0);
    again.timers.arm(&again.other, 2, f, &again, 0);
    CHECK(again.timers.run(1) == 2);
    CHECK(again.timers.run(5) == 0);
    CHECK(again.times == 3);
}

TEST_CASE("stopped timers leave the heap before they are a quarter of it") {
    Timers timers;
    Fired fired;
    std::deque<Timer> all(1000);
    for (std::size_t i = 0; i < all.size(); i++)
        timers.arm(&all[i], static_cast<std::int64_t>(1000 + i), note, &fired, i);
    for (std::size_t i = all.size(); i-- > 1;) {
        CHECK(timer_stop(&all[i]));
        check_invariants(timers);
    }
    CHECK(timers.heap.size() == 1);
    CHECK(timer_stop(&all[0]));
    CHECK(timers.heap.empty());
    CHECK(next_when(timers) == 0);
    for (Timer& t : all) CHECK(t.heap.load(kSeqCst) == nullptr);
}

TEST_CASE("no more timers run than asked for, the first ones first") {
    Timers timers;
    Fired fired;
    std::deque<Timer> all(300);
    for (std::size_t i = 0; i < all.size(); i++)
        timers.arm(&all[i], static_cast<std::int64_t>(300 - i), note, &fired, 300 - i);
    CHECK(timers.run(1000, 70) == 71);
    CHECK(timers.run(1000, 0) == 71);
    CHECK(fired.seqs.size() == 70);
    CHECK(fired.seqs.back() == 70);
    check_invariants(timers);
    CHECK(timers.run(1000, 1) == 72);
    CHECK(timers.run(200, 1000) == 201);
    CHECK(timers.run(1000) == 0);
    for (std::size_t i = 0; i < 300; i++) CHECK(fired.seqs[i] == i + 1);
}

TEST_CASE("a due timer that was moved back comes after those due before its new time") {
    Timers timers;
    Fired fired;
    std::deque<Timer> all(6);
    for (std::size_t i = 0; i < all.size(); i++)
        timers.arm(&all[i], static_cast<std::int64_t>(10 * (i + 1)), note, &fired, i);
    timers.arm(&all[1], 45, note, &fired, 1);
    timers.arm(&all[2], 500, note, &fired, 2);
    CHECK(timers.run(100) == 500);
    CHECK(fired.seqs == std::vector<std::uintptr_t>{0, 3, 1, 4, 5});
    check_invariants(timers);
}

TEST_CASE("take moves live timers and drops zombies") {
    Timers from;
    Timers to;
    Fired fired;
    std::deque<Timer> all(100);
    for (std::size_t i = 0; i < all.size(); i++) {
        Timers& at = i % 2 ? from : to;
        at.arm(&all[i], static_cast<std::int64_t>(i + 1), note, &fired, i);
    }
    CHECK(timer_stop(&all[51]));
    from.arm(&all[99], 3, note, &fired, 99); // moved up, not there yet
    to.take(from);
    CHECK(from.heap.empty());
    CHECK(next_when(from) == 0);
    CHECK(to.heap.size() == 99);
    check_invariants(to);
    CHECK(timer_stop(&all[53]));
    CHECK(to.run(1000) == 0);
    CHECK(fired.seqs.size() == 98);
    CHECK(fired.late.front() == 999);
    // A taken-from heap goes on to serve.
    CHECK(from.arm(&all[0], 7, note, &fired, 0).sooner);
    CHECK(from.run(7) == 0);
}

TEST_CASE("random arming, moving, stopping and running agree with a multimap") {
    std::mt19937_64 random(20240229);
    for (int round = 0; round < 20; round++) {
        Timers timers;
        Fired fired;
        std::deque<Timer> all(1 + random() % 200);
        std::vector<std::multimap<std::int64_t, std::size_t>::iterator> where(all.size());
        std::multimap<std::int64_t, std::size_t> model;
        for (auto& it : where) it = model.end();
        std::int64_t now = 1;
        for (int step = 0; step < 2000; step++) {
            const std::size_t i = random() % all.size();
            const auto what = random() % 8;
            const bool was_armed = where[i] != model.end();
            if (what < 4) {
                const std::int64_t when = now + static_cast<std::int64_t>(random() % 1000);
                REQUIRE(timers.arm(&all[i], when, note, &fired, i).pending == was_armed);
                if (was_armed) model.erase(where[i]);
                where[i] = model.emplace(when, i);
            } else if (what < 7) {
                REQUIRE(timer_stop(&all[i]) == was_armed);
                if (was_armed) model.erase(where[i]);
                where[i] = model.end();
            } else {
                now += static_cast<std::int64_t>(random() % 100);
                timers.run(now);
                // Equal times fire in any order, so sets of one time are compared by their sizes.
                std::int64_t last = 0;
                for (std::size_t n = 0; n < fired.seqs.size(); n++) {
                    const std::size_t seq = fired.seqs[n];
                    REQUIRE(where[seq] != model.end());
                    REQUIRE(where[seq]->first == now - fired.late[n]);
                    REQUIRE(where[seq]->first >= last);
                    REQUIRE(where[seq]->first <= now);
                    last = where[seq]->first;
                    model.erase(where[seq]);
                    where[seq] = model.end();
                }
                REQUIRE((model.empty() || model.begin()->first > now));
                fired = {};
            }
            check_invariants(timers);
        }
    }
}
