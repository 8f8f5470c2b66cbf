// SPDX-License-Identifier: Apache-2.0
//
// The run queues, on Ps made by hand: no M runs here, the test's threads are owner and thieves.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include <sched.h>

#include "assist/records.hpp"
#include "runtime/sched.hpp"
#include "runtime/steal_order.hpp"

using namespace baton;
using namespace baton::rt;

namespace {

/// The runtime is not started; only what the queues look at is there.
void set_procs(std::uint32_t n) {
    if (!sched.records.sched) {
        sched.records = assist::allocate_records();
        REQUIRE(sched.records.sched != nullptr);
    }
    sched.gomaxprocs.store(n);
}

struct Queue {
    std::unique_ptr<P> owned = std::make_unique<P>();
    P* p = owned.get();
    shared::p_rec rec{}; // of a P that is not running
    Queue() { p->rec = &rec; }
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;
    G* get() {
        bool inherit = false;
        return runqget(p, inherit);
    }
    std::uint32_t length() const { return runqlen(p); }
};

/// Gs that are only passed about. `at` says which one it is.
struct Gs {
    explicit Gs(std::size_t n) : all(n) {}
    G* operator[](std::size_t i) { return &all[i]; }
    std::size_t at(const G* gp) const { return static_cast<std::size_t>(gp - all.data()); }
    std::vector<G> all;
};

/// With sched.lock held.
G* take(P* p, std::uint32_t max) { return first_of(p, globrunqget(p, max)); }

std::vector<std::size_t> drain_global(const Gs& gs) {
    std::vector<std::size_t> order;
    LockGuard guard(sched.lock);
    while (G* gp = sched.runq.pop()) order.push_back(gs.at(gp));
    runqsize().store(0);
    return order;
}

/// Waits for `flag` to be `value` on machines where the other side may not be running.
void await(const std::atomic<std::uint32_t>& flag, std::uint32_t value) {
    for (unsigned i = 1; flag.load() != value; i++) {
        if (i % 256 == 0) ::sched_yield();
    }
}

} // namespace

TEST_CASE("runq: first in, first out, round the ring more than once") {
    for (const std::uint32_t procs : {1u, 2u}) {
        set_procs(procs);
        Queue q;
        Gs gs(kRunqSize);
        CHECK(runqempty(q.p));
        CHECK(q.get() == nullptr);
        for (int round = 0; round < 5; round++) {
            const std::size_t n = round == 0 ? kRunqSize : 100;
            for (std::size_t i = 0; i < n; i++) runqput(q.p, gs[i], false);
            CHECK(q.length() == n);
            CHECK(!runqempty(q.p));
            for (std::size_t i = 0; i < n; i++) {
                bool inherit = true;
                CHECK(runqget(q.p, inherit) == gs[i]);
                CHECK(!inherit);
            }
            CHECK(runqempty(q.p));
        }
        CHECK(drain_global(gs).empty());
    }
}

TEST_CASE("runq: runnext goes first, inherits the slice, and is kicked to the tail") {
    for (const std::uint32_t procs : {1u, 2u}) {
        set_procs(procs);
        Queue q;
        Gs gs(4);
        runqput(q.p, gs[0], false);
        runqput(q.p, gs[1], true);
        CHECK(q.length() == 2);
        runqput(q.p, gs[2], false);
        runqput(q.p, gs[3], true); // kicks 1 behind 2
        bool inherit = false;
        CHECK(runqget(q.p, inherit) == gs[3]);
        CHECK(inherit);
        for (const std::size_t i : {0, 2, 1}) {
            CHECK(runqget(q.p, inherit) == gs[i]);
            CHECK(!inherit);
        }
        CHECK(runqempty(q.p));
    }
}

TEST_CASE("runq: a full ring sends its older half and the new one to the global queue") {
    for (const std::uint32_t procs : {1u, 2u}) {
        for (const bool kicked : {false, true}) {
            set_procs(procs);
            Queue q;
            Gs gs(kRunqSize + 2);
            for (std::size_t i = 0; i < kRunqSize; i++) runqput(q.p, gs[i], false);
            if (kicked) { // the overflow comes from runnext
                runqput(q.p, gs[kRunqSize], true);
                runqput(q.p, gs[kRunqSize + 1], true);
            } else {
                runqput(q.p, gs[kRunqSize], false);
            }
            CHECK(runqsize().load() == kRunqSize / 2 + 1);
            const std::vector<std::size_t> global = drain_global(gs);
            REQUIRE(global.size() == kRunqSize / 2 + 1);
            for (std::size_t i = 0; i < kRunqSize / 2; i++) CHECK(global[i] == i);
            CHECK(global.back() == kRunqSize);
            if (kicked) CHECK(q.get() == gs[kRunqSize + 1]);
            for (std::size_t i = kRunqSize / 2; i < kRunqSize; i++) CHECK(q.get() == gs[i]);
            CHECK(q.get() == nullptr);
        }
    }
}

TEST_CASE("runq: stacks are asked for in groups, until all that have not run for long were taken") {
    set_procs(2);
    Queue thief, victim;
    Gs gs(11);
    const auto cold = [](const Queue& q) { return q.p->asked + q.p->cold; };
    for (std::size_t n = 0; n <= 10; n++) {
        for (std::size_t i = 0; i < n; i++) runqput(victim.p, gs[i], false);
        runq_is_cold(victim.p, 3);
        CHECK(cold(victim) == n);
        CHECK(victim.p->asked == std::min<std::size_t>(n, 3));
        // Thieves leave less than there was, and somebody else comes.
        const bool stolen = runqsteal(thief.p, victim.p, false) != nullptr;
        runqput(victim.p, gs[10], false);
        CHECK(cold(thief) == (stolen ? n - n / 2 - 1 : 0));
        for (std::size_t i = cold(thief); thief.get() != nullptr;) {
            CHECK(cold(thief) == --i);
            CHECK((i == 0 || thief.p->asked != 0));
        }
        while (victim.get() != nullptr) {
        }
        CHECK(victim.p->asked < kAskAtOnce);
        CHECK(victim.p->cold == 0);
    }
}

TEST_CASE("runq: a thief gets the larger half, oldest first") {
    set_procs(2);
    Queue thief, victim;
    Gs gs(kRunqSize);
    for (std::size_t n = 0; n <= kRunqSize; n++) {
        for (std::size_t i = 0; i < n; i++) runqput(victim.p, gs[i], false);
        std::set<std::size_t> seen;
        std::size_t stolen = 0;
        if (G* last = runqsteal(thief.p, victim.p, false)) {
            stolen = 1;
            for (std::size_t i = 0; G* gp = thief.get(); i++, stolen++) {
                CHECK(gs.at(gp) == i);
                CHECK(seen.insert(i).second);
            }
            // The one to run at once is the youngest of them.
            CHECK(gs.at(last) == stolen - 1);
            CHECK(seen.insert(gs.at(last)).second);
        }
        CHECK(stolen == n - n / 2);
        while (G* gp = victim.get()) CHECK(seen.insert(gs.at(gp)).second);
        CHECK(seen.size() == n);
    }
}

TEST_CASE("runq: runnext is stolen only when that is asked, and when nothing else is there") {
    set_procs(2);
    Queue thief, victim;
    Gs gs(2);
    runqput(victim.p, gs[0], true);
    CHECK(runqsteal(thief.p, victim.p, false) == nullptr);
    CHECK(!runqempty(victim.p));
    runqput(victim.p, gs[1], false);
    CHECK(runqsteal(thief.p, victim.p, true) == gs[1]);
    CHECK(runqsteal(thief.p, victim.p, true) == gs[0]);
    CHECK(runqempty(victim.p));
    CHECK(runqempty(thief.p));
    CHECK(runqsteal(thief.p, victim.p, true) == nullptr);
}

// TestStealOrder
TEST_CASE("runq: a thief visits each P once, and does not always begin with the same one") {
    for (std::uint32_t n = 1; n <= 64; n++) {
        std::set<std::uint32_t> first;
        for (std::uint32_t seed = 0; seed < 1000; seed++) {
            const std::uint32_t random = seed * 2654435761u;
            std::vector<std::uint32_t> order;
            CHECK(!in_random_order(n, random, [&](std::uint32_t i) {
                order.push_back(i);
                return false;
            }));
            REQUIRE(order.size() == n);
            first.insert(order.front());
            CHECK(std::set<std::uint32_t>(order.begin(), order.end()).size() == n);
            CHECK(*std::max_element(order.begin(), order.end()) == n - 1);
        }
        CHECK(first.size() > n / 2);
    }
    int visited = 0;
    CHECK(in_random_order(8, 12345, [&](std::uint32_t) { return ++visited == 3; }));
    CHECK(visited == 3);
}

TEST_CASE("runq: the global queue gives each P its share") {
    struct Rule {
        std::uint32_t procs, size, max, got;
    };
    constexpr std::uint32_t kHalf = kRunqSize / 2;
    for (const Rule& r : std::initializer_list<Rule>{{1, 1, 0, 1},
                                                     {1, 10, 0, 10},
                                                     {2, 10, 0, 6},
                                                     {4, 10, 0, 3},
                                                     {4, 3, 0, 1},
                                                     {2, 10, 1, 1},
                                                     {2, 10, 4, 4},
                                                     {1, 1000, 0, kHalf},
                                                     {2, 1000, 0, kHalf},
                                                     {64, 640, 0, 11}}) {
        set_procs(r.procs);
        Queue q;
        Gs gs(r.size);
        LockGuard guard(sched.lock);
        CHECK(take(q.p, 0) == nullptr);
        GChains batch;
        for (std::uint32_t i = 0; i < r.size; i++) batch.push_back(gs[i]);
        globrunqput_all(batch);
        CHECK(batch.empty());
        CHECK(take(q.p, r.max) == gs[0]);
        CHECK(q.length() == r.got - 1);
        CHECK(sched.runq.size() == r.size - r.got);
        CHECK(runqsize().load() == r.size - r.got);
        for (std::uint32_t i = 1; i < r.got; i++) CHECK(q.get() == gs[i]);
        for (std::uint32_t i = r.got; i < r.size; i++) CHECK(take(q.p, 1) == gs[i]);
        CHECK(runqsize().load() == 0);
    }
}

TEST_CASE("runq: goroutines whose slice was ended and all others take turns") {
    set_procs(2);
    Queue q;
    Gs gs(8);
    LockGuard guard(sched.lock);
    for (std::size_t i = 0; i < 4; i++) {
        globrunqput(gs[i]);
        globrunqput_hog(gs[4 + i]);
        gs[4 + i]->hog_ns = 0; // each has waited for long
    }
    std::size_t hogs = 0;
    for (std::size_t i = 0; i < 8; i++) {
        G* gp = take(q.p, 1);
        if (!gp) gp = take(q.p, 0);
        REQUIRE(gp != nullptr);
        hogs += gs.at(gp) >= 4;
        CHECK(hogs == i / 2 + 1); // every other one
    }
    CHECK(hogs == 4);
    globrunqput_hog(gs[7]); // a young one: only when there is nobody else
    globrunqput(gs[0]);
    CHECK(take(q.p, 0) == gs[0]);
    CHECK(take(q.p, 0) == gs[7]);
    CHECK(globrunqempty());
}

TEST_CASE("runq: the next of those preempted in the signal handler is found among the others") {
    set_procs(2);
    Gs gs(3);
    M m{};
    LockGuard guard(sched.lock);
    for (std::size_t i = 0; i < 3; i++) globrunqput_hog(gs[i]);
    CHECK(globrunqget_preempted() == nullptr);
    gs[1]->lockedm = gs[2]->lockedm = &m;
    CHECK(globrunqget_preempted() == gs[1]);
    CHECK(globrunqget_preempted() == gs[2]);
    CHECK(globrunqget_preempted() == nullptr);
    CHECK(sched.hogq.n == 1);
    globrunqput_hog(gs[1]); // the tail is right again
    CHECK(sched.hogq.pop() == gs[0]);
    CHECK(sched.hogq.pop() == gs[1]);
    CHECK(sched.hogq.empty());
    runqsize().store(0);
}

TEST_CASE("runq: runqput_all keeps the order and the queue it empties can be used again") {
    set_procs(2);
    Queue q;
    Gs gs(301);
    GQueue batch;
    for (std::size_t i = 0; i < 300; i++) batch.push_back(gs[i]);
    runqput_all(q.p, batch);
    CHECK(batch.empty());
    batch.push_back(gs[300]);
    CHECK(batch.pop() == gs[300]);
    // 256 fit; the 257th took 128 along to the global queue.
    const std::vector<std::size_t> global = drain_global(gs);
    CHECK(global.size() == kRunqSize / 2 + 1);
    CHECK(q.length() == 300 - global.size());
}

// Between a put and a get the queue holds a G at every moment, be it runnext or in the ring: nobody
// may see it empty (the reference's TestSchedLocalQueueEmpty).
TEST_CASE("runq: never empty while a G moves from runnext to the ring") {
    set_procs(2);
    Queue q;
    Gs gs(2);
    constexpr std::uint32_t kRounds = 20'000;
    std::atomic<std::uint32_t> round{0};
    std::atomic<std::uint32_t> looked{0};
    std::uint64_t empty = 0;
    std::thread watcher([&] {
        for (std::uint32_t i = 1; i <= kRounds; i++) {
            await(round, i);
            for (int look = 0; look < 4; look++) empty += runqempty(q.p);
            looked.store(i);
        }
    });
    for (std::uint32_t i = 1; i <= kRounds; i++) {
        runqput(q.p, gs[0], (i & 1) == 0);
        round.store(i);
        runqput(q.p, gs[1], (i & 2) == 0);
        REQUIRE(q.get() != nullptr);
        await(looked, i);
        REQUIRE(q.get() != nullptr);
        REQUIRE(q.get() == nullptr);
    }
    watcher.join();
    CHECK(empty == 0);
}

namespace {

/// One owner that puts and takes, thieves that steal into queues of their own.
struct Robbery {
    static constexpr std::size_t kGs = 1000;
    static constexpr int kThieves = 3;
    Queue victim;
    Gs gs{kGs};
    std::array<std::atomic<std::uint32_t>, kGs> seen{};
    std::atomic<std::uint32_t> out{0}; // how many came out in this round
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> stolen{0};

    void note(const G* gp) {
        seen[gs.at(gp)].fetch_add(1);
        out.fetch_add(1);
    }
    void thief() {
        Queue own;
        for (unsigned i = 1; !stop.load(); i++) {
            G* gp = runqsteal(own.p, victim.p, i % 4 == 0);
            if (!gp) {
                if (i % 64 == 0) ::sched_yield();
                continue;
            }
            note(gp);
            std::uint64_t n = 1;
            for (; (gp = own.get()) != nullptr; n++) note(gp);
            stolen.fetch_add(n);
        }
    }
    /// Puts all Gs once, takes some back; whatever is left when all are in is taken by anybody.
    void owner_round() {
        out.store(0);
        for (std::size_t i = 0; i < kGs; i++) {
            runqput(victim.p, gs[i], i % 3 == 0);
            if (i % 5 != 0) continue;
            if (G* gp = victim.get()) note(gp);
        }
        while (out.load() != kGs) {
            G* gp = victim.get();
            if (!gp && runqsize().load() != 0) {
                LockGuard guard(sched.lock);
                gp = take(victim.p, 0);
            }
            if (gp) note(gp);
            if (!gp) ::sched_yield();
        }
    }
};

} // namespace

TEST_CASE("runq: nor while its owner brings Gs from the global queue") {
    set_procs(2);
    Queue q;
    Gs gs(10);
    LockGuard guard(sched.lock);
    for (std::size_t i = 0; i < 10; i++) globrunqput(gs[i]);
    CHECK(runqempty(q.p));
    const GQueue brought = globrunqget(q.p, 0);
    CHECK(!runqempty(q.p));
    CHECK(first_of(q.p, brought) == gs[0]);
    while (q.get()) CHECK(!q.p->moving.load());
    CHECK(runqempty(q.p));
    while (sched.runq.pop()) {
    }
    runqsize().store(0);
}

TEST_CASE("runq: under thieves each G comes out exactly once") {
    set_procs(2);
    Robbery r;
    std::vector<std::thread> thieves;
    for (int i = 0; i < Robbery::kThieves; i++) thieves.emplace_back([&] { r.thief(); });
    // Until the thieves had their share, which on a busy machine takes a while.
    std::uint32_t rounds = 0;
    std::uint32_t wrong = 0;
    while (rounds < 300 || (r.stolen.load() < 10'000 && rounds < 100'000)) {
        r.owner_round();
        rounds++;
        for (std::size_t i = 0; i < Robbery::kGs; i++) wrong += r.seen[i].load() != rounds;
    }
    r.stop.store(true);
    for (std::thread& t : thieves) t.join();
    CHECK(runqempty(r.victim.p));
    CHECK(runqsize().load() == 0);
    CHECK(wrong == 0);
    CHECK(r.stolen.load() >= 10'000);               // the premise: thieves were at work,
    CHECK(r.stolen.load() < rounds * Robbery::kGs); // and so was the owner
}
