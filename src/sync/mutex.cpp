// SPDX-License-Identifier: Apache-2.0
#include "baton/mutex.hpp"

#include "sync/lock_word.hpp"

namespace baton {

static_assert(detail::kLocked == 1, "what the header locks with");

detail::WaitEnd Mutex::lock_slow(const Until* until) {
    return detail::lock_word_lock(state_, until, rt::WaitReason::kMutexLock, "Mutex::lock");
}

void Mutex::unlock_slow() {
    // relaxed: the caller holds the lock, or has not the right to be here.
    if (!(state_.load(std::memory_order_relaxed) & detail::kLocked))
        rt::fatal("unlock of unlocked mutex: each unlock needs a lock of its own before it; "
                  "std::lock_guard keeps them in pairs");
    (void)detail::lock_word_unlock(state_);
}

} // namespace baton
