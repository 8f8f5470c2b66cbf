// SPDX-License-Identifier: Apache-2.0
//
// Once: a word that says whether the call has returned, or is going on, and whether somebody waits.
#include "baton/once.hpp"

#include "runtime/sema.hpp"

namespace baton {

namespace {

constexpr std::uint32_t kDone = 1;
constexpr std::uint32_t kRunning = 2;
constexpr std::uint32_t kWaiters = 4; // changed with the queue held

constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

Once::Turn Once::begin(const Until* until) {
    static_assert(kDone == kIsDone, "what the header looks for");
    for (;;) {
        std::uint32_t state = 0;
        // acquire, both: pairs with the release in finish, of a call that returned or one that
        // threw.
        if (state_.compare_exchange_strong(state, kRunning, kAcquire, kAcquire)) return Turn::kMine;
        if (state == kDone) return Turn::kDone;
        rt::must_park("Once::call");
        rt::SemaWait turn(&state_, rt::WaitReason::kOnceDo, until);
        // relaxed, both: a CAS confirms it, and who finishes sees it in the word that it changes.
        state = state_.load(kRelaxed);
        if (!(state & kRunning)) continue;
        if (!state_.compare_exchange_strong(state, state | kWaiters, kRelaxed, kRelaxed)) continue;
        if (turn.park()) continue;
        // relaxed: only a bit that the queue guards.
        if (turn.queue().empty()) state_.fetch_and(~kWaiters, kRelaxed);
        return turn.end() == detail::WaitEnd::kTimedOut ? Turn::kTimedOut : Turn::kStopped;
    }
}

void Once::finish(bool returned) noexcept {
    const std::uint32_t final = returned ? kDone : 0;
    std::uint32_t running = kRunning;
    // release: pairs with the acquire in done and begin. relaxed on failure: nothing is read.
    if (state_.compare_exchange_strong(running, final, kRelease, kRelaxed)) return;
    rt::GQueue woken;
    rt::Entry entry;
    rt::SemaQueue queue(&state_, rt::WaitReason::kOnceDo);
    while (rt::SemaWaiter* w = queue.pop()) woken.push_back(w->g);
    state_.store(final, kRelease); // release: as above. Those woken have not seen it yet
    queue.unlock();
    rt::ready_all(woken);
}

} // namespace baton
