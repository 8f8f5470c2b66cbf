// SPDX-License-Identifier: Apache-2.0
//
// Mutex: mutual exclusion between goroutines, as Go's sync.Mutex.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// A mutual exclusion lock; satisfies TimedLockable, so std::unique_lock and std::scoped_lock take
/// it. Any thread or goroutine may unlock what another locked, and may destroy the mutex once it is
/// unlocked and nobody waits. A lock that has to wait parks the goroutine, never its thread, and
/// ends the process inside blocking(). Fair in the long run: who has waited for 1 ms is next.
class Mutex {
public:
    Mutex() = default;
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;

    /// Parks until the lock is had.
    void lock() {
        if (!lock_at_once()) (void)lock_slow(nullptr);
    }
    /// The same, as long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if the lock is not had then.
    void lock(const Until& until) {
        if (const auto end = lock_within(until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::Mutex::lock");
    }
    /// The same; false with the reason in `ec` if the lock is not had.
    [[nodiscard]] bool lock(const Until& until, std::error_code& ec) {
        return detail::waited(lock_within(until), ec);
    }
    /// Never parks.
    [[nodiscard]] bool try_lock() noexcept {
        if (look() == kBiased) return lock_biased();
        std::uint32_t state = state_.load(std::memory_order_relaxed); // relaxed: a look
        do {
            if (state & kTaken) return false;
            // acquire, relaxed: as in lock_by_cas.
        } while (!state_.compare_exchange_weak(state, state | kLocked, std::memory_order_acquire,
                                               std::memory_order_relaxed));
        note_held(kLocked);
        return true;
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& d) {
        return lock_within(d) == detail::WaitEnd::kDone;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& t) {
        return lock_within(t) == detail::WaitEnd::kDone;
    }
    /// Ends the process with a message if the lock is not held. Never waits for the lock's next
    /// holder; may let a goroutine run that has waited for long.
    void unlock();

private:
    static constexpr std::uint8_t kLocked = 1;
    static constexpr std::uint8_t kStarving = 8;
    static constexpr std::uint8_t kBiased = 0x80; // to one CPU, which locks it in another way
    static constexpr std::uint8_t kTaken = kLocked | kStarving | kBiased;
    static constexpr int kLockByte = 0;   // the above and all that waiters set
    static constexpr int kSharedByte = 1; // somebody has waited for it
    static constexpr int kHeldByte = 2;   // what its holder made of the first, or 0

    // relaxed: a look.
    std::uint8_t look() noexcept {
        return std::atomic_ref(byte(kLockByte)).load(std::memory_order_relaxed);
    }
    bool lock_at_once() noexcept {
        const std::uint8_t now = look();
        return now == kBiased ? lock_biased() : now == 0 && lock_by_cas();
    }
    bool lock_by_cas() noexcept {
        std::uint8_t free = 0;
        // acquire: pairs with the release of unlock, so that what the last holder wrote is seen.
        // relaxed on failure: lock_slow looks again.
        if (!std::atomic_ref(byte(kLockByte))
                 .compare_exchange_strong(free, kLocked, std::memory_order_acquire,
                                          std::memory_order_relaxed))
            return false;
        note_held(kLocked);
        return true;
    }
    bool lock_biased() noexcept;
    detail::WaitEnd lock_within(const Until& until) {
        return lock_at_once() ? detail::WaitEnd::kDone : lock_slow(&until);
    }
    detail::WaitEnd lock_slow(const Until* until);
    void end_bias() noexcept;
    void share() noexcept;
    void unlock_unbiased();
    void unlock_shared();
    // relaxed: only who holds the lock reads and writes it.
    void note_held(std::uint8_t how) noexcept {
        std::atomic_ref(byte(kHeldByte)).store(how, std::memory_order_relaxed);
    }
    /// One of the word's bytes, which are also used alone. The standard has no such thing; x86-64
    /// does.
    std::uint8_t& byte(int i) noexcept { return reinterpret_cast<std::uint8_t*>(&state_)[i]; }

    std::atomic<std::uint32_t> state_{0}; // mutex.cpp
    std::atomic<std::uint16_t> cpu_{0};   // that unlocked it last, or that it is biased to
    std::uint16_t in_a_row_ = 0;          // so often has that one, biases apart
};

} // namespace baton
#pragma GCC visibility pop
