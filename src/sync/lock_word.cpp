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

constexpr std::uint64_t kHandedOver = 1; // a waiter's ticket

/// Somebody who wants the lock.
class Contender {
public:
    Contender(LockWord& word, rt::WaitReason reason) : word_(word), reason_(reason) {}

    /// Takes the lock if it is to be had.
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
    while (to_be_had(state)) {
        const std::uint32_t wanted = (state | kLocked) & ~(awake_ ? kWoken : 0);
        // acquire: pairs with the release of who unlocked.
        if (word_.compare_exchange_weak(state, wanted, kAcquire, kRelaxed)) return true;
    }
    return false;
}

bool Contender::spin() {
    std::uint32_t state = word_.load(kRelaxed); // relaxed: see the head
    if ((state & kStarving) || !rt::can_spin(tries_)) return false;
    if (!awake_ && (state & (kLocked | kWoken | kWaiters)) == (kLocked | kWaiters))
        // relaxed: see the head.
        awake_ = word_.compare_exchange_strong(state, state | kWoken, kRelaxed, kRelaxed);
    rt::spin();
    tries_++;
    return true;
}

/// The queue is held: says that it is about to have one more. False: the lock is to be had.
bool Contender::announce() {
    std::uint32_t state = word_.load(kRelaxed); // relaxed: see the head
    std::uint32_t wanted;
    do {
        if (to_be_had(state)) return false;
        wanted = (state | kWaiters) & ~(awake_ ? kWoken : 0);
        // Only while it is locked: who unlocks looks for it then.
        if (starving_ && (state & kLocked)) wanted |= kStarving;
        // relaxed: see the head.
    } while (!word_.compare_exchange_weak(state, wanted, kRelaxed, kRelaxed));
    awake_ = false;
    return true;
}

bool Contender::wait(const Until* until, WaitEnd& end) {
    rt::SemaWait turn(&word_, reason_, until);
    if (!announce()) return false;
    const bool lifo = since_ns_ != 0; // it has been woken before, and lost
    if (!lifo) since_ns_ = kernel::nanotime();
    turn.waiter().since_ns = since_ns_;
    if (!turn.park(lifo)) {
        // relaxed: only bits that the queue guards.
        if (turn.queue().empty()) word_.fetch_and(~(kWaiters | kStarving), kRelaxed);
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

/// In starvation mode: the lock to the first waiter. The queue is held and not empty, so the word
/// is there; nobody else takes the lock now.
void hand_over(LockWord& word, rt::SemaQueue& queue) {
    rt::SemaWaiter* w = queue.pop();
    const bool ends = queue.empty() || !w || kernel::nanotime() - w->since_ns <= kStarvationNs;
    const std::uint32_t off = (queue.empty() ? kWaiters : 0) | (ends ? kStarving : 0);
    std::uint32_t state = word.load(kRelaxed); // relaxed: see the head
    std::uint32_t wanted;
    do {
        wanted = (state & ~off) | (w ? kLocked : 0);
        // acquire: pairs with the release of who unlocked last, which may have been another than
        // the caller: one that was late to see to the waiters. relaxed on failure: a look.
    } while (!word.compare_exchange_weak(state, wanted, kAcquire, kRelaxed));
    queue.unlock();
    if (!w) return;
    w->ticket = kHandedOver;
    rt::hand_over(w);
}

} // namespace

WaitEnd lock_word_lock(LockWord& word, rt::WaitReason reason, const Until* until,
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

void lock_word_unlocked(LockWord& word, rt::WaitReason reason, std::uint32_t state) {
    const auto seen_to = [](std::uint32_t s) {
        return !(s & kWaiters) || (s & kLocked) || (s & (kWoken | kStarving)) == kWoken;
    };
    if (seen_to(state)) return;
    rt::Entry entry;
    rt::SemaQueue queue(&word, reason);
    // Those that waited have given up, and perhaps the word is gone.
    if (queue.empty()) return;
    state = word.load(kRelaxed); // relaxed: see the head
    do {
        if (seen_to(state)) return;
        if (state & kStarving) return hand_over(word, queue);
        // relaxed: see the head.
    } while (!word.compare_exchange_weak(state, state | kWoken, kRelaxed, kRelaxed));
    rt::SemaWaiter* w = queue.pop();
    const std::uint32_t off = (queue.empty() ? kWaiters | kStarving : 0) | (w ? 0 : kWoken);
    if (off != 0) word.fetch_and(~off, kRelaxed); // relaxed: see the head
    queue.unlock();
    if (w) rt::ready(w);
}

bool lock_word_unlock(LockWord& word, rt::WaitReason reason, std::uint32_t unless) {
    std::uint32_t state = word.load(kRelaxed); // relaxed: see the head
    do {
        if (state & unless) return false;
        // release: pairs with the acquire of who locks next. relaxed on failure: a look.
    } while (!word.compare_exchange_weak(state, state & ~kLocked, kRelease, kRelaxed));
    lock_word_unlocked(word, reason, state & ~kLocked);
    return true;
}

} // namespace baton::detail
