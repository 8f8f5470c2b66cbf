// SPDX-License-Identifier: Apache-2.0
#include "runtime/lock.hpp"

#include <immintrin.h>

#include <cstdio>
#include <cstdlib>

#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "kernel/futex.hpp"
#include "kernel/membarrier.hpp"
#include "runtime/entry.hpp"

namespace baton::rt {

namespace {
// How often to look, and for how long to stay away in between: long enough for the holder to take
// the lock many times over meanwhile. If both had it in turns its cache line would go to and fro
// each time, which costs more than all that is done under it.
constexpr int kSpins = 4;
constexpr int kPauses = 30;
// How long a sleeper may be overlooked where there is no membarrier.
constexpr std::int64_t kUnfencedNs = 1'000'000;
} // namespace

bool Lock::spin_for_it() noexcept {
    for (int i = 0; i < kSpins; i++) {
        for (int k = 0; k < kPauses; k++) _mm_pause();
        // relaxed: looking only; try_to_hold confirms it.
        if (held().load(std::memory_order_relaxed) == 0 && try_to_hold()) return true;
    }
    return false;
}

void Lock::lock_slow() noexcept {
    if (spin_for_it()) return;
    const bool fenced = kernel::features().membarrier_rseq;
    // seq_cst, this and the subtraction: who is last sees that it is.
    nsleep_.fetch_add(1, std::memory_order_seq_cst);
    for (;;) {
        sleeping().store(1, std::memory_order_seq_cst); // (C)
        if (fenced) kernel::membarrier_rseq_cpu(-1);
        if (try_to_hold()) break; // (D)
        (void)kernel::futex_wait(futex(), kHeldSlept,
                                 fenced ? kernel::kForever : kernel::nanotime() + kUnfencedNs);
        if (spin_for_it()) break;
    }
    // relaxed: our own unlock is to see it.
    if (nsleep_.fetch_sub(1, std::memory_order_seq_cst) > 1)
        sleeping().store(1, std::memory_order_relaxed);
}

void Lock::wake() noexcept {
    // relaxed: it tells only who of several calls the kernel, which orders the wake.
    if (sleeping().exchange(0, std::memory_order_relaxed) != 0) wake_address();
}

void Lock::unlock_last() noexcept {
    if (const M* m = getm_or_null()) return unlock_last(m->rseq);
    note_released();
    swap_out();
}

void Lock::swap_out() noexcept {
    // release: pairs with the acquire in lock.
    if (std::atomic_ref(word_.all).exchange(0, std::memory_order_release) != kHeld) wake_address();
}

void Lock::wake_address() noexcept { kernel::futex_wake(futex(), 1); }

const std::atomic<std::uint32_t>* Lock::futex() const noexcept {
    return reinterpret_cast<const std::atomic<std::uint32_t>*>(&word_.all);
}

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
    Held& h = rt::held();
    if (h.n == 0) return;
    const auto last = h.rank[h.n - 1];
    const auto mine = static_cast<std::uint8_t>(rank_);
    const bool same_ok = rank_ == Rank::kChan;
    if (mine > last || (same_ok && mine == last)) return;
    fatal("lock order: rank %d wanted while rank %d is held", int{mine}, int{last});
}

void Lock::note_held() const noexcept {
    Held& h = rt::held();
    if (h.n == kDepthMax) fatal("lock order: more than %d locks held", kDepthMax);
    h.rank[h.n++] = static_cast<std::uint8_t>(rank_);
}

void Lock::note_released() const noexcept {
    Held& h = rt::held();
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
