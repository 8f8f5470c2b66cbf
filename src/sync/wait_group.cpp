// SPDX-License-Identifier: Apache-2.0
#include "baton/wait_group.hpp"

#include "sync/countdown.hpp"

namespace baton {

void WaitGroup::add(int n) noexcept {
    const std::uint64_t state = detail::countdown_add(state_, n);
    const std::int32_t counter = detail::counter_of(state);
    if (counter < 0)
        rt::fatal("negative WaitGroup counter: done() was called more often than add(1); "
                  "call add before the goroutine is started, done once in each");
    if (!(state & detail::kCountdownWaiters)) return; // from here on it may be gone
    if (n > 0 && counter == n)
        rt::fatal("WaitGroup misuse: add from zero while others wait; call add before wait");
    if (counter == 0) detail::countdown_wake(state_, rt::WaitReason::kWaitGroupWait);
}

detail::WaitEnd WaitGroup::wait_within(const Until* until) {
    return detail::countdown_wait(state_, until, rt::WaitReason::kWaitGroupWait, "WaitGroup::wait");
}

} // namespace baton
