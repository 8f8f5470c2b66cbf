// SPDX-License-Identifier: Apache-2.0
//
// Barrier: the phase cannot change between who reads it and then arrives, for that arrival is one
// it waits for. Whoever ends it does not touch the barrier once the new number is there, only the
// queue of those that waited for it: the others may have destroyed it by then.
#include "baton/barrier.hpp"

#include "runtime/sema.hpp"

namespace baton::detail {

constexpr auto kRelaxed = std::memory_order_relaxed;

// relaxed: the caller's next arrival is missing, so it is the one it knows of.
std::uint64_t BarrierCore::phase() const noexcept { return phase_.load(kRelaxed); }

bool BarrierCore::arrive(std::ptrdiff_t n) {
    // release: what was done before is seen by who goes on. acquire: the last one passes it on.
    const std::ptrdiff_t left = n > 0 ? pending_.fetch_sub(n, std::memory_order_acq_rel) - n : -1;
    if (left < 0)
        rt::fatal("more arrivals at a Barrier than it expects in a phase: each participant arrives "
                  "once, and not again before the phase has ended");
    return left == 0;
}

// relaxed: read by the last one to arrive, whose acquire comes after the release of our arrival.
void BarrierCore::drop() noexcept { expected_.fetch_sub(1, kRelaxed); }

void BarrierCore::next_phase() noexcept {
    // relaxed, all three loads: nobody changes them now. The store too: who arrives next has seen
    // the new phase, by its release.
    pending_.store(expected_.load(kRelaxed), kRelaxed);
    const void* queue_of = &phase_;
    phase_.store(phase_.load(kRelaxed) + 1, std::memory_order_release);
    rt::GQueue woken;
    rt::Entry entry;
    rt::SemaQueue queue(queue_of, rt::WaitReason::kBarrierWait);
    while (rt::SemaWaiter* w = queue.pop()) woken.push_back(w->g);
    queue.unlock();
    rt::ready_all(woken);
}

WaitEnd BarrierCore::wait(std::uint64_t phase, const Until* until) const {
    // acquire: pairs with the release in next_phase.
    const auto over = [&] { return phase_.load(std::memory_order_acquire) != phase; };
    while (!over()) {
        rt::must_park("Barrier::wait");
        rt::SemaWait turn(&phase_, rt::WaitReason::kBarrierWait, until);
        // Looked at with the queue held: who ends the phase wakes those queued after that. One that
        // does so late may wake us in vain.
        if (over()) break;
        if (!turn.park()) return over() ? WaitEnd::kDone : turn.end();
    }
    return WaitEnd::kDone;
}

} // namespace baton::detail
