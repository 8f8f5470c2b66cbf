// SPDX-License-Identifier: Apache-2.0
//
// Ps of Ms that sleep in G code, without a probe: what the kernel tells of a thread, the moves of a
// claimed word, and an M that fights two takers for its P. tests/model/ownership.pml checks the
// protocol; this checks the code.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <thread>

#include <sys/syscall.h>
#include <unistd.h>

#include "assist/asleep.hpp"
#include "kernel/features.hpp"
#include "kernel/sleeper.hpp"

using namespace baton;
using namespace baton::assist;
using namespace std::chrono_literals;

namespace {

bool sleepers_here() {
    if (kernel::features().sleepers) return true;
    std::printf("skip: /proc does not tell who sleeps: %s\n", kernel::why_no_sleepers());
    return false;
}

std::uint32_t tid_here() { return static_cast<std::uint32_t>(::syscall(SYS_gettid)); }

/// What sleeps_in says of a thread within two seconds, if it is that once.
bool comes_to(std::uint32_t tid, long what) {
    for (const auto until = std::chrono::steady_clock::now() + 2s;
         std::chrono::steady_clock::now() < until;) {
        if (kernel::sleeps_in(tid) == what) return true;
        std::this_thread::sleep_for(1ms);
    }
    return false;
}

constexpr std::uint16_t kOwner = 1;

Actor actor(std::uint16_t slot) { return {slot, &no_rseq}; }

} // namespace

TEST_CASE("sleepers: where a thread sleeps, and that it does not") {
    if (!sleepers_here()) return;
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    std::atomic<std::uint32_t> tid{0};
    std::atomic<bool> over{false};
    std::thread t([&] {
        char c = 0;
        tid = tid_here();
        CHECK(::read(ends[0], &c, 1) == 1);
        while (!over) {
        }
    });
    while (tid == 0) std::this_thread::yield();
    CHECK(comes_to(tid, SYS_read));
    REQUIRE(::write(ends[1], "x", 1) == 1);
    CHECK(comes_to(tid, kernel::kAwake));
    for (int i = 0; i < 1000; i++) CHECK(kernel::sleeps_in(tid) == kernel::kAwake);
    over = true;
    t.join();
    CHECK(kernel::sleeps_in(tid) == kernel::kAwake); // it is gone
    ::close(ends[0]);
    ::close(ends[1]);
}

TEST_CASE("sleepers: a claimed word is its claimer's to take, and its owner's to take back") {
    p_rec p{};
    const Actor owner = actor(kOwner), one = actor(2), two = actor(3);
    bool was_marked = true;

    hand_over(p, kOwner);
    Word w = load(p);
    CHECK(!take(p, w, 9, one)); // not claimed
    REQUIRE(claim(p, w, one));
    CHECK(ref(p).load() == w.pack());
    CHECK(ref(p).load() != run_word(kOwner)); // so the owner sees it
    CHECK(!take(p, w, 9, two));
    CHECK(take(p, w, 9, one));
    CHECK(ref(p).load() == run_word(9));
    CHECK(!reclaim(p, owner, was_marked));

    hand_over(p, kOwner);
    w = load(p);
    REQUIRE(claim(p, w, one));
    CHECK(reclaim(p, owner, was_marked));
    CHECK(!was_marked);
    CHECK(ref(p).load() == run_word(kOwner));
    CHECK(!take(p, w, 9, one)); // too late
    unclaim(p, w);
    CHECK(ref(p).load() == run_word(kOwner));
    CHECK(reclaim(p, owner, was_marked)); // withdrawn before the owner looked again

    w = load(p);
    REQUIRE(claim(p, w, one));
    Word over = load(p);
    REQUIRE(claim(p, over, two));
    CHECK(!take(p, w, 9, one));
    unclaim(p, w);
    CHECK(load(p).taker == two.slot);
    enter(p, call_word(kOwner, 5)); // the owner minds no claim
    CHECK(!take(p, over, 9, two));
    unclaim(p, over);
    CHECK(load(p).state == shared::P_SYSCALL);
    CHECK(load(p).taker == 0);
}

TEST_CASE("sleepers: a P is claimed only of an M that sleeps, and in G code") {
    if (!sleepers_here()) return;
    const bool before = sees_sleepers;
    sees_sleepers = true;
    std::array<shared::m_rec, 2> m{};
    p_rec p{};
    const Records records{m.data(), &p, nullptr};
    const Actor me = actor(2);
    hand_over(p, kOwner);
    std::atomic<bool> over{false};
    std::thread t([&] {
        m[kOwner].tid = tid_here();
        std::atomic_ref(m[kOwner].state).store(shared::M_RUNNING);
        while (!over) {
        }
        ::sleep(1);
    });
    while (std::atomic_ref(m[kOwner].state).load() != shared::M_RUNNING) std::this_thread::yield();
    for (int i = 0; i < 1000; i++) {
        Word w = load(p);
        CHECK(!claim_asleep(records, p, w, me));
        CHECK(ref(p).load() == run_word(kOwner)); // withdrawn
    }
    over = true;
    CHECK(comes_to(m[kOwner].tid, SYS_clock_nanosleep));
    Word w = load(p);
    std::atomic_ref(m[kOwner].state).store(shared::M_RUNTIME);
    CHECK(!claim_asleep(records, p, w, me));
    std::atomic_ref(m[kOwner].state).store(shared::M_RUNNING);
    CHECK(claim_asleep(records, p, w, me));
    CHECK(take(p, w, me.slot, me));
    t.join();
    sees_sleepers = before;
}

namespace {

/// A P, an M that comes and goes, and what only who has the P may touch.
struct Fight {
    p_rec p{};
    std::array<shared::m_rec, 4> m{};
    Records records{m.data(), &p, nullptr};
    std::atomic<bool> stop{false};
    std::uint64_t a = 0, b = 0; // plain: always equal outside
    std::uint64_t torn = 0;

    void use_p() {
        const std::uint64_t before = a;
        torn += b != before;
        a = before + 1;
        for (int i = 0; i < 20; i++) asm volatile("" ::: "memory");
        torn += a != before + 1;
        b = before + 1;
    }
};

struct Counts {
    std::uint64_t used = 0, back = 0, lost = 0;
};

void set_state(Fight& f, shared::m_state s) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    // release: as in entry.hpp.
    std::atomic_ref(f.m[kOwner].state).store(s, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

/// As a G that makes calls of the runtime, and sleeps between some of them; and in one of them.
void run_m(Fight& f, Counts& n) {
    std::atomic_ref(f.m[kOwner].tid).store(tid_here());
    timespec nap{0, 1};
    bool was_marked = false;
    for (std::uint64_t i = 1; !f.stop.load(); i++) {
        set_state(f, shared::M_RUNNING);
        if (i % 64 == 0) ::nanosleep(&nap, nullptr);
        set_state(f, shared::M_RUNTIME);
        if (ref(f.p).load(std::memory_order_relaxed) != run_word(kOwner)) {
            if (reclaim(f.p, actor(kOwner), was_marked)) {
                n.back++;
            } else {
                n.lost++;
                std::uint64_t idle = 0;
                while (!ref(f.p).compare_exchange_weak(idle, run_word(kOwner))) idle = 0;
            }
        }
        f.use_p();
        if (i % 1024 == 32) ::nanosleep(&nap, nullptr);
        f.use_p();
        n.used += 2;
    }
    set_state(f, shared::M_RUNTIME);
}

void run_taker(Fight& f, std::uint16_t slot, Counts& n) {
    const Actor me = actor(slot);
    while (!f.stop.load()) {
        Word w = load(f.p);
        if (w.owner != kOwner || !claim_asleep(f.records, f.p, w, me)) continue;
        if (n.used % 16 == 0) std::this_thread::yield(); // a taker that hesitates
        if (!take(f.p, w, me.slot, me)) {
            n.lost++;
            continue;
        }
        f.use_p();
        n.used++;
        give_up(f.p, shared::P_IDLE);
    }
}

} // namespace

TEST_CASE("sleepers: an M and two takers never have its P at once") {
    if (!sleepers_here()) return;
    const bool before = sees_sleepers;
    sees_sleepers = true;
    auto f = std::make_unique<Fight>();
    hand_over(f->p, kOwner);
    Counts m, one, two;
    std::thread t1(run_m, std::ref(*f), std::ref(m));
    std::thread t2(run_taker, std::ref(*f), std::uint16_t{2}, std::ref(one));
    std::thread t3(run_taker, std::ref(*f), std::uint16_t{3}, std::ref(two));
    std::this_thread::sleep_for(3s);
    f->stop = true;
    t1.join();
    t2.join();
    t3.join();
    sees_sleepers = before;
    std::printf("M used it %lu times, took it back %lu, lost it %lu; taken %lu, missed %lu\n",
                m.used, m.back, m.lost, one.used + two.used, one.lost + two.lost);
    CHECK(f->torn == 0);
    CHECK(f->a == m.used + one.used + two.used);
    CHECK(f->a == f->b);
    CHECK(m.lost == one.used + two.used);
    CHECK(one.used > 10);
    CHECK(two.used > 10);
    CHECK(m.back > 0);
}
