// SPDX-License-Identifier: Apache-2.0
#include "baton/mutex.hpp"

#include "sync/lock_word.hpp"

namespace baton {

static_assert(detail::kLocked == 1 && detail::kWaiters == 2 && detail::kWoken == 4 &&
              detail::kStarving == 8);

detail::WaitEnd Mutex::lock_slow(const Until* until) {
    return detail::lock_word_lock(state_, rt::WaitReason::kMutexLock, until, "Mutex::lock");
}

void Mutex::unlock_slow(std::uint32_t left) {
    if (!((left + detail::kLocked) & detail::kLocked))
        rt::fatal("unlock of unlocked mutex: each unlock needs a lock of its own before it; "
                  "std::lock_guard keeps them in pairs");
    detail::lock_word_unlocked(state_, rt::WaitReason::kMutexLock, left);
}

} // namespace baton
