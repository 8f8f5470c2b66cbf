// SPDX-License-Identifier: Apache-2.0
#include "sync/countdown.hpp"

#include "runtime/sema.hpp"

namespace baton::detail {

WaitEnd countdown_wait(CountdownWord& word, const Until* until, rt::WaitReason reason,
                       const char* what) {
    // acquire: pairs with the release of the last addition; relaxed would do where we park, as the
    // queue orders that.
    std::uint64_t state = word.load(std::memory_order_acquire);
    if (counter_of(state) == 0) return WaitEnd::kDone;
    rt::must_park(what);
    rt::SemaWait turn(&word, reason, until);
    do {
        if (counter_of(state) == 0) return WaitEnd::kDone;
        // relaxed on success: who adds sees it, as both change one word. acquire on failure: as
        // the load above.
    } while (!word.compare_exchange_weak(state, state | kCountdownWaiters,
                                         std::memory_order_relaxed, std::memory_order_acquire));
    if (turn.park()) return WaitEnd::kDone;
    // relaxed: only a bit that the queue guards.
    if (turn.queue().empty()) word.fetch_and(~kCountdownWaiters, std::memory_order_relaxed);
    // acquire: as the load above. What can be had at once is.
    if (counter_of(word.load(std::memory_order_acquire)) == 0) return WaitEnd::kDone;
    return turn.end();
}

void countdown_wake(CountdownWord& word, rt::WaitReason reason) {
    rt::GQueue woken;
    rt::Entry entry;
    rt::SemaQueue queue(&word, reason);
    // Nobody is queued: they have given up, and the word may be gone. Else it is there, but may be
    // another's by now, that lies where the one counted down was. relaxed: ours is zero.
    if (queue.empty() || counter_of(word.load(std::memory_order_relaxed)) != 0) return;
    while (rt::SemaWaiter* w = queue.pop()) woken.push_back(w->g);
    // relaxed: only a bit that the queue guards. Who gave up has yet to get the queue.
    word.fetch_and(~kCountdownWaiters, std::memory_order_relaxed);
    queue.unlock();
    rt::ready_all(woken);
}

} // namespace baton::detail
