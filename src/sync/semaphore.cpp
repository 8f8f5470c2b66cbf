// SPDX-License-Identifier: Apache-2.0
//
// Semaphore: while somebody is queued the permits go to the first, and nobody else takes any; so
// they only change upwards then, except by who holds the queue.
#include "baton/semaphore.hpp"

#include "runtime/sema.hpp"

namespace baton {

namespace {

constexpr std::int64_t kWaiters = 1; // changed with the queue held
constexpr std::int64_t kOne = 2;

using Word = std::atomic<std::int64_t>;

/// Gives the permits to those first in line that they are enough for, and leaves them in `woken`.
void grant(Word& word, rt::SemaQueue& queue, rt::GQueue& woken) {
    if (queue.empty()) return; // who waited has given up: the word may be gone
    while (rt::SemaWaiter* w = queue.first()) {
        const std::int64_t wanted = static_cast<std::int64_t>(w->note) * kOne;
        // relaxed: the addition below confirms it.
        if (word.load(std::memory_order_relaxed) < wanted) break;
        if (!queue.take(w)) continue;
        // acq_rel: what was done before their release passes on to the waiter, and stays there for
        // who takes the rest.
        word.fetch_sub(wanted, std::memory_order_acq_rel);
        woken.push_back(w->g);
    }
    // relaxed: only a bit that the queue guards.
    if (queue.empty()) word.fetch_and(~kWaiters, std::memory_order_relaxed);
}

} // namespace

void detail::no_such_permits() noexcept {
    rt::fatal("Semaphore of, or asked for, fewer permits than none or more than max()");
}

detail::WaitEnd Semaphore::acquire_slow(std::ptrdiff_t n, const Until* until) {
    rt::must_park("Semaphore::acquire");
    rt::SemaWait turn(&state_, rt::WaitReason::kSemaphoreAcquire, until);
    std::int64_t state = state_.load(std::memory_order_relaxed); // relaxed: a CAS confirms it
    for (;;) {
        if (!(state & kWaiters) && state >= n * kOne) {
            // acquire: pairs with release. relaxed on failure: as above.
            if (state_.compare_exchange_weak(state, state - n * kOne, std::memory_order_acquire,
                                             std::memory_order_relaxed))
                return detail::WaitEnd::kDone;
            // relaxed: who releases sees it in the word that it changes.
        } else if (state_.compare_exchange_weak(state, state | kWaiters, std::memory_order_relaxed,
                                                std::memory_order_relaxed)) {
            break;
        }
    }
    turn.waiter().note = static_cast<std::uint64_t>(n);
    if (turn.park()) return detail::WaitEnd::kDone;
    // What was not enough for us may be for those behind.
    rt::GQueue woken;
    grant(state_, turn.queue(), woken);
    // relaxed: only a bit that the queue guards.
    if (turn.queue().empty()) state_.fetch_and(~kWaiters, std::memory_order_relaxed);
    turn.queue().unlock();
    rt::ready_all(woken);
    return turn.end();
}

void Semaphore::release_slow(std::int64_t before, std::ptrdiff_t n) {
    if (n < 0 || before > kFull - n * kOne)
        rt::fatal("Semaphore::release gives more permits than max(), or fewer than none: each "
                  "release should give what one acquire took");
    rt::GQueue woken;
    rt::Entry entry;
    rt::SemaQueue queue(&state_, rt::WaitReason::kSemaphoreAcquire);
    grant(state_, queue, woken);
    queue.unlock();
    rt::ready_all(woken);
}

} // namespace baton
