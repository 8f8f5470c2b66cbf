// SPDX-License-Identifier: Apache-2.0
//
// WaitGroup: a counter and the number of waiters in one word, so that the one who brings the
// counter to zero knows how many to wake.
#include <cstdint>

#include "baton/sync.hpp"
#include "runtime/sema.hpp"

namespace baton {

namespace {

constexpr std::int32_t counter_of(std::uint64_t state) {
    return static_cast<std::int32_t>(state >> 32);
}
constexpr std::uint32_t waiters_of(std::uint64_t state) {
    return static_cast<std::uint32_t>(state);
}

} // namespace

void WaitGroup::add(int n) noexcept {
    const auto delta = static_cast<std::uint64_t>(static_cast<std::int64_t>(n)) << 32;
    // release: what was done before done() is seen by who waits. acquire: the last one passes on to
    // the waiters, through the semaphore, what the others did.
    const std::uint64_t state = state_.fetch_add(delta, std::memory_order_acq_rel) + delta;
    const std::int32_t counter = counter_of(state);
    const std::uint32_t waiters = waiters_of(state);
    if (counter < 0)
        rt::fatal("negative WaitGroup counter: done() was called more often than add(1); "
                  "call add before the goroutine is started, done once in each");
    if (waiters == 0) return; // from here on it may be gone
    if (n > 0 && counter == n)
        rt::fatal("WaitGroup misuse: add from zero while others wait; call add before wait");
    if (counter > 0) return;
    // The counter is zero and there are waiters: nobody may call add until they have returned.
    // relaxed: no one changes the word now, and the semaphore orders what follows.
    if (state_.load(std::memory_order_relaxed) != state)
        rt::fatal("WaitGroup misuse: add while wait is returning; call add before wait");
    state_.store(0, std::memory_order_relaxed);
    for (std::uint32_t i = 0; i < waiters; i++) rt::semrelease(&sema_);
}

void WaitGroup::wait() {
    // acquire: pairs with the release of the last done(); relaxed would do where we park, as the
    // semaphore orders that.
    std::uint64_t state = state_.load(std::memory_order_acquire);
    do {
        if (counter_of(state) == 0) return;
        rt::must_park("WaitGroup::wait");
        // acquire on failure: as the load above. acq_rel on success is more than needed: the
        // waiter is seen by add because both change one word.
    } while (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel,
                                           std::memory_order_acquire));
    rt::semacquire(&sema_, false, rt::WaitReason::kWaitGroupWait);
}

} // namespace baton
