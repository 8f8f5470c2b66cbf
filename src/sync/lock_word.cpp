// SPDX-License-Identifier: Apache-2.0
#include "sync/lock_word.hpp"

#include "kernel/clock.hpp"
#include "runtime/sema.hpp"

namespace baton::detail {

namespace {

constexpr std::int64_t kStarvationNs = 1'000'000;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kRelaxed = std::memory_order_relaxed;

// A waiter's note.
constexpr std::uint64_t kIsStarving = 1;
// A waiter's ticket.
constexpr std::uint64_t kHandedOver = 1;

/// What the word says of the queue.
std::uint32_t queue_bits(const rt::SemaQueue& queue) {
    if (queue.empty()) return 0;
    return queue.first()->note == kIsStarving ? kWaiters | kStarving : kWaiters;
}

/// Somebody who wants the lock.
class Contender {
public:
    Contender(LockWord& word, rt::WaitReason reason) : word_(word), reason_(reason) {}

    /// Takes the lock if it is free.
    bool take();
    /// Spins a while if that may help; then the word is worth another look.
    bool spin();
    /// Waits. True: for nothing more, `end` says whether it has the lock.
    bool wait(const Until* until, WaitEnd& end);

private:
    bool announce();

    LockWord& word_;
    rt::WaitReason reason_;
    std::int64_t since_ns_ = 0; // when it first queued
    bool starving_ = false;
    bool awake_ = false; // kWoken is set on its behalf
    int tries_ = 0;
};

bool Contender::take() {
    std::uint32_t state = word_.load(kRelaxed); // relaxed: see the head
    while (!(state & kLocked)) {
        const std::uint32_t wanted = (state | kLocked) & ~(awake_ ? kWoken : 0);
        // acquire: pairs with the release of who unlocked.
        if (word_.compare_exchange_weak(state, wanted, kAcquire, kRelaxed)) return true;
    }
    return false;
}

bool Contender::spin() {
    std::uint32_t state = word_.load(kRelaxed); // relaxed: see the head
    // A starving waiter is handed the lock: no use trying.
    if (state & kStarving || !rt::can_spin(tries_)) return false;
    if (!awake_ && (state & (kLocked | kWoken | kWaiters)) == (kLocked | kWaiters))
        // relaxed: see the head.
        awake_ = word_.compare_exchange_strong(state, state | kWoken, kRelaxed, kRelaxed);
    rt::spin();
    tries_++;
    return true;
}

/// The queue is held: says that it is about to have one more. False: the lock is free.
bool Contender::announce() {
    const std::uint32_t add = starving_ ? kWaiters | kStarving : kWaiters;
    std::uint32_t state = word_.load(kRelaxed); // relaxed: see the head
    do {
        if (!(state & kLocked)) return false;
        // relaxed: see the head.
    } while (!word_.compare_exchange_weak(state, (state | add) & ~(awake_ ? kWoken : 0), kRelaxed,
                                          kRelaxed));
    awake_ = false;
    return true;
}

bool Contender::wait(const Until* until, WaitEnd& end) {
    rt::SemaWait turn(&word_, until);
    if (!announce()) return false;
    const bool lifo = since_ns_ != 0; // it has been woken before, and lost
    if (!lifo) since_ns_ = kernel::nanotime();
    turn.waiter().since_ns = since_ns_;
    turn.waiter().note = starving_ ? kIsStarving : 0;
    if (!turn.park(reason_, lifo)) {
        // Only the bits of the queue, which is held.
        const std::uint32_t gone = (kWaiters | kStarving) & ~queue_bits(turn.queue());
        word_.fetch_and(~gone, kRelaxed); // relaxed: see the head
        end = turn.end();
        return true;
    }
    end = WaitEnd::kDone;
    if (turn.waiter().ticket == kHandedOver) return true;
    awake_ = true;
    tries_ = 0;
    starving_ = starving_ || kernel::nanotime() - since_ns_ > kStarvationNs;
    return false;
}

/// The first waiter that can be had. With it goes what it had to say.
struct Next {
    rt::SemaWaiter* waiter = nullptr;
    bool starving = false;
};

Next take_first(rt::SemaQueue& queue) {
    while (rt::SemaWaiter* w = queue.first()) {
        const bool starving = w->note == kIsStarving;
        if (queue.take(w)) return {w, starving};
    }
    return {};
}

/// To a waiter that starves: the lock stays locked.
void hand_over(LockWord& word, rt::SemaQueue& queue, rt::SemaWaiter* w) {
    rt::SemaWaiter* second = queue.first();
    if (second && kernel::nanotime() - w->since_ns > kStarvationNs) second->note = kIsStarving;
    std::uint32_t state = word.load(kRelaxed); // relaxed: see the head
    std::uint32_t wanted;
    do {
        wanted = (state & ~(kWaiters | kStarving)) | queue_bits(queue);
        // relaxed: see the head.
    } while (!word.compare_exchange_weak(state, wanted, kRelaxed, kRelaxed));
    queue.unlock();
    w->ticket = kHandedOver;
    rt::hand_over(w);
}

/// The lock is held and somebody may be queued. False: a bit of `unless` is set.
bool release_to_waiter(LockWord& word, std::uint32_t unless) {
    rt::Entry entry;
    rt::SemaQueue queue(&word);
    // relaxed: see the head. Nobody sets kWaiters or kStarving while we hold the queue.
    std::uint32_t state = word.load(kRelaxed);
    if (state & unless) return false;
    const Next next = take_first(queue);
    if (next.waiter && next.starving) {
        hand_over(word, queue, next.waiter);
        return true;
    }
    std::uint32_t wanted;
    do {
        wanted = (state & ~(kLocked | kWaiters | kStarving)) | queue_bits(queue);
        if (next.waiter) wanted |= kWoken;
        // release: pairs with the acquire of who locks next. relaxed on failure: a look.
    } while (!word.compare_exchange_weak(state, wanted, kRelease, kRelaxed));
    queue.unlock();
    if (next.waiter) rt::ready(next.waiter);
    return true;
}

} // namespace

WaitEnd lock_word_lock(LockWord& word, const Until* until, rt::WaitReason reason,
                       const char* what) {
    Contender me(word, reason);
    if (me.take()) return WaitEnd::kDone;
    rt::must_park(what);
    rt::limits_work(until); // from here on nothing throws
    for (;;) {
        WaitEnd end;
        if (!me.spin() && me.wait(until, end)) return end;
        if (me.take()) return WaitEnd::kDone;
    }
}

bool lock_word_unlock(LockWord& word, std::uint32_t unless) {
    std::uint32_t state = word.load(kRelaxed); // relaxed: see the head
    for (;;) {
        if (state & unless) return false;
        const bool somebody = (state & kWaiters) != 0;
        const bool sees_to_it = (state & (kWoken | kStarving)) == kWoken;
        if (somebody && !sees_to_it) return release_to_waiter(word, unless);
        // release: pairs with the acquire of who locks next. relaxed on failure: a look.
        if (word.compare_exchange_weak(state, state & ~kLocked, kRelease, kRelaxed)) return true;
    }
}

} // namespace baton::detail
