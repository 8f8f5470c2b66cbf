// SPDX-License-Identifier: Apache-2.0
//
// Pool: a shelf for each processor there was when the pool was made, under a lock of its own, which
// nobody else wants but who finds his own shelf empty.
//
// The reference drops what a pool holds in the second collection of garbage after it was put. Here
// a shelf notes the fewest that lay on it in a period: so many were not needed, and go. That is
// looked at in put, on the thread of who uses the pool, and for pools that nobody uses with the
// runtime's forced pass (hoard.hpp).
//
// In a forked child the locks of shelves that other threads used just then are held by nobody, and
// what lies there may be half put: so who first comes to a pool there clears all its shelves, and
// leaves the objects where they are, as those of goroutines that are gone.
//
// Rejected: the reference's lock-free chain of rings with a slot for the owner alone. It saves the
// owner a locked instruction, but there whoever drops objects has stopped the world.
#include "baton/pool.hpp"

#include <algorithm>
#include <cstdint>
#include <new>

#include <sched.h>

#include "baton/run.hpp"
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/hoard.hpp"
#include "runtime/lock.hpp"

namespace baton::detail {

namespace {

constexpr std::uint32_t kRoom = 64;
constexpr std::uint32_t kLookEvery = 16; // puts; the clock costs as much as one
constexpr std::int64_t kPeriodNs = 1'000'000'000;
constexpr std::uint32_t kAtIt = 1u << 31; // in PoolCore::forks_: somebody clears the shelves

} // namespace

struct alignas(64) PoolShard {
    rt::Lock lock{rt::Rank::kLeaf};
    std::uint32_t n = 0;
    std::uint32_t low = 0; // the fewest in this period
    std::uint32_t puts = 0;
    std::int64_t period_ns = 0; // since when
    void* objects[kRoom];

    /// In a forked child.
    void forget() {
        new (&lock) rt::Lock(rt::Rank::kLeaf);
        n = low = puts = 0;
        period_ns = 0;
    }
    void* pop() {
        if (n == 0) return nullptr;
        void* object = objects[--n];
        low = std::min(low, n);
        return object;
    }
};

struct PoolHoard : rt::Hoard {
    explicit PoolHoard(PoolCore& core) : rt::Hoard{.release = drop_idle}, core_(core) {
        rt::hoard_add(this);
    }
    ~PoolHoard() { rt::hoard_remove(this); }
    PoolHoard(const PoolHoard&) = delete;
    PoolHoard& operator=(const PoolHoard&) = delete;

    /// In a forked child: those of its parent are forgotten.
    void add_again() {
        busy.store(0, std::memory_order_relaxed); // relaxed: in no list, so nobody looks
        rt::hoard_add(this);
    }

private:
    static void drop_idle(rt::Hoard* h) noexcept { static_cast<PoolHoard*>(h)->core_.drop_idle(); }

    PoolCore& core_;
};

namespace {

/// Objects on their way to be destroyed, once no lock is held.
struct Surplus {
    void* objects[kRoom + 1];
    std::uint32_t n = 0;
};

/// The oldest `many`, the lock held.
void take_oldest(PoolShard& shard, std::uint32_t many, Surplus& out) {
    std::copy_n(shard.objects, many, out.objects + out.n);
    std::copy(shard.objects + many, shard.objects + shard.n, shard.objects);
    out.n += many;
    shard.n -= many;
}

/// The lock held: what nobody needed in a period that is over.
void age(PoolShard& shard, std::int64_t now, Surplus& out) {
    if (now - shard.period_ns < kPeriodNs) return;
    if (shard.period_ns != 0) take_oldest(shard, std::min(shard.low, shard.n), out);
    shard.period_ns = now;
    shard.low = shard.n;
}

} // namespace

PoolCore::PoolCore(void (*destroy)(void*) noexcept)
    : destroy_(destroy), n_(static_cast<std::size_t>(max_procs())),
      shards_(std::make_unique<PoolShard[]>(n_)), hoard_(std::make_unique<PoolHoard>(*this)),
      forks_(rt::forks) {}

PoolCore::~PoolCore() {
    heed_fork();
    hoard_.reset();
    clear();
}

inline void PoolCore::heed_fork() const noexcept {
    // acquire: pairs with the release in start_afresh.
    const std::uint32_t seen = forks_.load(std::memory_order_acquire);
    if (seen != rt::forks) [[unlikely]]
        start_afresh(seen);
}

// The first to come does it; others of this process wait for that.
[[gnu::noinline, gnu::cold]] void PoolCore::start_afresh(std::uint32_t seen) const noexcept {
    const std::uint32_t at_it = rt::forks | kAtIt;
    while (seen != rt::forks) {
        // acquire: as in heed_fork, where it fails.
        if (seen != at_it &&
            forks_.compare_exchange_strong(seen, at_it, std::memory_order_acquire)) {
            for (std::size_t i = 0; i < n_; i++) shards_[i].forget();
            hoard_->add_again();
            forks_.store(rt::forks, std::memory_order_release); // release: pairs with heed_fork
            return;
        }
        ::sched_yield();
        seen = forks_.load(std::memory_order_acquire); // acquire: as in heed_fork
    }
}

// In an Entry. Any shard will do; that of the processor is next to nobody else's.
PoolShard& PoolCore::own_shard() const noexcept {
    const rt::P* p = rt::current_p();
    const auto place = p ? p->slot : static_cast<std::uint32_t>(std::max(sched_getcpu(), 0));
    return shards_[place % n_];
}

void* PoolCore::get() noexcept {
    heed_fork();
    rt::Entry entry;
    PoolShard* own = &own_shard();
    {
        rt::LockGuard guard(own->lock);
        if (void* object = own->pop()) return object;
    }
    const auto first = static_cast<std::size_t>(own - shards_.get());
    for (std::size_t i = 1; i < n_; i++) {
        PoolShard& other = shards_[(first + i) % n_];
        rt::LockGuard guard(other.lock);
        if (void* object = other.pop()) return object;
    }
    return nullptr;
}

void PoolCore::put(void* object) noexcept {
    heed_fork();
    Surplus surplus;
    {
        rt::Entry entry;
        PoolShard& shard = own_shard();
        rt::LockGuard guard(shard.lock);
        if (shard.n == kRoom) {
            surplus.objects[surplus.n++] = object;
        } else {
            shard.objects[shard.n++] = object;
        }
        if (++shard.puts % kLookEvery == 0) age(shard, kernel::nanotime(), surplus);
    }
    for (std::uint32_t i = 0; i < surplus.n; i++) destroy_(surplus.objects[i]);
}

void PoolCore::drop_idle() noexcept {
    const std::int64_t now = kernel::nanotime();
    for (std::size_t i = 0; i < n_; i++) {
        Surplus surplus;
        {
            rt::Entry entry;
            rt::LockGuard guard(shards_[i].lock);
            age(shards_[i], now, surplus);
        }
        for (std::uint32_t k = 0; k < surplus.n; k++) destroy_(surplus.objects[k]);
    }
}

void PoolCore::clear() noexcept {
    heed_fork();
    for (std::size_t i = 0; i < n_; i++) {
        Surplus all;
        {
            rt::Entry entry;
            rt::LockGuard guard(shards_[i].lock);
            take_oldest(shards_[i], shards_[i].n, all);
            shards_[i].low = 0;
        }
        for (std::uint32_t k = 0; k < all.n; k++) destroy_(all.objects[k]);
    }
}

std::size_t PoolCore::size() const noexcept {
    heed_fork();
    rt::Entry entry;
    std::size_t sum = 0;
    for (std::size_t i = 0; i < n_; i++) {
        rt::LockGuard guard(shards_[i].lock);
        sum += shards_[i].n;
    }
    return sum;
}

} // namespace baton::detail
