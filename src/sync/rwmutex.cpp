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
// Readers that meet others are counted on their CPUs from then on (read_bias.hpp), while the word
// says kBiased: to come and go then costs an eighth on two CPUs, and shares no memory. It is set by
// a reader, while there is no writer, and taken back by the next one, which pays for that with a
// membarrier; so not again for a while (kRestNs).
//
// Rejected: the reference's layout, a Mutex for the writers and counts of readers active, waiting
// and leaving; it counts readers before they wait, and one that gives up would have to find out
// which count it is in by then.
#include "baton/rwmutex.hpp"

#include "kernel/clock.hpp"
#include "runtime/rand.hpp"
#include "runtime/sema.hpp"
#include "sync/lock_word.hpp"
#include "sync/read_bias.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kReadersWait = 1u << detail::kLockBits; // changed with their queue held
constexpr std::uint32_t kBiased = kReadersWait << 1; // the word is not all: read_bias.hpp
constexpr std::uint32_t kOneReader = kBiased << 1;
// The other word: the header's bit, and above it until when there is to be no bias. Never 0 again.
constexpr std::uint32_t kMeetings = 64; // one in so many is worth a look at the clock
constexpr std::int64_t kRestNs = 10'000'000;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelaxed = std::memory_order_relaxed;

using detail::LockWord;
using detail::WaitEnd;

/// About a millisecond each, with kHint left free.
std::uint32_t stamp(std::int64_t ns) { return static_cast<std::uint32_t>(ns >> 20) << 1 | 2; }

/// Of a word that is all there is to know.
bool left_too_often(std::uint32_t state) { return static_cast<std::int32_t>(state) < 0; }
[[noreturn]] void nobody_reads() {
    rt::fatal(
        "unlock_shared of unlocked RWMutex: each unlock_shared needs a lock_shared of its own "
        "before it; std::shared_lock keeps them in pairs");
}

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
        if (!detail::to_be_had(state) || (state >= kReader && !(state & kBiased))) return false;
    }
    if (!(state & kBiased)) return true;
    end_bias();
    // acquire: pairs with the releases of unlock_shared.
    if (state_.load(kAcquire) < kReader) return true;
    unlock_slow();
    return false;
}

bool RWMutex::count_here(int by) noexcept { return detail::read_bias::count(state_, kBiased, by); }

/// By a reader that counts in the word, so that no writer comes to have the lock meanwhile.
void RWMutex::meet() noexcept {
    rt::M* m = rt::getm_or_null();
    if (!m || rt::fastrand(m) % kMeetings != 0) return;
    const std::uint32_t rest = hint_.load(kRelaxed); // relaxed, here and below: a hint
    if (static_cast<std::int32_t>(stamp(kernel::nanotime()) - rest) < 0) return;
    if (!detail::read_bias::possible()) return;
    std::uint32_t state = state_.load(kRelaxed); // relaxed, both: nothing is read by it
    do {
        if (state & (kLocked | kReadersWait | kBiased)) return;
    } while (!state_.compare_exchange_weak(state, state | kBiased, kRelaxed, kRelaxed));
    hint_.store(rest | kHint, kRelaxed);
}

/// By who has the lock for writing, or whose it is alone.
void RWMutex::end_bias() noexcept {
    hint_.store(stamp(kernel::nanotime() + kRestNs), kRelaxed); // relaxed: as in meet
    const bool was = state_.fetch_and(~kBiased) & kBiased;      // seq_cst: (C)
    const std::int64_t sum = detail::read_bias::fold(state_, was);
    const std::uint32_t counted = static_cast<std::uint32_t>(sum) * kReader;
    // relaxed: what those that left did has been acquired by fold.
    if (left_too_often(state_.fetch_add(counted, kRelaxed) + counted)) nobody_reads();
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
    // relaxed: who set it was first, as it does not while the lock is held; so we see it.
    if (state_.load(kRelaxed) & kBiased) end_bias();
    // relaxed: from here on the word is exact.
    if (left_too_often(state_.load(kRelaxed))) nobody_reads();
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

void RWMutex::unlock_shared_slow(std::uint32_t before, std::uint32_t hint) {
    // Of one that was ever biased the word alone may say less than nobody: the next writer will
    // know. The lock may be gone.
    if (before < kReader && hint == 0) nobody_reads();
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
