// SPDX-License-Identifier: Apache-2.0
#include "baton/latch.hpp"

#include "sync/countdown.hpp"

namespace baton {

void Latch::count_down(std::ptrdiff_t n) {
    const bool in_range = n >= 0 && n <= max();
    const std::uint64_t state =
        in_range ? detail::countdown_add(state_, -static_cast<std::int32_t>(n)) : 0;
    if (!in_range || detail::counter_of(state) < 0)
        rt::fatal("Latch counted down below zero: it is to be counted down as often as the number "
                  "it was made with");
    if (detail::counter_of(state) == 0 && (state & detail::kCountdownWaiters))
        detail::countdown_wake(state_, rt::WaitReason::kLatchWait);
}

detail::WaitEnd Latch::wait_within(const Until* until) const {
    return detail::countdown_wait(state_, until, rt::WaitReason::kLatchWait, "Latch::wait");
}

} // namespace baton
