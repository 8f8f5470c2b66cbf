// SPDX-License-Identifier: Apache-2.0
//
// Waiting for a condition that a lock guards: ConditionVariable with the names of the standard's
// condition_variable_any, and Cond, bound to its lock, as Go's sync.Cond.
#pragma once

#include <atomic>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <stop_token>
#include <system_error>
#include <utility>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Use this with baton's locks: std::condition_variable_any takes them too, but puts the thread to
/// sleep, not the goroutine. `Lock` is any BasicLockable, held by the caller: a
/// std::unique_lock, a Mutex itself, a std::shared_lock; its unlock and lock must not throw.
///
/// Each wait unlocks, parks until it is notified, and locks again before it returns, also when it
/// is given up. Who waits longest is notified first, and nobody wakes unless it is. What has to
/// wait ends the process inside blocking(). May be destroyed when all that wait have been notified,
/// before they have returned.
class ConditionVariable {
public:
    ConditionVariable() = default;
    ConditionVariable(const ConditionVariable&) = delete;
    ConditionVariable& operator=(const ConditionVariable&) = delete;

    /// Wakes one, or all, of those that wait. Any thread, with the lock or without; never parks.
    void notify_one() noexcept { notify(false); }
    void notify_all() noexcept { notify(true); }

    template <class Lock>
    void wait(Lock& lock) {
        (void)wait_within(lock, nullptr);
    }
    /// As long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if it was not notified then.
    template <class Lock>
    void wait(Lock& lock, const Until& until) {
        if (const auto end = wait_within(lock, &until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::ConditionVariable::wait");
    }
    /// The same; false with the reason in `ec`.
    template <class Lock>
    [[nodiscard]] bool wait(Lock& lock, const Until& until, std::error_code& ec) {
        return detail::waited(wait_within(lock, &until), ec);
    }
    template <class Lock, std::predicate Predicate>
    void wait(Lock& lock, Predicate holds) {
        while (!holds()) wait(lock);
    }
    /// Until the predicate holds or `until` is over; returns whether it holds. With a
    /// std::stop_token this is the standard's overload.
    template <class Lock, std::predicate Predicate>
    bool wait(Lock& lock, const Until& until, Predicate holds) {
        while (!holds()) {
            if (wait_within(lock, &until) != detail::WaitEnd::kDone) return holds();
        }
        return true;
    }

    template <class Lock, class Rep, class Period>
    std::cv_status wait_for(Lock& lock, const std::chrono::duration<Rep, Period>& d) {
        return status(lock, d);
    }
    template <class Lock, class Rep, class Period, class Predicate>
    bool wait_for(Lock& lock, const std::chrono::duration<Rep, Period>& d, Predicate holds) {
        return wait(lock, Until(d), std::move(holds));
    }
    template <class Lock, class Rep, class Period, class Predicate>
    bool wait_for(Lock& lock, std::stop_token token, const std::chrono::duration<Rep, Period>& d,
                  Predicate holds) {
        return wait(lock, Until(d, std::move(token)), std::move(holds));
    }
    template <class Lock, class Clock, class Duration>
    std::cv_status wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& t) {
        return status(lock, t);
    }
    template <class Lock, class Clock, class Duration, class Predicate>
    bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& t,
                    Predicate holds) {
        return wait(lock, Until(t), std::move(holds));
    }
    template <class Lock, class Clock, class Duration, class Predicate>
    bool wait_until(Lock& lock, std::stop_token token,
                    const std::chrono::time_point<Clock, Duration>& t, Predicate holds) {
        return wait(lock, Until(t, std::move(token)), std::move(holds));
    }

private:
    using OnLock = void (*)(void* lock) noexcept;

    template <class Lock>
    detail::WaitEnd wait_within(Lock& lock, const Until* until) {
        return wait_erased(
            &lock, [](void* l) noexcept { static_cast<Lock*>(l)->unlock(); },
            [](void* l) noexcept { static_cast<Lock*>(l)->lock(); }, until);
    }
    template <class Lock>
    std::cv_status status(Lock& lock, const Until& until) {
        return wait_within(lock, &until) == detail::WaitEnd::kDone ? std::cv_status::no_timeout
                                                                   : std::cv_status::timeout;
    }
    void notify(bool all) noexcept {
        // relaxed: a waiter counts itself before it unlocks. Who has locked since, to change what
        // it waits for, sees it.
        if (waiters_.load(std::memory_order_relaxed) != 0) notify_slow(all);
    }
    detail::WaitEnd wait_erased(void* lock, OnLock unlock, OnLock relock, const Until* until);
    void notify_slow(bool all) noexcept;

    std::atomic<std::uint32_t> waiters_{0}; // that have not been notified
};

/// A ConditionVariable with its lock, under Go's names.
template <class Lock>
class Cond {
public:
    /// The lock must outlive it.
    explicit Cond(Lock& lock) noexcept : lock_(lock) {}

    /// The lock is held. Unlocks, parks until woken, and locks again. Check the condition in a
    /// loop: others may run between the wake and the lock.
    void wait() { condition_.wait(lock_); }
    /// As ConditionVariable::wait with a limit.
    void wait(const Until& until) { condition_.wait(lock_, until); }
    [[nodiscard]] bool wait(const Until& until, std::error_code& ec) {
        return condition_.wait(lock_, until, ec);
    }
    /// Wakes who has waited longest, or all.
    void signal() noexcept { condition_.notify_one(); }
    void broadcast() noexcept { condition_.notify_all(); }
    [[nodiscard]] Lock& locker() const noexcept { return lock_; }

private:
    Lock& lock_;
    ConditionVariable condition_;
};

} // namespace baton
#pragma GCC visibility pop
