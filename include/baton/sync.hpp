// SPDX-License-Identifier: Apache-2.0
//
// WaitGroup and Mutex, as in Go's sync package. Both park the goroutine, never its thread. On a
// plain thread, which has none, the thread sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "baton/go.hpp"

namespace [[gnu::visibility("default")]] baton {

/// Waits for a number of goroutines to finish. Must outlive every call on it.
class WaitGroup {
public:
    WaitGroup() = default;
    WaitGroup(const WaitGroup&) = delete;
    WaitGroup& operator=(const WaitGroup&) = delete;

    /// Adds `n`, which may be negative, to the counter. Ends the process if it falls below zero.
    /// Any thread.
    void add(int n = 1) noexcept;
    /// Takes one off the counter; at zero every waiter is made runnable. Any thread.
    void done() noexcept { add(-1); }
    /// Parks until the counter is zero. Any thread; inside blocking() only if it is zero already.
    /// What was done before each done() is seen after it.
    void wait();

    /// Starts `f(args...)` as a goroutine counted by this group.
    template <class F, class... Args>
    void go(F&& f, Args&&... args) {
        add(1);
        try {
            baton::go(
                [this](auto&& g, auto&&... as) {
                    // Callable and arguments end before the wait does; an exception ends the
                    // process instead.
                    [](auto f_own, auto... args_own) {
                        std::invoke(std::move(f_own), std::move(args_own)...);
                    }(std::forward<decltype(g)>(g), std::forward<decltype(as)>(as)...);
                    done();
                },
                std::forward<F>(f), std::forward<Args>(args)...);
        } catch (...) {
            done();
            throw;
        }
    }

private:
    // High half: the counter. Low half: how many wait.
    std::atomic<std::uint64_t> state_{0};
    std::atomic<std::uint32_t> sema_{0};
};

/// A mutual exclusion lock; satisfies Lockable, so std::unique_lock and std::scoped_lock take it.
/// Any thread or goroutine may unlock what another locked. A lock that has to wait ends the process
/// inside blocking(). Fair in the long run: who has waited for 1 ms is next.
class Mutex {
public:
    Mutex() = default;
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;

    /// Parks until the lock is had.
    void lock() {
        std::uint32_t free = 0;
        // acquire: pairs with the release of unlock, so that what the last holder wrote is seen.
        // relaxed on failure: lock_slow looks again.
        if (!state_.compare_exchange_strong(free, kLocked, std::memory_order_acquire,
                                            std::memory_order_relaxed))
            lock_slow();
    }
    [[nodiscard]] bool try_lock() noexcept;
    /// Ends the process with a message if the lock is not held.
    void unlock() {
        // release: pairs with the acquire of lock.
        const std::uint32_t left = state_.fetch_sub(kLocked, std::memory_order_release) - kLocked;
        if (left != 0) unlock_slow(left);
    }

private:
    static constexpr std::uint32_t kLocked = 1;
    void lock_slow();
    void unlock_slow(std::uint32_t left);

    std::atomic<std::uint32_t> state_{0};
    std::atomic<std::uint32_t> sema_{0};
};

} // namespace baton
