// SPDX-License-Identifier: Apache-2.0
#include "runtime/user_timer.hpp"

#include <new>

#include "kernel/clock.hpp"
#include "kernel/futex.hpp"
#include "runtime/persistentalloc.hpp"

namespace baton::rt {

namespace {

constexpr auto kSeqCst = std::memory_order_seq_cst;
constexpr std::size_t kTimersPerBlock = 64;
// How long after a firing that could not be done the next is tried.
constexpr std::int64_t kRetryNs = 10'000'000;

struct Block {
    Block* next = nullptr;
    UserTimer timers[kTimersPerBlock];
};

struct Pool {
    Lock lock{Rank::kLeaf};
    UserTimer* free = nullptr;
    Block* blocks = nullptr; // all of them; where leak checkers see them
};
constinit Pool pool;

UserTimer* from_pool() {
    LockGuard guard(pool.lock);
    UserTimer* t = pool.free;
    if (t) pool.free = t->link;
    return t;
}

UserTimer* from_new_block() {
    auto* block = persistent_new<Block>();
    if (!block) return nullptr;
    LockGuard guard(pool.lock);
    block->next = pool.blocks;
    pool.blocks = block;
    for (std::size_t i = 1; i < kTimersPerBlock; i++) {
        block->timers[i].link = pool.free;
        pool.free = &block->timers[i];
    }
    return &block->timers[0];
}

/// The next time of a periodic timer that was due at `when`: those missed are left out.
std::int64_t next_tick(std::int64_t when, std::int64_t late, std::int64_t period) {
    const std::int64_t last = when + late / period * period;
    return period > INT64_MAX - last ? INT64_MAX : last + period;
}

std::atomic<std::uint32_t> forking{0};
std::atomic<std::uint32_t> firings{0};

/// A firing under way; it waits while the process forks.
class Firing {
public:
    Firing() {
        // seq_cst, all: with user_timers_hold. One of the two sees the other.
        while (firings.fetch_add(1, kSeqCst), forking.load(kSeqCst) != 0) {
            firings.fetch_sub(1, kSeqCst);
            (void)kernel::futex_wait(&forking, 1, kernel::kForever);
        }
    }
    ~Firing() { firings.fetch_sub(1, kSeqCst); }
    Firing(const Firing&) = delete;
    Firing& operator=(const Firing&) = delete;
};

void on_due(void* timer, std::uintptr_t seq, std::int64_t late_ns) {
    const Firing firing;
    auto* t = static_cast<UserTimer*>(timer);
    LockGuard guard(t->lock);
    if (t->seq != seq) return;
    const std::int64_t when = t->timer.when;
    t->armed = t->period_ns != 0;
    if (t->armed) timer_reset(&t->timer, next_tick(when, late_ns, t->period_ns), on_due, t, seq);
    if (t->fire(t->owner, when + late_ns) || t->armed) return;
    t->armed = true;
    timer_reset(&t->timer, when + late_ns + kRetryNs, on_due, t, seq);
}

} // namespace

UserTimer* user_timer_alloc(UserTimer::Fire fire, void* owner) noexcept {
    UserTimer* t = from_pool();
    if (!t) t = from_new_block();
    if (!t) return nullptr;
    // A stale firing looks at its number.
    LockGuard guard(t->lock);
    t->fire = fire;
    t->owner = owner;
    return t;
}

void user_timer_free(UserTimer* t) noexcept {
    {
        LockGuard guard(t->lock);
        user_timer_disarm(t);
        t->owner = nullptr;
    }
    LockGuard guard(pool.lock);
    t->link = pool.free;
    pool.free = t;
}

bool user_timer_arm(UserTimer* t, std::int64_t when_ns, std::int64_t period_ns) noexcept {
    const bool was = t->armed;
    t->armed = true;
    t->period_ns = period_ns;
    timer_reset(&t->timer, when_ns, on_due, t, ++t->seq);
    return was;
}

bool user_timer_disarm(UserTimer* t) noexcept {
    const bool was = t->armed;
    if (was) timer_stop(&t->timer);
    t->armed = false;
    t->seq++;
    return was;
}

void user_timers_hold() {
    constexpr std::int64_t kLookNs = 20'000;
    forking.store(1, kSeqCst); // seq_cst, both: see Firing
    while (const std::uint32_t n = firings.load(kSeqCst))
        (void)kernel::futex_wait(&firings, n, kernel::nanotime() + kLookNs);
}

void user_timers_release() {
    forking.store(0, kSeqCst);
    kernel::futex_wake(&forking, INT32_MAX);
}

void user_timers_forget() {
    forking.store(0, kSeqCst);
    firings.store(0, kSeqCst);
    new (&pool.lock) Lock(Rank::kLeaf);
    pool.free = nullptr;
    for (Block* b = pool.blocks; b; b = b->next) {
        for (UserTimer& t : b->timers) {
            // Its owner may go on to use it.
            new (&t.lock) Lock(Rank::kUserTimer);
            new (&t.timer) Timer;
            t.armed = false;
            t.seq++;
        }
    }
}

} // namespace baton::rt
