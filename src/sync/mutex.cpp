// SPDX-License-Identifier: Apache-2.0
//
// Mutex: a lock word (lock_word.hpp) for which no locked instruction is needed as long as one CPU
// uses it, and none to unlock it until somebody first has to wait for it. Most mutexes never see
// either, and a locked instruction costs as much as all else in a lock and unlock.
//
// To unlock, a restartable sequence (rseq_cs.hpp) looks at the word's second byte and stores the
// first. A waiter sets bits in the first byte of a lock that is held, and they would be lost under
// a store that was on its way. So before anybody waits:
//
//     unlock                            share
//     ------                            -----
//     second byte set?  other path      (A) second byte |= kSharing
//     first byte = 0, or kBiased            membarrier
//                                       (B) second byte |= kShared, kBiased off
//
// After the membarrier no sequence is on its way that had looked before (A): the kernel has every
// one of them start again, on all CPUs, or its store is seen. One that looks later finds the second
// byte set, and unlocks by a locked instruction; so do all from then on. Who finds kSharing without
// kShared does not know whether the membarrier is over, and does its own.
//
// A mutex that one CPU has locked kWorthABias times in a row is biased to it: its holder notes the
// CPU, and leaves kBiased in unlocking. A compare-and-exchange does not take such a lock. A thread
// on that CPU does by a sequence, which no other thread there can come between. Anybody else takes
// the bias back first, one at a time:
//
//     lock, by a sequence               end_bias, with the queue held
//     -------------------               -----------------------------
//     not kBiased?      other path      kBiased off?  another was first
//     CPU another?      end_bias        (C) CPU = kNoCpu
//     second byte set?  end_bias            membarrier, on the CPU it was
//     first byte = kBiased | kLocked    (D) first byte &= ~kBiased
//
// The CPU is looked at after kBiased, as it is stored before: else it may be that of a bias that
// was meant to be and was not.
// After the membarrier no sequence that saw that CPU is on its way: the lock is held, as the byte
// says by then, or will be had by compare-and-exchange after (D). Only the holder gives the CPU,
// and one that locked by a sequence does not; so from the look at kBiased to (D) nobody gives
// another. That one leaves kBiased once more, though, if it holds the lock over (D). Then the bias
// is nobody's, and is taken back without a membarrier: with the queue held, (C) says that those
// before are through with theirs. tests/model/mutex_bias.pml checks this.
//
// A membarrier takes 16 us at worst, where it has to interrupt another CPU of a virtual machine.
// Between two of them one CPU has locked kWorthABias times by compare-and-exchange, so that is 4 ns
// to each of these where CPUs take turns; and a mutex that is soon gone is never biased.
//
// That the lock is held at all, and by which way it was taken, unlock learns from a byte that only
// holders use: to read what a locked instruction has just written costs half as much as another
// one.
//
// Threads without such sequences always take the locked instruction; and without membarrier no
// thread has them (assist::use_rseq).
//
// Rejected: a store and then a look for waiters, as in the runtime's lock (the mutex may be gone by
// then); a bit that is taken back when nobody waits (a membarrier at each contention); a bias to a
// P (who has lost its P does not know); to end a bias without the queue (who does may be preempted
// before (D), and take the next bias for the one that it ended).
#include "baton/mutex.hpp"

#include "arch/x86_64/rseq_cs.hpp"
#include "assist/ownership.hpp"
#include "kernel/membarrier.hpp"
#include "runtime/entry.hpp"
#include "runtime/sema.hpp"
#include "sync/lock_word.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kSharing = 0x100;
constexpr std::uint32_t kShared = 0x200;
constexpr std::uint16_t kNoCpu = 0xffff; // no CPU's number
constexpr std::uint16_t kWorthABias = 4096;
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

static_assert(detail::kLocked == 1 && detail::kWaiters == 2 && detail::kWoken == 4 &&
              detail::kStarving == 8);

/// From here on the lock is unlocked by locked instructions. The caller wants it, so it is there.
void Mutex::share() noexcept {
    // acquire: pairs with the release below: the membarrier is over.
    if (state_.load(std::memory_order_acquire) & kShared) return;
    state_.fetch_or(kSharing); // (A)
    if (assist::use_rseq) kernel::membarrier_rseq_cpu(-1);
    // relaxed: as below; nobody sets it again.
    state_.fetch_and(~kBiased, kRelaxed);
    // release: pairs with the acquire above.
    state_.fetch_or(kShared, std::memory_order_release); // (B)
}

/// It was free and biased. False: it is held, or was meanwhile.
bool Mutex::lock_biased() noexcept {
    const rt::M* m = rt::getm_or_null();
    auto done = arch::RseqResult::kMismatch;
    do {
        if (!m) break;
        const auto* cpu = reinterpret_cast<const std::uint16_t*>(&cpu_);
        done = arch::rseq_change_on(m->rseq, cpu, &byte(kLockByte), kBiased, kBiased | kLocked,
                                    &byte(kSharedByte));
    } while (done == arch::RseqResult::kAborted);
    if (done == arch::RseqResult::kCommitted) [[likely]] {
        note_held(kBiased | kLocked);
        return true;
    }
    end_bias();
    return lock_by_cas();
}

/// The caller wants the lock, so it is there.
void Mutex::end_bias() noexcept {
    const rt::EntryInPlace entry;
    const rt::SemaQueue alone(&state_, rt::WaitReason::kMutexLock);
    // relaxed: it was set when the caller looked; who took it back did so with the queue held.
    if (!(state_.load(kRelaxed) & kBiased)) return;
    const std::uint16_t cpu = cpu_.exchange(kNoCpu); // (C)
    if (cpu != kNoCpu) kernel::membarrier_rseq_cpu(cpu);
    state_.fetch_and(~kBiased, kRelaxed); // (D); relaxed: the CAS that takes the lock acquires
}

detail::WaitEnd Mutex::lock_slow(const Until* until) {
    for (int tries = 0;; tries++) {
        if (try_lock()) return detail::WaitEnd::kDone; // others may wait, and yet it is to be had
        if (!rt::can_spin(tries)) break;
        rt::spin();
    }
    share();
    const detail::WaitEnd end =
        detail::lock_word_lock(state_, rt::WaitReason::kMutexLock, until, "Mutex::lock");
    if (end == detail::WaitEnd::kDone) note_held(kLocked);
    return end;
}

void Mutex::unlock() {
    const std::atomic_ref held(byte(kHeldByte));
    // relaxed: as in note_held.
    const std::uint8_t how = held.load(kRelaxed);
    if (!how) [[unlikely]]
        rt::fatal("unlock of unlocked mutex: each unlock needs a lock of its own before it; "
                  "std::lock_guard keeps them in pairs");
    held.store(0, kRelaxed); // relaxed: see above
    if (how == kLocked) return unlock_unbiased();
    const rt::M* m = rt::getm_or_null();
    if (!m || !arch::rseq_store_unless(m->rseq, &byte(kLockByte), kBiased, &byte(kSharedByte)))
        unlock_shared();
}

void Mutex::unlock_unbiased() {
    const rt::M* m = rt::getm_or_null();
    // relaxed: the sequence looks again.
    if (!m || std::atomic_ref(byte(kSharedByte)).load(kRelaxed)) return unlock_shared();
    const auto cpu = static_cast<std::uint16_t>(m->rseq->cpu_id);
    // relaxed: only holders write it, until kBiased is stored, which releases it.
    if (cpu_.load(kRelaxed) != cpu) {
        cpu_.store(cpu, kRelaxed); // relaxed: see above
        in_a_row_ = 0;
    }
    const bool worth_it = ++in_a_row_ == kWorthABias;
    if (worth_it) in_a_row_ = 0;
    if (!arch::rseq_store_unless(m->rseq, &byte(kLockByte), worth_it ? kBiased : 0,
                                 &byte(kSharedByte)))
        unlock_shared();
}

void Mutex::unlock_shared() {
    // An addition, as the bit is set: one instruction. release: pairs with the acquire of who locks
    // next.
    const std::uint32_t state = state_.fetch_sub(kLocked, std::memory_order_release) - kLocked;
    detail::lock_word_unlocked(state_, rt::WaitReason::kMutexLock, state);
}

} // namespace baton
