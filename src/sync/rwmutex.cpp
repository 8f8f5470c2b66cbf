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
// readers to leave, which kParked tells of. Who unlocks for writing takes the readers off theirs
// and lets go of the lock in one step, and readies them only then, so that none of them can have
// destroyed the object before. Few have been counted in the same step: they have the lock. Many try
// again; who finds a writer once more queues in front, and when that one unlocks all that wait are
// counted.
//
// Readers that meet others, or have come kManyReads times since a writer did, are counted on their
// CPUs from then on (read_bias.hpp), while the word says kBiased: to come and go then costs an
// eighth on two CPUs, and shares no memory; on one it costs half, as there is no locked
// instruction. It is set by a reader, while there is no writer, and taken back by the next one,
// which pays for that with a membarrier; so not again for a while (kRestNs).
//
// Rejected: to let in those that wait at each unlock, as the reference does. They are counted then
// before they run, so the next writer has to wait until each has had its turn on a processor, and
// whoever runs meanwhile comes to wait as well: with two processors that never sleep, 64 tasks and
// a write in 100, each write had 34 readers park, and an operation took 160 to 250 ns in place of
// 100. So many are let in only once one of them has been woken in vain. As few as there are
// processors run at once, and are let in: to compete would have them park twice (a write in 10: 75
// ns in place of 45).
// Rejected: places that any reader may take, those that come by before those that were woken, as
// the reference's semaphore gives them. That is why two or three park for a write there; so they
// did here, and no operation took less time. Two processors that work at the word take 40 to 60 ns
// for an operation of a reader, the reference 35 to 40, one alone 17: less is taken by who has one
// of them idle. Rejected: to spin for who runs elsewhere, writers and readers both: 67 ns in place
// of 93, but more with a write in 10, or where the lock is held for longer. Rejected: the
// reference's layout, a Mutex for the writers and counts of readers active, waiting and leaving; it
// counts readers before they wait, and one that gives up would have to find out which count it is
// in by then.
#include "baton/rwmutex.hpp"

#include "kernel/clock.hpp"
#include "runtime/rand.hpp"
#include "runtime/sched.hpp"
#include "runtime/sema.hpp"
#include "sync/lock_word.hpp"
#include "sync/read_bias.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kReadersWait = 1u << detail::kLockBits; // changed with their queue held
constexpr std::uint32_t kBiased = kReadersWait << 1; // the word is not all: read_bias.hpp
constexpr std::uint32_t kParked = kBiased << 1;      // the writer, until the last reader leaves
constexpr std::uint32_t kOneReader = kParked << 1;
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

constexpr std::uint64_t kLetIn = 1; // a reader's ticket: it is counted

/// The writer is about to be queued. False: it need not be, as nobody reads.
bool say_parked(LockWord& word) {
    std::uint32_t state = word.load(kRelaxed); // relaxed: a CAS confirms it
    while (state >= kOneReader) {
        // relaxed: who leaves sees it in the word that it changes.
        if (word.compare_exchange_weak(state, state | kParked, kRelaxed, kRelaxed)) return true;
    }
    return false;
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
    if (m && rt::fastrand(m) % kMeetings == 0) bias();
}

/// By one as in meet.
void RWMutex::bias() noexcept {
    reads_.store(0, kRelaxed);                       // relaxed: a hint
    const std::uint32_t rest = hint_.load(kRelaxed); // relaxed, here and below: a hint
    if (rest != 0 && static_cast<std::int32_t>(stamp(kernel::nanotime()) - rest) < 0) return;
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
    static_assert(kLocked == detail::kLocked && kDraining == kParked && kReader == kOneReader,
                  "what the header says");
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
        if (!say_parked(state_) || turn.park()) continue;
        // relaxed: only a bit that the queue guards.
        state_.fetch_and(~kDraining, kRelaxed);
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
    if (!detail::lock_word_unlock(state_, rt::WaitReason::kRWMutexLock, kReadersWait))
        unlock_to_readers();
}

/// Readers wait. If they are many they are woken to compete with whoever comes by, unless one of
/// them has been before, and lost.
void RWMutex::unlock_to_readers() {
    rt::SemaWaiter* woken = nullptr;
    rt::SemaWaiter** last = &woken;
    bool let_in = false;
    std::uint32_t state;
    {
        rt::SemaQueue queue(&state_, rt::WaitReason::kRWMutexRLock);
        std::uint32_t n = 0;
        for (; rt::SemaWaiter* w = queue.pop(); n++) {
            let_in = let_in || w->again;
            *last = w;
            last = &w->next;
        }
        *last = nullptr;
        // relaxed: changes only while the world is stopped.
        let_in = let_in || n <= rt::sched.gomaxprocs.load(kRelaxed);
        if (!let_in) n = 0;
        // relaxed: the bit is the queue's.
        const std::uint32_t off = (state_.load(kRelaxed) & kReadersWait) + kLocked;
        const std::uint32_t change = n * kOneReader - off;
        // release: pairs with the acquire of who locks next.
        state = state_.fetch_add(change, std::memory_order_release) + change;
    }
    detail::lock_word_unlocked(state_, rt::WaitReason::kRWMutexLock, state);
    while (rt::SemaWaiter* w = woken) {
        woken = w->next; // it is gone once it runs
        w->ticket = let_in ? kLetIn : 0;
        rt::ready(w);
    }
}

/// One turn in the queue. True: for nothing more, `end` says whether the lock is had.
bool RWMutex::wait_shared(const Until* until, bool again, WaitEnd& end) {
    rt::SemaWait turn(&state_, rt::WaitReason::kRWMutexRLock, until);
    std::uint32_t state = state_.load(kRelaxed); // relaxed: a CAS confirms it
    end = WaitEnd::kDone;
    for (;;) {
        if (!(state & kLocked)) {
            // acquire: pairs with the release of unlock. relaxed on failure: a look.
            if (state_.compare_exchange_weak(state, state + kReader, kAcquire, kRelaxed))
                return true;
            // relaxed: whoever unlocks sees it in the word that it changes.
        } else if (state_.compare_exchange_weak(state, state | kReadersWait, kRelaxed, kRelaxed)) {
            break;
        }
    }
    turn.waiter().again = again;
    if (turn.park(again)) return turn.waiter().ticket == kLetIn;
    end = turn.end();
    // relaxed: only a bit that the queue guards.
    if (turn.queue().empty()) state_.fetch_and(~kReadersWait, kRelaxed);
    return true;
}

WaitEnd RWMutex::lock_shared_slow(const Until* until) {
    rt::must_park("RWMutex::lock_shared");
    WaitEnd end;
    for (bool again = false; !wait_shared(until, again, end); again = true)
        if (lock_shared_at_once()) return WaitEnd::kDone;
    return end;
}

void RWMutex::unlock_shared_slow(std::uint32_t before, std::uint32_t hint) {
    // Of one that was ever biased the word alone may say less than nobody: the next writer will
    // know. The lock may be gone.
    if (before < kReader && hint == 0) nobody_reads();
    if (before - kReader >= kReader || !(before & kDraining)) return; // others read on
    // The last one, and the writer waits, or has been woken by another that was, or has given up:
    // then we wake whoever may wait there by now, to look again.
    rt::Entry entry;
    rt::SemaQueue queue(&state_, rt::WaitReason::kRWMutexDrain);
    rt::SemaWaiter* w = queue.pop();
    if (!w) return;
    // relaxed: only a bit that the queue guards, and the lock is there as long as it is held.
    state_.fetch_and(~kDraining, kRelaxed);
    queue.unlock();
    rt::ready(w);
}

} // namespace baton
