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
// Those that meet in that while wish to be spread, and the next writer that had to look for readers
// does so: the word says kSpread, and they are counted on their CPUs by locked instructions, which
// a writer need not end (read_spread.hpp). What is counted in the word as well, by who finds no
// slot, or leaves where it did not come, belongs to the same sum. Two CPUs that read take a fifth
// of the time for an operation then; but a writer has as many lines of others to fetch as there are
// slots. So it ends once there are fewer than kWorth readers to a writer: with nothing done in the
// lock, a write in 10 takes 75 ns in place of 57 if it does not end (and 180 in place of 370 with
// 100 ns of work inside and outside; what is done nobody knows here). Only while it lasts is it
// worth to wait awake, for kPauses: a reader for the writer, which has the lock for some tenths of
// a microsecond, and the writer for the readers. Else all the readers of the other CPU come to park
// with each write.
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
// of them idle. Rejected: to spin for who runs elsewhere while readers count in the word, writers
// and readers both: 67 ns in place of 93, but more with a write in 10, or where the lock is held
// for longer. Rejected: a writer that spins for another one; 70 to 80 ns with a write in 10 either
// way. Rejected: the reference's layout, a Mutex for the writers and counts of readers active,
// waiting and leaving; it counts readers before they wait, and one that gives up would have to find
// out which count it is in by then.
#include "baton/rwmutex.hpp"

#include <atomic>

#include "kernel/clock.hpp"
#include "runtime/rand.hpp"
#include "runtime/sched.hpp"
#include "runtime/sema.hpp"
#include "sync/lock_word.hpp"
#include "sync/read_bias.hpp"
#include "sync/read_spread.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kReadersWait = 1u << detail::kLockBits; // changed with their queue held
constexpr std::uint32_t kBiased = kReadersWait << 1; // the word is not all: read_bias.hpp
constexpr std::uint32_t kSpread = kBiased << 1;      // nor now: read_spread.hpp
// The writer, until the last reader leaves; and while it adds up those of a bias (end_bias).
constexpr std::uint32_t kParked = kSpread << 1;
constexpr std::uint32_t kOneReader = kParked << 1;
// hint_: how to count, below until when there is to be no bias.
constexpr std::uint32_t kMeetings = 64; // one in so many is worth a look at the clock
constexpr std::int64_t kRestNs = 10'000'000;
// Longer, as two processors stay at work for a while after readers that did not park: tried each 10
// ms in vain, a write in 10 took 36 ns in place of 29.
constexpr std::int64_t kSpreadRestNs = 200'000'000;
// spread_: how many writers have come lately, and above that how many readers had before; or, while
// readers are not spread, until when they are not to be, or that they wish to.
constexpr std::uint32_t kWish = 1;
constexpr std::uint32_t kWindow = 64;
constexpr std::uint32_t kWorth = 10; // readers for each writer: fewer are better off in the word
constexpr int kPauses = 20;          // about as long as it takes to park and be woken
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelaxed = std::memory_order_relaxed;

using detail::LockWord;
using detail::WaitEnd;

/// About four milliseconds each, above the bits that say how to count.
std::uint32_t stamp(std::int64_t ns) { return static_cast<std::uint32_t>(ns >> 22) << 2; }
bool is_past(std::uint32_t stamped) {
    const std::uint32_t at = stamped & ~3u; // 0: none
    return at == 0 || static_cast<std::int32_t>(stamp(kernel::nanotime()) - at) >= 0;
}

[[noreturn]] void nobody_reads() {
    rt::fatal(
        "unlock_shared of unlocked RWMutex: each unlock_shared needs a lock_shared of its own "
        "before it; std::shared_lock keeps them in pairs");
}

/// Does another goroutine run, which may be out of the lock in a moment?
bool others_run() {
    // relaxed, both: hints.
    return rt::getm_or_null() &&
           rt::sched.gomaxprocs.load(kRelaxed) > rt::npidle().load(kRelaxed) + 1;
}

constexpr std::uint64_t kLetIn = 1; // a reader's ticket: it is counted

} // namespace

bool RWMutex::try_lock() noexcept {
    std::uint32_t state = 0;
    // acquire, relaxed: as in lock_at_once.
    while (!state_.compare_exchange_weak(state, state | kLocked, kAcquire, kRelaxed)) {
        if (!detail::to_be_had(state) || (state >= kReader && !(state & (kBiased | kSpread))))
            return false;
    }
    if (state & kBiased) end_bias();
    if (!(state & (kBiased | kSpread))) return true;
    std::atomic_thread_fence(std::memory_order_seq_cst); // as in drain
    if (readers() == 0) return true;
    unlock_slow();
    return false;
}

// ---- where readers are counted ----

bool RWMutex::count_here(int by) noexcept { return detail::read_bias::count(state_, kBiased, by); }

bool RWMutex::enter_slot() {
    using detail::read_spread::How;
    const auto entered = detail::read_spread::enter(state_, kLocked | kSpread, kSpread);
    if (entered.how == How::kDone && !entered.look) [[likely]]
        return true;
    if (entered.how == How::kDone) (void)bias();
    if (entered.how == How::kShut && entered.look) wake_drainer();
    return entered.how == How::kNotHere ? enter_word() : entered.how == How::kDone;
}

bool RWMutex::leave_slot() {
    const auto left = detail::read_spread::leave(&state_);
    if (left.look) [[unlikely]]
        wake_drainer();
    return left.how == detail::read_spread::How::kDone;
}

/// By a reader that counts in the word, so that no writer comes to have the lock meanwhile.
void RWMutex::meet() noexcept {
    rt::M* m = rt::getm_or_null();
    if (!m || rt::fastrand(m) % kMeetings != 0) return;
    const std::uint32_t reads = reads_.load(kRelaxed); // relaxed, throughout: a wish
    if (bias() || reads < kWorth || !others_run()) return;
    if (hint_.load(kRelaxed) & kSpreadHint) return; // we had no slot
    if (is_past(spread_.load(kRelaxed))) spread_.store(kWish, kRelaxed);
}

/// By a reader. False: it is too early, or does not work.
bool RWMutex::bias() noexcept {
    reads_.store(0, kRelaxed);                       // relaxed: a hint
    const std::uint32_t hint = hint_.load(kRelaxed); // relaxed, here and below: a hint
    if (!is_past(hint) || !detail::read_bias::possible()) return false;
    std::uint32_t state = state_.load(kRelaxed); // relaxed, both: nothing is read by it
    do {
        if (state & (kLocked | kReadersWait | kBiased)) return true;
    } while (!state_.compare_exchange_weak(state, state | kBiased, kRelaxed, kRelaxed));
    hint_.store(hint | kBiasHint, kRelaxed);
    return true;
}

/// By who has the lock for writing, or whose it is alone.
void RWMutex::end_bias() noexcept {
    const std::uint32_t spread = hint_.load(kRelaxed) & kSpreadHint; // relaxed, both: as in bias
    hint_.store(stamp(kernel::nanotime() + kRestNs) | spread, kRelaxed);
    // seq_cst: (C). Until the sum is in the word, it may say less than nobody: unlock_shared_slow.
    state_.fetch_add(kDraining - kBiased);
    const std::int64_t sum = detail::read_bias::fold(state_);
    // relaxed: what those that left did has been acquired by fold.
    state_.fetch_add(static_cast<std::uint32_t>(sum) * kReader - kDraining, kRelaxed);
}

/// As they wish. By who has the lock for writing, alone; so who reads sees kSpreadHint as it is
/// until it leaves.
void RWMutex::spread() noexcept {
    const bool done = detail::read_spread::claim(&state_);
    // relaxed, throughout: nobody else changes these now, but for those that come, and go again.
    if (!done) return spread_.store(stamp(kernel::nanotime() + kSpreadRestNs), kRelaxed);
    state_.fetch_or(kSpread, kRelaxed);
    hint_.store(hint_.load(kRelaxed) | kSpreadHint, kRelaxed);
    spread_.store(detail::read_spread::sum(&state_).entries * kWindow, kRelaxed);
}

/// Have they been fewer lately than it is worth? Then they count in the word again. As spread.
void RWMutex::weigh() noexcept {
    const std::uint32_t window = spread_.load(kRelaxed) + 1; // relaxed, throughout: as in spread
    spread_.store(window, kRelaxed);
    if (window % kWindow != 0) return;
    const std::uint32_t entries = detail::read_spread::sum(&state_).entries * kWindow;
    spread_.store(entries, kRelaxed); // relaxed: as above, and below
    if (entries + kWindow - window >= kWorth * kWindow * kWindow) return;
    const std::uint32_t counted = state_.load(kRelaxed) / kReader;
    if (!detail::read_spread::settle(&state_, counted)) return;
    // relaxed: as above.
    spread_.store(stamp(kernel::nanotime() + kSpreadRestNs), kRelaxed);
    hint_.store(hint_.load(kRelaxed) & ~kSpreadHint, kRelaxed);
    state_.fetch_sub(counted * kReader + kSpread, kRelaxed);
}

/// How many read, or are on their way back. By who has the lock for writing, or whoever holds the
/// drain queue while it waits there.
std::int32_t RWMutex::readers() const noexcept {
    // acquire: pairs with the releases of unlock_shared.
    const std::uint32_t state = state_.load(kAcquire);
    std::uint32_t n = state / kReader;
    if (state & kSpread) n += detail::read_spread::sum(&state_).readers;
    static_assert(detail::read_spread::kMost * std::uint64_t{kReader} == std::uint64_t{1} << 32);
    return static_cast<std::int32_t>(n * kReader) / static_cast<std::int32_t>(kReader);
}

/// Nobody will use the lock any more.
void RWMutex::forget() noexcept {
    if (state_.load(kRelaxed) & kBiased) end_bias(); // relaxed: it is ours alone
    if (readers() < 0) nobody_reads();
    detail::read_spread::release(&state_);
}

// ---- writers ----

WaitEnd RWMutex::lock_slow(const Until* until) {
    static_assert(kLocked == detail::kLocked && kDraining == kParked && kReader == kOneReader,
                  "what the header says");
    rt::limits_work(until); // throws before anything is changed
    const WaitEnd end =
        detail::lock_word_lock(state_, rt::WaitReason::kRWMutexLock, until, "RWMutex::lock");
    return end == WaitEnd::kDone ? drain(until) : end;
}

/// The writer is about to be queued, whose queue is held. False: it need not be, as nobody reads.
bool RWMutex::say_parked() noexcept {
    // relaxed, here and below: who leaves sees it in the word that it changes, or we see that.
    if (state_.fetch_or(kDraining, kRelaxed) & kSpread) detail::read_spread::watch(&state_, true);
    if (readers() != 0) return true;
    say_unparked();
    return false;
}

/// The queue is held.
void RWMutex::say_unparked() noexcept {
    if (state_.fetch_and(~kDraining, kRelaxed) & kSpread)
        detail::read_spread::watch(&state_, false);
}

/// Waits for the readers to leave; without the lock if that takes too long.
WaitEnd RWMutex::drain(const Until* until) {
    // relaxed: who set these bits was first, as it does not while the lock is held; so we see them.
    const std::uint32_t state = state_.load(kRelaxed);
    if (state & kBiased) end_bias();
    // seq_cst: (C), which another may have done that handed the lock over; see read_spread.hpp.
    if (state & kSpread) std::atomic_thread_fence(std::memory_order_seq_cst);
    WaitEnd end = WaitEnd::kDone;
    int pauses = 0;
    while (const std::int32_t n = readers()) {
        if (n < 0) nobody_reads();
        if ((state & kSpread) && pauses++ < kPauses && others_run()) {
            __builtin_ia32_pause();
            continue;
        }
        rt::must_park("RWMutex::lock");
        rt::SemaWait turn(&state_, rt::WaitReason::kRWMutexDrain, until);
        if (!say_parked() || turn.park()) continue;
        say_unparked();
        end = turn.end();
        break;
    }
    if (end != WaitEnd::kDone && readers() != 0) {
        unlock_slow();
        return end;
    }
    if (state & kSpread) weigh();
    // relaxed: a wish.
    if (!(state & kSpread) && spread_.load(kRelaxed) == kWish) spread();
    return WaitEnd::kDone;
}

void RWMutex::unlock_slow() {
    // relaxed: the caller has the lock, or has not the right to be here.
    if (!(state_.load(kRelaxed) & kLocked))
        rt::fatal("unlock of unlocked RWMutex: each unlock needs a lock of its own before it, each "
                  "unlock_shared a lock_shared; std::unique_lock and std::shared_lock pair them");
    if (!detail::lock_word_unlock(state_, rt::WaitReason::kRWMutexLock, kReadersWait))
        unlock_to_readers();
}

/// Readers wait. If they are many they are woken to compete with whoever comes by, unless one of
/// them has been before, and lost.
void RWMutex::unlock_to_readers() {
    rt::Entry entry;
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
    // relaxed, both: hints.
    const bool spread = hint_.load(kRelaxed) & kSpreadHint;
    for (int i = 0; spread && i < kPauses && others_run(); i++) {
        __builtin_ia32_pause();
        if (!(state_.load(kRelaxed) & kLocked) && lock_shared_at_once()) return WaitEnd::kDone;
    }
    WaitEnd end;
    for (bool again = false; !wait_shared(until, again, end); again = true)
        if (lock_shared_at_once()) return WaitEnd::kDone;
    return end;
}

void RWMutex::unlock_shared_slow(std::uint32_t before) {
    // While some are counted elsewhere, or end_bias adds those up, the word alone may say less than
    // nobody: a writer will know. The lock may be gone.
    if (before < kReader && !(before & (kBiased | kSpread | kDraining))) nobody_reads();
    if (!(before & kDraining)) return;
    if (!(before & kSpread) && before - kReader >= kReader) return; // others read on
    wake_drainer();
}

/// Perhaps the last reader has left, and the writer waits. Or it has been woken by another one that
/// was the last, or has given up, and the lock may be gone: but not while somebody waits there.
void RWMutex::wake_drainer() {
    rt::Entry entry;
    rt::SemaQueue queue(&state_, rt::WaitReason::kRWMutexDrain);
    if (queue.empty() || readers() > 0) return;
    rt::SemaWaiter* w = queue.pop();
    if (!w) return;
    say_unparked();
    queue.unlock();
    rt::ready(w);
}

} // namespace baton
