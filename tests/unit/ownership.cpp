// SPDX-License-Identifier: Apache-2.0
//
// Who owns a P: the word, the table of its moves, each function from each state, and threads that
// fight for one record. tests/model/ownership.pml checks the protocol; this checks the code.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include <sched.h>

#include "assist/ownership.hpp"
#include "kernel/cpus.hpp"
#include "kernel/features.hpp"

using namespace baton;
using namespace baton::assist;
using namespace std::chrono_literals;

namespace {

constexpr std::array kStates = {shared::P_IDLE,    shared::P_RUN,    shared::P_SYSCALL,
                                shared::P_BLOCKED, shared::P_OFFCPU, shared::P_GCSTOP,
                                shared::P_DEAD};

bool have_rseq() { return kernel::features().rseq && kernel::features().membarrier_rseq; }

/// Sets the way of the whole process for one test: restartable sequences, or a CAS everywhere.
struct Way {
    explicit Way(bool rseq) { use_rseq = rseq; }
    ~Way() { use_rseq = false; }
};

std::vector<bool> ways() {
    if (have_rseq()) return {false, true};
    std::printf("skip: no rseq or no membarrier here: the way by CAS alone\n");
    return {false};
}

void put(p_rec& p, const Word& w) { ref(p).store(w.pack()); }

/// What the probe does when the kernel takes the CPU from the owner: on that CPU, by a CAS.
bool block(p_rec& p, std::uint16_t slot, std::uint16_t cpu) {
    std::uint64_t expect = Word{slot, 0, cpu, shared::P_SYSCALL}.pack();
    return ref(p).compare_exchange_strong(expect, Word{slot, 0, cpu, shared::P_BLOCKED}.pack());
}

/// Runs f on a thread of its own, as the M `slot`; on `cpu` unless that is negative.
template <class F>
void as_m(std::uint16_t slot, int cpu, F f) {
    std::thread([&] {
        if (cpu >= 0) REQUIRE(kernel::pin_thread(cpu) == 0);
        kernel::RseqArea own;
        f(Actor{slot, kernel::rseq_attach(&own)});
        kernel::rseq_detach(&own);
    }).join();
}

/// Leaves a call that was entered on `cpu`, as exitsyscall does.
bool left_fast(p_rec& p, const Actor& me, int cpu) {
    return leave_fast(p, call_word(me.slot, static_cast<std::uint16_t>(cpu)), run_word(me.slot),
                      me.rseq, static_cast<std::uint32_t>(cpu));
}

} // namespace

TEST_CASE("ownership: the table of moves is the one in the header's comment") {
    using enum p_state;
    const std::vector<std::pair<p_state, std::vector<p_state>>> moves = {
        {P_IDLE, {P_RUN, P_GCSTOP}},
        {P_RUN, {P_RUN, P_SYSCALL, P_OFFCPU, P_IDLE, P_GCSTOP}},
        {P_SYSCALL, {P_RUN, P_BLOCKED}},
        {P_BLOCKED, {P_RUN}},
        {P_OFFCPU, {P_RUN}},
        {P_GCSTOP, {P_RUN, P_IDLE, P_DEAD}},
        {P_DEAD, {P_GCSTOP}},
    };
    REQUIRE(moves.size() == std::size(kMoves));
    for (const auto& [from, tos] : moves) {
        std::uint32_t bits = 0;
        for (const p_state to : tos) {
            CHECK(legal(from, to));
            bits |= 1u << to;
        }
        CHECK(kMoves[from] == bits);
    }
}

TEST_CASE("ownership: the word packs and unpacks, and zeros are an idle P without owner") {
    const Word none = Word::of(0);
    CHECK(none.owner == 0);
    CHECK(none.taker == 0);
    CHECK(none.state == shared::P_IDLE);
    for (const p_state state : kStates) {
        for (const std::uint16_t n : {0, 1, 0x7fff, 0x8000, 0xffff}) {
            const auto owner = n;
            const auto taker = static_cast<std::uint16_t>(n ^ 0x5555);
            const auto cpu = static_cast<std::uint16_t>(~n);
            const Word w{owner, taker, cpu, state};
            const Word back = Word::of(w.pack());
            CHECK(back.owner == owner);
            CHECK(run_word(owner) == Word{owner, 0, 0, shared::P_RUN}.pack());
            CHECK(call_word(owner, cpu) == Word{owner, 0, cpu, shared::P_SYSCALL}.pack());
            CHECK(back.taker == taker);
            CHECK(back.cpu == cpu);
            CHECK(back.state == state);
            const bool marked = state == shared::P_BLOCKED || state == shared::P_OFFCPU;
            CHECK(back.marked() == marked);
            CHECK(back.in_kernel() == (marked || state == shared::P_SYSCALL));
        }
    }
}

TEST_CASE("ownership: from each state each function makes a legal move or none") {
    for (const bool rseq : ways()) {
        const Way way(rseq);
        const int cpu = kernel::allowed_cpus().front();
        const auto c = static_cast<std::uint16_t>(cpu);
        as_m(7, cpu, [&](const Actor& me) {
            for (const p_state from : kStates) {
                const Word before{me.slot, 0, c, from};
                const bool in_kernel = before.in_kernel();
                p_rec p{};
                put(p, before);
                CHECK(take(p, before, 9, me) == in_kernel);
                CHECK(load(p).owner == (in_kernel ? 9 : me.slot));
                CHECK(load(p).state == (in_kernel ? shared::P_RUN : from));

                put(p, before);
                CHECK(take_here(p, before, 9, me) == in_kernel);
                CHECK(load(p).owner == (in_kernel ? 9 : me.slot));

                put(p, before);
                bool was_blocked = false;
                CHECK(reclaim(p, me, was_blocked) == (in_kernel || from == shared::P_RUN));
                CHECK(was_blocked == before.marked());
                CHECK(load(p).state == (in_kernel ? shared::P_RUN : from));
                if (in_kernel) CHECK(legal(from, load(p).state));

                if (!rseq) continue;
                put(p, before);
                CHECK(left_fast(p, me, cpu) == (from == shared::P_SYSCALL));
                if (from != shared::P_SYSCALL) CHECK(ref(p).load() == before.pack());
            }
        });
    }
}

TEST_CASE("ownership: the owner enters and leaves; hands over; gives up") {
    const int cpu = kernel::allowed_cpus().front();
    for (const bool rseq : ways()) {
        const Way way(rseq);
        as_m(3, cpu, [&](const Actor& me) {
            p_rec p{};
            hand_over(p, 3);
            CHECK(load(p).owner == 3);
            CHECK(load(p).state == shared::P_RUN);
            enter(p, call_word(3, static_cast<std::uint16_t>(cpu)));
            CHECK(load(p).state == shared::P_SYSCALL);
            CHECK(load(p).cpu == cpu);
            bool was_blocked = true;
            if (rseq) CHECK(left_fast(p, me, cpu));
            if (!rseq) CHECK(reclaim(p, me, was_blocked));
            if (!rseq) CHECK(!was_blocked);
            CHECK(load(p).state == shared::P_RUN);

            enter(p, call_word(3, static_cast<std::uint16_t>(cpu)));
            REQUIRE(block(p, 3, static_cast<std::uint16_t>(cpu)));
            if (rseq) CHECK(!left_fast(p, me, cpu));
            CHECK(reclaim(p, me, was_blocked));
            CHECK(was_blocked);
            CHECK(load(p).state == shared::P_RUN);
            CHECK(load(p).owner == 3);
            for (const p_state state : {shared::P_IDLE, shared::P_GCSTOP, shared::P_DEAD}) {
                give_up(p, state);
                CHECK(load(p).owner == 0);
                CHECK(load(p).state == state);
            }
        });
    }
}

TEST_CASE("ownership: an owner that comes back on another CPU finds its P, the hard way") {
    const std::vector<int> cpus = kernel::allowed_cpus();
    if (cpus.size() < 2) {
        std::printf("skip: one CPU: nobody comes back on another\n");
        return;
    }
    for (const bool rseq : ways()) {
        const Way way(rseq);
        as_m(3, cpus.front(), [&](const Actor& me) {
            p_rec p{};
            hand_over(p, 3);
            enter(p, call_word(3, static_cast<std::uint16_t>(cpus.front())));
            REQUIRE(kernel::pin_thread(cpus.back()) == 0);
            if (rseq) CHECK(!left_fast(p, me, cpus.front()));
            bool was_blocked = true;
            CHECK(reclaim(p, me, was_blocked));
            CHECK(!was_blocked);
            CHECK(load(p).owner == 3);
            CHECK(load(p).state == shared::P_RUN);
        });
    }
}

TEST_CASE("ownership: another takes it, from the same CPU and from another") {
    const std::vector<int> cpus = kernel::allowed_cpus();
    if (cpus.size() < 2) std::printf("skip: one CPU: nobody takes from another\n");
    for (const bool rseq : ways()) {
        for (const int entered : {cpus.front(), cpus.back()}) {
            for (const bool blocked : {false, true}) {
                const Way way(rseq);
                const auto c = static_cast<std::uint16_t>(entered);
                p_rec p{};
                hand_over(p, 1);
                enter(p, call_word(1, c));
                if (blocked) REQUIRE(block(p, 1, c));
                const Word seen = load(p);
                as_m(2, cpus.front(), [&](const Actor& me) {
                    const bool here = entered == cpus.front();
                    // By a sequence only on the CPU of the word; a CAS asks for no CPU.
                    if (rseq && !here && !blocked) CHECK(!take_here(p, seen, 2, me));
                    CHECK(take(p, seen, 2, me));
                    CHECK(load(p).owner == 2);
                    CHECK(load(p).taker == 0);
                    CHECK(load(p).state == shared::P_RUN);
                    CHECK(!take(p, seen, 2, me)); // once
                });
                as_m(1, entered, [&](const Actor& me) {
                    bool was_blocked = false;
                    if (rseq) CHECK(!left_fast(p, me, entered));
                    CHECK(!reclaim(p, me, was_blocked));
                    CHECK(load(p).owner == 2);
                });
            }
        }
    }
}

TEST_CASE("ownership: a set taker keeps everybody else out") {
    const int cpu = kernel::allowed_cpus().front();
    const auto c = static_cast<std::uint16_t>(cpu);
    for (const bool rseq : ways()) {
        const Way way(rseq);
        for (const p_state state : {shared::P_SYSCALL, shared::P_BLOCKED, shared::P_OFFCPU}) {
            p_rec p{};
            const Word claimed{1, 4, c, state};
            put(p, claimed);
            as_m(1, cpu, [&](const Actor& owner) {
                bool was_blocked = false;
                if (rseq) CHECK(!left_fast(p, owner, cpu));
                CHECK(!reclaim(p, owner, was_blocked));
            });
            as_m(2, cpu, [&](const Actor& me) {
                CHECK(!take(p, claimed, 2, me));
                CHECK(!take_here(p, claimed, 2, me));
                // Nor with what was seen before the taker came.
                const Word stale{1, 0, c, state};
                CHECK(!take(p, stale, 2, me));
                CHECK(!take_here(p, stale, 2, me));
            });
            CHECK(ref(p).load() == claimed.pack());
        }
    }
}

namespace {

/// What each fighter did; a fight in which a path was never gone proves nothing about it.
struct Counts {
    std::uint64_t sections = 0, fast = 0, hard = 0, after_block = 0, lost = 0;
    std::uint64_t took_here = 0, took_there = 0, took_blocked = 0, beaten = 0;
    void add(const Counts& o) {
        sections += o.sections, fast += o.fast, hard += o.hard, after_block += o.after_block;
        lost += o.lost, took_here += o.took_here, took_there += o.took_there;
        took_blocked += o.took_blocked, beaten += o.beaten;
    }
};

/// One record, and two plain numbers that only its owner touches: not atomic, on purpose.
struct Fight {
    alignas(64) p_rec p{};
    alignas(64) volatile std::uint64_t a = 0;
    alignas(64) volatile std::uint64_t b = 0;
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> torn{0};

    void section(Counts& n) {
        const std::uint64_t was = a;
        if (b != was) torn.fetch_add(1);
        a = was + 1;
        for (unsigned i = 0; i < (n.sections & 15); i++) __builtin_ia32_pause();
        if (b != was) torn.fetch_add(1);
        b = was + 1;
        n.sections++;
    }
};

/// In the kernel and back. False: the P was lost meanwhile.
bool system_call(Fight& f, const Actor& me, bool hops, Counts& n) {
    static const std::vector<int> cpus = kernel::allowed_cpus();
    unsigned cpu = 0;
    if (me.rseq) cpu = me.rseq->cpu_id;
    if (!me.rseq) ::getcpu(&cpu, nullptr);
    enter(f.p, call_word(me.slot, static_cast<std::uint16_t>(cpu)));
    if (n.sections % 5 == 0) (void)block(f.p, me.slot, static_cast<std::uint16_t>(cpu));
    if (n.sections % 3 == 0) ::sched_yield();
    if (n.sections % 64 == 7) std::this_thread::sleep_for(20us);
    if (hops && n.sections % 16 == 3) {
        (void)kernel::pin_thread(cpus[n.sections / 16 % cpus.size()]);
    }
    if (use_rseq && left_fast(f.p, me, static_cast<int>(cpu))) {
        n.fast++;
        return true;
    }
    bool was_blocked = false;
    if (reclaim(f.p, me, was_blocked)) {
        n.hard++;
        n.after_block += was_blocked;
        return true;
    }
    n.lost++;
    return false;
}

bool try_take(Fight& f, const Actor& me, Counts& n) {
    const Word seen = load(f.p);
    if (!seen.in_kernel() || seen.taker != 0) return false;
    const bool here = me.cpu() == seen.cpu;
    const bool got = here && n.beaten % 2 == 0 ? take_here(f.p, seen, me.slot, me)
                                               : take(f.p, seen, me.slot, me);
    if (!got) {
        n.beaten++;
        return false;
    }
    (here ? n.took_here : n.took_there)++;
    n.took_blocked += seen.marked();
    return true;
}

void fighter(Fight& f, std::uint16_t slot, int cpu, bool hops, Counts& n) {
    if (cpu >= 0) (void)kernel::pin_thread(cpu);
    kernel::RseqArea own;
    const Actor me{slot, kernel::rseq_attach(&own)};
    bool mine = slot == 1;
    while (!f.stop.load()) {
        if (mine) {
            f.section(n);
            mine = system_call(f, me, hops, n);
        } else {
            mine = try_take(f, me, n);
            if (!mine && ++n.beaten % 256 == 0) ::sched_yield();
        }
    }
    // Whoever has it now has it for good: nobody is left to take it.
    kernel::rseq_detach(&own);
}

Counts fight(Fight& f, std::chrono::milliseconds how_long) {
    const std::vector<int> cpus = kernel::allowed_cpus();
    struct Place {
        int cpu;
        bool hops;
    };
    // Two pinned where they may be apart, one that floats, one that hops while in the kernel.
    const std::array places = {Place{cpus.front(), false}, Place{cpus.back(), false},
                               Place{-1, false}, Place{-1, true}};
    hand_over(f.p, 1);
    std::array<Counts, places.size()> counts;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < places.size(); i++) {
        threads.emplace_back(fighter, std::ref(f), static_cast<std::uint16_t>(i + 1), places[i].cpu,
                             places[i].hops, std::ref(counts[i]));
    }
    std::this_thread::sleep_for(how_long);
    f.stop.store(true);
    for (std::thread& t : threads) t.join();
    Counts all;
    for (const Counts& n : counts) {
        CHECK(n.sections > 0); // nobody starved
        all.add(n);
    }
    return all;
}

} // namespace

TEST_CASE("ownership: of four threads that fight for a P never two have it") {
    for (const bool rseq : ways()) {
        CAPTURE(rseq);
        const Way way(rseq);
        auto f = std::make_unique<Fight>();
        const Counts n = fight(*f, 2s);
        char line[256];
        std::snprintf(
            line, sizeof line,
            "%s: %lu sections; left fast %lu, hard %lu (blocked %lu), lost %lu; taken here "
            "%lu, from another CPU %lu (blocked %lu)",
            rseq ? "rseq" : "CAS", n.sections, n.fast, n.hard, n.after_block, n.lost, n.took_here,
            n.took_there, n.took_blocked);
        MESSAGE(line);
        CHECK(f->torn.load() == 0);
        CHECK(f->a == n.sections);
        CHECK(f->b == n.sections);
        CHECK(n.lost <= n.took_here + n.took_there);
        // The premise: each path was really gone.
        if (rseq) CHECK(n.fast > 1000);
        CHECK(n.hard > 0);
        CHECK(n.after_block > 0);
        CHECK(n.lost > 100);
        CHECK(n.took_here > 0);
        CHECK(n.took_blocked > 0);
        if (kernel::allowed_cpus().size() > 1) CHECK(n.took_there > 0);
    }
}
