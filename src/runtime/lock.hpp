// SPDX-License-Identifier: Apache-2.0
//
// Lock: the runtime's own mutex, between threads. Spins briefly, then sleeps on a futex.
//
// A locked instruction costs as much as all else that most of these sections do, so unlock does
// without: a plain store, then a look for sleepers. The CPU may do the look first. It is the one
// who goes to sleep that makes up for it, with a membarrier: a full barrier on every CPU.
//
//     unlock                      lock_slow
//     ------                      ---------
//     (A) held = 0                (C) sleeping = 1
//     (B) sleeping? wake one          membarrier
//                                 (D) held and sleeping? then sleep
//
// The bad schedule is (B) before (C) and (D) before (A) is seen: nobody wakes the sleeper. But if
// (B) came before the barrier on its CPU, then so did (A), which the barrier makes visible before
// (D). Any later holder got the lock by a locked instruction after (C), so that its (B) sees it.
// Without membarrier the sleeper looks again every millisecond.
//
// Who wakes somebody takes `sleeping` back. If others sleep on, the one that was woken sets it
// again when it has the lock, and so wakes the next when it unlocks.
//
// A lock may be gone as soon as it is free: its channel is destroyed by who received the value that
// was put into it under the lock. unlock_last() is for those. It looks first and stores last, in a
// restartable sequence, which the membarrier makes start again if it had not come to the store. On
// threads without such sequences it swaps the word of which both are bytes.
//
// Rejected: the word swapped in every unlock (5 ns of 16 for a send to a buffer); sleepers counted
// in the word that unlock looks at (every unlock is a futex call until the sleeper is awake again).
//
// Threads: any. A G must not park while its M holds one, except through goparkunlock.
// Locks: each has a rank, and a thread takes them in rising rank only; builds with BATON_LOCKRANK
// (the sanitizer builds) check that and abort with both ranks.
// Ordering: lock is acquire, unlock is release; what one holder wrote the next one sees.
#pragma once

#include <atomic>
#include <cstdint>

#include "arch/x86_64/rseq_cs.hpp"
#include "kernel/build.hpp"

namespace baton::rt {

/// The lock order, as data. A thread holding one may take only those further down.
enum class Rank : std::uint8_t {
    kWorld,     // stop-the-world: one at a time
    kUserTimer, // one of a Timer, a Ticker or the like, while it fires
    kChan,      // a channel; two of the same rank in address order (select)
    kSema,      // a bucket of the semaphore table
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
        if (!try_to_hold()) lock_slow();
        note_held();
    }
    bool try_lock() {
        if (!try_to_hold()) return false;
        note_held();
        return true;
    }
    void unlock() {
        note_released();
        // release: pairs with the acquire in lock.
        held().store(0, std::memory_order_release); // (A)
        std::atomic_signal_fence(std::memory_order_seq_cst);
        // relaxed: see above.
        if (sleeping().load(std::memory_order_relaxed) != 0) [[unlikely]] // (B)
            wake();
    }
    /// At this moment; what its last holder wrote is seen then.
    bool is_free() noexcept {
        // acquire: pairs with the release in unlock.
        return held().load(std::memory_order_acquire) == 0;
    }
    /// As unlock; touches nothing of the lock once it is free, but for waking an address.
    void unlock_last() noexcept;
    /// The same, by an M, whose rseq area is `rs`.
    void unlock_last(kernel::RseqArea* rs) noexcept {
        note_released();
        if (!arch::rseq_store_unless(rs, &word_.bytes.held, 0, &word_.bytes.sleeping)) [[unlikely]]
            swap_out();
    }

private:
    // One word, of which each byte is also used alone. The standard has no such thing; x86-64 does.
    struct alignas(4) Word {
        std::uint8_t held;
        std::uint8_t sleeping;
        std::uint16_t unused;
    };
    union {
        Word bytes;
        std::uint32_t all;
    } word_{.all = 0};
    static constexpr std::uint32_t kHeld = 1;          // all, with nobody asleep
    static constexpr std::uint32_t kHeldSlept = 0x101; // with somebody

    std::atomic_ref<std::uint8_t> held() { return std::atomic_ref(word_.bytes.held); }
    std::atomic_ref<std::uint8_t> sleeping() { return std::atomic_ref(word_.bytes.sleeping); }
    bool try_to_hold() noexcept {
        std::uint8_t free = 0;
        // acquire: pairs with the release in unlock. relaxed on failure: nothing was had.
        return held().compare_exchange_strong(free, 1, std::memory_order_acquire,
                                              std::memory_order_relaxed);
    }
    bool spin_for_it() noexcept;
    void swap_out() noexcept;
    void wake_address() noexcept;
    const std::atomic<std::uint32_t>* futex() const noexcept;
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

    std::atomic<std::uint16_t> nsleep_{0}; // in lock_slow, past its spinning
    [[maybe_unused]] Rank rank_;           // looked at only where the order is checked
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
