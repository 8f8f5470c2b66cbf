// SPDX-License-Identifier: Apache-2.0
#include "runtime/lock.hpp"

#include <immintrin.h>

#include <cstdio>
#include <cstdlib>

#include "kernel/futex.hpp"
#include "runtime/entry.hpp"

namespace baton::rt {

namespace {
// Long enough for the sections these locks guard, short against a futex call.
constexpr int kSpins = 40;
} // namespace

void Lock::lock_slow() noexcept {
    for (int i = 0; i < kSpins; i++) {
        _mm_pause();
        std::uint32_t free = 0;
        // acquire: pairs with the release in unlock. relaxed: looking only.
        if (word_.load(std::memory_order_relaxed) == 0 &&
            word_.compare_exchange_strong(free, 1, std::memory_order_acquire,
                                          std::memory_order_relaxed))
            return;
    }
    // acquire: as above. From now on the word says that somebody sleeps, so unlock will wake us.
    while (word_.exchange(2, std::memory_order_acquire) != 0) (void)kernel::futex_wait(&word_, 2);
}

void Lock::wake() noexcept { kernel::futex_wake(&word_, 1); }

#ifdef BATON_LOCKRANK

namespace {

constexpr int kDepthMax = 256; // a select holds one for each of its channels
struct Held {
    int n = 0;
    std::uint8_t rank[kDepthMax];
};
// Noinline: a G changes threads, and this must be the present thread's.
__attribute__((noinline)) Held& held() {
    static thread_local Held h;
    Held* p = &h;
    asm volatile("" : "+r"(p));
    return *p;
}

} // namespace

void Lock::check_rank() const noexcept {
    const M* m = getm_or_null();
    if (m && m->curg && in_gcode(m))
        fatal("rank %d wanted outside the runtime: an Entry is missing", static_cast<int>(rank_));
    Held& h = held();
    if (h.n == 0) return;
    const auto last = h.rank[h.n - 1];
    const auto mine = static_cast<std::uint8_t>(rank_);
    const bool same_ok = rank_ == Rank::kChan;
    if (mine > last || (same_ok && mine == last)) return;
    fatal("lock order: rank %d wanted while rank %d is held", int{mine}, int{last});
}

void Lock::note_held() const noexcept {
    Held& h = held();
    if (h.n == kDepthMax) fatal("lock order: more than %d locks held", kDepthMax);
    h.rank[h.n++] = static_cast<std::uint8_t>(rank_);
}

void Lock::note_released() const noexcept {
    Held& h = held();
    for (int i = h.n - 1; i >= 0; i--) {
        if (h.rank[i] != static_cast<std::uint8_t>(rank_)) continue;
        for (; i < h.n - 1; i++) h.rank[i] = h.rank[i + 1];
        h.n--;
        return;
    }
    fatal("lock order: rank %d released but not held", static_cast<int>(rank_));
}

#endif

} // namespace baton::rt
