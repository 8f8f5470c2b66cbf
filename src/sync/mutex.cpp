// SPDX-License-Identifier: Apache-2.0
//
// Mutex: a lock word (lock_word.hpp) that is unlocked without a locked instruction until somebody
// first has to wait for it. Most mutexes never see that, and a locked instruction costs as much as
// all else in a lock and unlock.
//
// Such an unlock looks at the word's second byte and clears the first, in a restartable sequence
// (rseq_cs.hpp). A waiter sets bits in the first byte of a lock that is held, and they would be
// lost under a store that was on its way. So before anybody waits:
//
//     unlock                            share
//     ------                            -----
//     second byte set?  other path      (A) second byte |= kSharing
//     first byte = 0                        membarrier
//                                       (B) second byte |= kShared
//
// After the membarrier no sequence is on its way that had looked before (A): the kernel has every
// one of them start again, on all CPUs, or its store is seen. One that looks later finds the second
// byte set, and unlocks by a locked instruction; so do all from then on. Who finds kSharing without
// kShared does not know whether the membarrier is over, and does its own.
//
// That the lock is held at all, unlock learns from a byte that only holders use: to read what a
// locked instruction has just written costs half as much as another one.
//
// Threads without such sequences always take the locked instruction; and without membarrier no
// thread has them (assist::use_rseq).
//
// Rejected: a store and then a look for waiters, as in the runtime's lock (the mutex may be gone by
// then); a bit that is taken back when nobody waits (a membarrier at each contention: 16 us where
// it has to interrupt another CPU of a virtual machine).
#include "baton/mutex.hpp"

#include "arch/x86_64/rseq_cs.hpp"
#include "assist/ownership.hpp"
#include "kernel/membarrier.hpp"
#include "runtime/sema.hpp"
#include "sync/lock_word.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kSharing = 0x100;
constexpr std::uint32_t kShared = 0x200;

/// From here on the lock is unlocked by locked instructions. The caller wants it, so it is there.
void share(detail::LockWord& word) {
    // acquire: pairs with the release below: the membarrier is over.
    if (word.load(std::memory_order_acquire) & kShared) return;
    word.fetch_or(kSharing); // (A)
    if (assist::use_rseq) kernel::membarrier_rseq_cpu(-1);
    // release: pairs with the acquire above.
    word.fetch_or(kShared, std::memory_order_release); // (B)
}

} // namespace

static_assert(detail::kLocked == 1 && detail::kWaiters == 2 && detail::kWoken == 4 &&
              detail::kStarving == 8);

detail::WaitEnd Mutex::lock_slow(const Until* until) {
    for (int tries = 0; rt::can_spin(tries); tries++) {
        rt::spin();
        if (try_lock()) return detail::WaitEnd::kDone;
    }
    share(state_);
    const detail::WaitEnd end =
        detail::lock_word_lock(state_, rt::WaitReason::kMutexLock, until, "Mutex::lock");
    if (end == detail::WaitEnd::kDone) note_held();
    return end;
}

void Mutex::unlock() {
    const std::atomic_ref held(byte(kHeldByte));
    // relaxed, both: as in note_held.
    if (!held.load(std::memory_order_relaxed)) [[unlikely]]
        rt::fatal("unlock of unlocked mutex: each unlock needs a lock of its own before it; "
                  "std::lock_guard keeps them in pairs");
    held.store(0, std::memory_order_relaxed);
    const rt::M* m = rt::getm_or_null();
    if (!m || !arch::rseq_clear_unless(m->rseq, &byte(kLockByte), &byte(kSharedByte)))
        unlock_shared();
}

void Mutex::unlock_shared() {
    // release: pairs with the acquire of who locks next.
    const std::uint32_t state = state_.fetch_and(~detail::kLocked, std::memory_order_release);
    detail::lock_word_unlocked(state_, rt::WaitReason::kMutexLock, state & ~detail::kLocked);
}

} // namespace baton
