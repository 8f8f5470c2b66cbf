// SPDX-License-Identifier: Apache-2.0
//
// RWMutex: a lock held by one writer or by any number of readers, as Go's sync.RWMutex.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Satisfies SharedTimedLockable: std::unique_lock, std::scoped_lock and std::shared_lock take it.
/// Readers come in together, until a writer waits: those that come later queue behind it. When it
/// unlocks they are let in, or, if they are more than there are processors, woken to compete with
/// the writers for the lock; if one of them loses, all that wait when that writer unlocks are let
/// in before the next. So neither kind starves the other, and a goroutine must not lock for reading
/// again what it has locked for reading.
///
/// Any thread or goroutine may unlock what another locked, and may destroy the lock once it is
/// unlocked and nobody waits. What has to wait parks the goroutine, and ends the process inside
/// blocking().
class RWMutex {
public:
    class RLocker;

    RWMutex() = default;
    ~RWMutex() {
        if (hint_.load(std::memory_order_relaxed) != 0) forget(); // relaxed: it is ours alone
    }
    RWMutex(const RWMutex&) = delete;
    RWMutex& operator=(const RWMutex&) = delete;

    /// Parks until the lock is had for writing.
    void lock() {
        if (!lock_at_once()) (void)lock_slow(nullptr);
    }
    /// The same, as long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if the lock is not had then. Readers that queued behind it go on.
    void lock(const Until& until) {
        if (const auto end = lock_within(until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::RWMutex::lock");
    }
    /// The same; false with the reason in `ec` if the lock is not had.
    [[nodiscard]] bool lock(const Until& until, std::error_code& ec) {
        return detail::waited(lock_within(until), ec);
    }
    /// Never parks.
    [[nodiscard]] bool try_lock() noexcept;
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& d) {
        return lock_within(d) == detail::WaitEnd::kDone;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& t) {
        return lock_within(t) == detail::WaitEnd::kDone;
    }
    /// Ends the process with a message if the lock is not held for writing. Never waits.
    void unlock() {
        std::uint32_t held = kLocked;
        reads_.store(0, std::memory_order_relaxed); // relaxed: a hint
        // release: pairs with the acquire of who locks next. relaxed on failure: unlock_slow looks
        // again.
        if (!state_.compare_exchange_strong(held, 0, std::memory_order_release,
                                            std::memory_order_relaxed))
            unlock_slow();
    }

    /// Parks until the lock is had for reading.
    void lock_shared() {
        if (!lock_shared_at_once()) (void)lock_shared_slow(nullptr);
    }
    /// As lock with a limit.
    void lock_shared(const Until& until) {
        if (const auto end = lock_shared_within(until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::RWMutex::lock_shared");
    }
    [[nodiscard]] bool lock_shared(const Until& until, std::error_code& ec) {
        return detail::waited(lock_shared_within(until), ec);
    }
    /// Never parks.
    [[nodiscard]] bool try_lock_shared() { return lock_shared_at_once(); }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& d) {
        return lock_shared_within(d) == detail::WaitEnd::kDone;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& t) {
        return lock_shared_within(t) == detail::WaitEnd::kDone;
    }
    /// If nobody reads the process ends with a message, at the latest when somebody next locks for
    /// writing. Never waits.
    void unlock_shared() {
        // relaxed: a hint, but for kSpreadHint, which nobody changes while we read.
        const std::uint32_t hint = hint_.load(std::memory_order_relaxed);
        if ((hint & kBiasHint) && count_here(-1)) return;
        if ((hint & kSpreadHint) && leave_slot()) return;
        leave_word();
    }

    /// The reader's side as a lock of its own, for what takes a BasicLockable.
    [[nodiscard]] RLocker rlocker() noexcept;

private:
    static constexpr std::uint32_t kLocked = 1;
    static constexpr std::uint32_t kDraining = 128;
    static constexpr std::uint32_t kReader = 256;
    static constexpr std::uint32_t kBiasHint = 1;
    static constexpr std::uint32_t kSpreadHint = 2;
    static constexpr std::uint32_t kManyReads = 4096;

    bool lock_at_once() noexcept {
        std::uint32_t free = 0;
        // acquire: pairs with the releases of unlock and unlock_shared. relaxed on failure:
        // lock_slow looks again.
        return state_.compare_exchange_strong(free, kLocked, std::memory_order_acquire,
                                              std::memory_order_relaxed);
    }
    bool lock_shared_at_once() {
        // relaxed: a hint, in a word that readers do not write. The other word says.
        const std::uint32_t hint = hint_.load(std::memory_order_relaxed);
        if ((hint & kBiasHint) && count_here(1)) return true;
        return hint & kSpreadHint ? enter_slot() : enter_word();
    }
    bool enter_word() {
        // An addition, as a CAS would fail whenever another reader comes or goes. acquire: pairs
        // with the release of unlock.
        const std::uint32_t state = state_.fetch_add(kReader, std::memory_order_acquire);
        if (!(state & kLocked)) {
            if (state >= kReader) meet();
            // relaxed, both: readers that count at once miss some; it is a hint.
            const std::uint32_t n = reads_.load(std::memory_order_relaxed) + 1;
            reads_.store(n, std::memory_order_relaxed);
            if (n == kManyReads) bias();
            return true;
        }
        leave_word(); // where it came: a writer may have begun to wait for us
        return false;
    }
    void leave_word() {
        // release: pairs with the acquire of the writer that waits for us.
        const std::uint32_t state = state_.fetch_sub(kReader, std::memory_order_release);
        if (state < kReader || (state & kDraining)) unlock_shared_slow(state);
    }
    detail::WaitEnd lock_within(const Until& until) {
        return lock_at_once() ? detail::WaitEnd::kDone : lock_slow(&until);
    }
    detail::WaitEnd lock_shared_within(const Until& until) {
        return lock_shared_at_once() ? detail::WaitEnd::kDone : lock_shared_slow(&until);
    }
    detail::WaitEnd lock_slow(const Until* until);
    detail::WaitEnd lock_shared_slow(const Until* until);
    bool wait_shared(const Until* until, bool again, detail::WaitEnd& end);
    detail::WaitEnd drain(const Until* until);
    void unlock_slow();
    void unlock_to_readers();
    void unlock_shared_slow(std::uint32_t before);
    bool count_here(int by) noexcept; // by a bias
    bool enter_slot();                // spread
    bool leave_slot();
    void meet() noexcept; // another reader
    bool bias() noexcept;
    void end_bias() noexcept;
    void spread() noexcept;
    void weigh() noexcept;
    void forget() noexcept;
    std::int32_t readers() const noexcept;
    bool say_parked() noexcept;
    void say_unparked() noexcept;
    void wake_drainer();

    std::atomic<std::uint32_t> state_{0}; // rwmutex.cpp
    std::atomic<std::uint32_t> hint_{0};
    std::atomic<std::uint32_t> reads_{0}; // since the last writer, or bias
    std::atomic<std::uint32_t> spread_{0};
};

/// A handle; the RWMutex must outlive it.
class RWMutex::RLocker {
public:
    explicit RLocker(RWMutex& mutex) noexcept : mutex_(&mutex) {}
    void lock() { mutex_->lock_shared(); }
    [[nodiscard]] bool try_lock() { return mutex_->try_lock_shared(); }
    void unlock() { mutex_->unlock_shared(); }

private:
    RWMutex* mutex_;
};

inline RWMutex::RLocker RWMutex::rlocker() noexcept { return RLocker(*this); }

} // namespace baton
#pragma GCC visibility pop
