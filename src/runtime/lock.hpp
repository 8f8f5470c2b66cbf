// SPDX-License-Identifier: Apache-2.0
//
// Lock: the runtime's own mutex, between threads. Spins briefly, then sleeps on a futex.
//
// Threads: any. A G must not park while its M holds one, except through goparkunlock.
// Locks: each has a rank, and a thread takes them in rising rank only; builds with BATON_LOCKRANK
// (the sanitizer builds) check that and abort with both ranks.
// Ordering: lock is acquire, unlock is release; what one holder wrote the next one sees.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernel/build.hpp"

namespace baton::rt {

/// The lock order, as data. A thread holding one may take only those further down.
enum class Rank : std::uint8_t {
    kWorld, // stop-the-world: one at a time
    kChan,  // a channel; two of the same rank in address order (select)
    kSema,  // a bucket of the semaphore table
    kPollDesc,
    kTimers, // a P's heap
    kSched,  // global run queue, idle Ps
    kAllg,   // list of all Gs
    kStack,  // stack slabs
    kLeaf,   // takes nothing else
};

class Lock {
public:
    constexpr explicit Lock(Rank rank) : rank_(rank) {}
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;

    void lock() {
        check_rank();
        std::uint32_t free = 0;
        // acquire: pairs with the release in unlock. relaxed on failure: lock_slow looks again.
        if (!word_.compare_exchange_strong(free, 1, std::memory_order_acquire,
                                           std::memory_order_relaxed))
            lock_slow();
        note_held();
    }
    bool try_lock() {
        std::uint32_t free = 0;
        // acquire: as in lock. relaxed on failure: nothing was had.
        if (!word_.compare_exchange_strong(free, 1, std::memory_order_acquire,
                                           std::memory_order_relaxed))
            return false;
        note_held();
        return true;
    }
    void unlock() {
        note_released();
        // release: pairs with the acquire in lock.
        if (word_.exchange(0, std::memory_order_release) == 2) wake();
    }

private:
    void lock_slow() noexcept;
    void wake() noexcept;
#ifdef BATON_LOCKRANK
    void check_rank() const noexcept;
    void note_held() const noexcept;
    void note_released() const noexcept;
#else
    void check_rank() const noexcept {}
    void note_held() const noexcept {}
    void note_released() const noexcept {}
#endif

    std::atomic<std::uint32_t> word_{0}; // 0 free, 1 held, 2 held and somebody sleeps
    [[maybe_unused]] Rank rank_;         // looked at only where the order is checked
};

/// Holds a Lock for a scope.
class LockGuard {
public:
    explicit LockGuard(Lock& l) : lock_(l) { lock_.lock(); }
    ~LockGuard() { lock_.unlock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;

private:
    Lock& lock_;
};

} // namespace baton::rt
