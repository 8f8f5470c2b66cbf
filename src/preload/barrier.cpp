// SPDX-License-Identifier: Apache-2.0
//
// Barriers. Plain threads go by libc's code, in the same words; whoever of them comes through looks
// for goroutines that are parked there.
//
// A barrier counts who has arrived, who has left, and who of the arrived may leave: a multiple of
// its count, which the last of a round raises. All three begin anew, by the last to leave, before
// they grow too large. A goroutine does in these words what libc does, but parks; where a libc has
// others (note_barriers) it blocks.
#include <climits>
#include <linux/futex.h>

#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;
constexpr auto kSeqCst = std::memory_order_seq_cst;
constexpr std::int64_t kLookNs = 1'000'000;

Waiters waiters;
bool known = false; // libc's barriers are as below

// As glibc's own.
struct Barrier {
    unsigned arrived;
    unsigned may_leave;
    unsigned count;
    int shared;
    unsigned left;
};
static_assert(sizeof(Barrier) <= sizeof(pthread_barrier_t));

void wake_futex(unsigned* word) {
    (void)raw_syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX);
}

/// Where the words begin anew.
unsigned most_of(unsigned count) { return UINT_MAX / 2 - UINT_MAX / 2 % count; }

/// The caller's place among those that have arrived.
unsigned arrive(Barrier* b, unsigned most) {
    for (;;) {
        // acq_rel: the last of a round sees what the others did before; and pairs with the reset.
        const unsigned place =
            std::atomic_ref(b->arrived).fetch_add(1, std::memory_order_acq_rel) + 1;
        if (place <= most) return place;
        // The last to leave is about to begin anew; those who came too early come again.
        while (std::atomic_ref(b->arrived).load(kAcquire) > most) // acquire: pairs with the reset
            rt->sleep_until(deadline_in(kLookNs));
    }
}

int leave(Barrier* b, unsigned place, unsigned most) {
    const unsigned count = b->count;
    // acq_rel: all that was done with the barrier is done before it begins anew, or is destroyed.
    if (std::atomic_ref(b->left).fetch_add(1, std::memory_order_acq_rel) + 1 == most) {
        // relaxed: nobody looks at these before they see the release below.
        std::atomic_ref(b->may_leave).store(0, std::memory_order_relaxed);
        std::atomic_ref(b->left).store(0, std::memory_order_relaxed); // relaxed: as above
        std::atomic_ref(b->arrived).store(0, kRelease);               // pairs with arrive
        wake_futex(&b->arrived);
    }
    return place % count == 0 ? PTHREAD_BARRIER_SERIAL_THREAD : 0;
}

int wait_at(Barrier* b) {
    const unsigned most = most_of(b->count);
    const unsigned place = arrive(b, most);
    const std::atomic_ref may_leave(b->may_leave);
    // seq_cst, all: (A) and (B) in locks.hpp, and what comes after sees what came before.
    unsigned open = may_leave.load(kSeqCst);
    while (open + b->count <= place) {
        if (!may_leave.compare_exchange_weak(open, place - place % b->count, kSeqCst)) continue;
        wake_futex(&b->may_leave);
        if (waiters.any(b)) rt->wake(b, INT_MAX);
        open = may_leave.load(kSeqCst);
    }
    if (place > open)
        (void)park_until(waiters, b, kNever, [&] { return may_leave.load(kSeqCst) >= place; });
    return leave(b, place, most);
}

} // namespace

void note_barriers() {
    pthread_barrier_t sample;
    ::pthread_barrier_init(&sample, nullptr, 1);
    (void)real_pthread_barrier_wait()(&sample);
    const auto* b = reinterpret_cast<const Barrier*>(&sample);
    known = b->arrived == 1 && b->may_leave == 1 && b->count == 1 && !b->shared && b->left == 1;
    ::pthread_barrier_destroy(&sample);
}

int t_pthread_barrier_wait(pthread_barrier_t* barrier, const void* caller) {
    auto* b = reinterpret_cast<Barrier*>(barrier);
    if (on_m() && may_park(kGroup_locks, caller))
        return b->shared || !known ? blocking(real_pthread_barrier_wait(), barrier) : wait_at(b);
    const int rc = real_pthread_barrier_wait()(barrier);
    // The barrier may be gone; its address is all that is looked at.
    if (waiters.any(b)) rt->wake(b, INT_MAX);
    return rc;
}

} // namespace baton::preload
