// SPDX-License-Identifier: Apache-2.0
//
// RWMutex: a lock word whose lock is the writers', and above it a bit for readers that wait, and
// the number of those that read.
//
// A writer takes the lock as one takes a Mutex, and then waits for the readers to leave. One that
// comes meanwhile counts itself, finds the lock taken, takes itself off again and queues; so the
// number does fall, whoever brings it to zero wakes the writer, and a writer that gives up does
// what it would do to unlock.
//
// Three queues: of the writers (lock_word), of the readers, and of the one writer that waits for
// readers to leave. Who unlocks for writing lets all readers in that
// wait: it takes them off their queue, counts them, lets go of the lock, and only then readies
// them, so that none of them can have destroyed the object before.
//
// Rejected: the reference's layout, a Mutex for the writers and counts of readers active, waiting
// and leaving; it counts readers before they wait, and one that gives up would have to find out
// which count it is in by then.
#include "baton/rwmutex.hpp"

#include "runtime/sema.hpp"
#include "sync/lock_word.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kReadersWait = 1u << detail::kLockBits; // changed with their queue held
constexpr std::uint32_t kOneReader = kReadersWait << 1;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelaxed = std::memory_order_relaxed;

using detail::LockWord;
using detail::WaitEnd;

/// Counts the readers that wait, and leaves them in `woken`. The caller has the lock.
void let_readers_in(LockWord& word, rt::GQueue& woken) {
    rt::SemaQueue queue(&word, rt::WaitReason::kRWMutexRLock);
    std::uint32_t n = 0;
    for (; rt::SemaWaiter* w = queue.pop(); n++) woken.push_back(w->g);
    // relaxed, both: the bit is the queue's, and they are readied after the release of the lock.
    const std::uint32_t wait = word.load(kRelaxed) & kReadersWait;
    word.fetch_add(n * kOneReader - wait, kRelaxed);
}

} // namespace

bool RWMutex::try_lock() noexcept {
    std::uint32_t state = 0;
    // acquire, relaxed: as in lock_at_once.
    while (!state_.compare_exchange_weak(state, state | kLocked, kAcquire, kRelaxed)) {
        if (!detail::to_be_had(state) || state >= kReader) return false;
    }
    return true;
}

WaitEnd RWMutex::lock_slow(const Until* until) {
    static_assert(kLocked == detail::kLocked && kReader == kOneReader, "what the header says");
    rt::limits_work(until); // throws before anything is changed
    const WaitEnd end =
        detail::lock_word_lock(state_, rt::WaitReason::kRWMutexLock, until, "RWMutex::lock");
    return end == WaitEnd::kDone ? drain(until) : end;
}

/// Waits for the readers to leave; without the lock if that takes too long.
WaitEnd RWMutex::drain(const Until* until) {
    // acquire: pairs with the releases of unlock_shared.
    const auto empty = [this] { return state_.load(kAcquire) < kReader; };
    WaitEnd end = WaitEnd::kDone;
    while (!empty()) {
        rt::must_park("RWMutex::lock");
        rt::SemaWait turn(&state_, rt::WaitReason::kRWMutexDrain, until);
        if (empty() || turn.park()) continue;
        end = turn.end();
        break;
    }
    if (end == WaitEnd::kDone || empty()) return WaitEnd::kDone;
    unlock_slow();
    return end;
}

void RWMutex::unlock_slow() {
    // relaxed: the caller has the lock, or has not the right to be here.
    if (!(state_.load(kRelaxed) & kLocked))
        rt::fatal("unlock of unlocked RWMutex: each unlock needs a lock of its own before it, each "
                  "unlock_shared a lock_shared; std::unique_lock and std::shared_lock pair them");
    rt::Entry entry;
    rt::GQueue woken;
    // relaxed: lock_word_unlock confirms it.
    do {
        if (state_.load(kRelaxed) & kReadersWait) let_readers_in(state_, woken);
    } while (!detail::lock_word_unlock(state_, rt::WaitReason::kRWMutexLock, kReadersWait));
    rt::ready_all(woken);
}

WaitEnd RWMutex::lock_shared_slow(const Until* until) {
    rt::must_park("RWMutex::lock_shared");
    rt::SemaWait turn(&state_, rt::WaitReason::kRWMutexRLock, until);
    std::uint32_t state = state_.load(kRelaxed); // relaxed: a CAS confirms it
    for (;;) {
        if (!(state & kLocked)) {
            // acquire: pairs with the release of unlock. relaxed on failure: a look.
            if (state_.compare_exchange_weak(state, state + kReader, kAcquire, kRelaxed))
                return WaitEnd::kDone;
            // relaxed: whoever unlocks sees it in the word that it changes.
        } else if (state_.compare_exchange_weak(state, state | kReadersWait, kRelaxed, kRelaxed)) {
            break;
        }
    }
    if (turn.park()) return WaitEnd::kDone; // and counted
    // relaxed: only a bit that the queue guards.
    if (turn.queue().empty()) state_.fetch_and(~kReadersWait, kRelaxed);
    return turn.end();
}

void RWMutex::unlock_shared_slow(std::uint32_t before) {
    if (before < kReader)
        rt::fatal("unlock_shared of unlocked RWMutex: each unlock_shared needs a lock_shared of "
                  "its own before it; std::shared_lock keeps them in pairs");
    if (before - kReader >= kReader) return; // others read on
    // The last one, and a writer has the lock. It waits, or will see that it need not, or has given
    // up: then we wake whoever may wait there by now, to look again.
    rt::Entry entry;
    rt::SemaQueue queue(&state_, rt::WaitReason::kRWMutexDrain);
    rt::SemaWaiter* w = queue.pop();
    queue.unlock();
    if (w) rt::ready(w);
}

} // namespace baton
