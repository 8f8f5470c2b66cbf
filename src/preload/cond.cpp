// SPDX-License-Identifier: Apache-2.0
//
// Condition variables. A goroutine waits in a queue of the runtime's by the address of the object,
// plain threads in libc's way; so a signal looks into both.
//
//     waiter, the mutex locked          signaller
//     seen = number of signals          number of signals += 1
//     waiting += 1                      wakes one that is parked
//     unlocks the mutex                 none, or there may be plain threads too: libc's signal
//     parks, unless the number moved
//
// Both the number and the count go by a hash of the address: of a signal for another object a
// waiter may wake for nothing, as POSIX allows.
#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr auto kSeqCst = std::memory_order_seq_cst;

Waiters waiters;
Waiters signals; // how many there have been

bool is_shared(const pthread_cond_t* c) { return (c->__data.__wrefs & 1) != 0; }
clockid_t clock_of(const pthread_cond_t* c) {
    return c->__data.__wrefs & 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
}

struct Seen {
    std::atomic<std::uint32_t>& number;
    std::uint32_t value;
};
int unmoved(void* arg) {
    const auto* seen = static_cast<const Seen*>(arg);
    return seen->number.load(kSeqCst) == seen->value;
}

int wait(pthread_cond_t* c, pthread_mutex_t* m, std::int64_t deadline) {
    Seen seen{signals.of(c), signals.of(c).load(kSeqCst)};
    waiters.of(c).fetch_add(1, kSeqCst);
    const int refused = unlock_mutex(m);
    const int end = refused ? 0 : rt->park(c, unmoved, &seen, deadline);
    waiters.of(c).fetch_sub(1, kSeqCst);
    if (refused) return refused;
    const int rc = lock_mutex(m, kNever);
    return rc == 0 && end == ETIMEDOUT ? ETIMEDOUT : rc;
}

/// libc's own wait, by `block`. What of the mutex libc would not know it is told meanwhile.
template <class Block>
int wait_in_libc(pthread_mutex_t* m, Block block) {
    const bool lent = lend(m);
    Bracket bracket;
    const int rc = block();
    if (lent) take_back(m);
    return rc;
}

bool can_park(const pthread_cond_t* c, const pthread_mutex_t* m, const void* caller) {
    return may_park(kGroup_locks, caller) && !is_shared(c) && !is_threads(m);
}

int wait_on_m(pthread_cond_t* c, pthread_mutex_t* m, const void* caller) {
    if (can_park(c, m, caller)) return wait(c, m, kNever);
    if (!on_goroutine(kGroup_locks, caller)) return real_pthread_cond_wait()(c, m);
    return wait_in_libc(m, [&] { return real_pthread_cond_wait()(c, m); });
}

template <class Block>
int wait_until(pthread_cond_t* c, pthread_mutex_t* m, clockid_t clock, const timespec* until,
               const void* caller, Block block) {
    std::int64_t deadline = 0;
    if (can_park(c, m, caller)) {
        if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) return EINVAL;
        return deadline_at(clock, until, &deadline) ? wait(c, m, deadline) : EINVAL;
    }
    return on_goroutine(kGroup_locks, caller) ? wait_in_libc(m, block) : block();
}

void wake(pthread_cond_t* c, bool all) {
    signals.of(c).fetch_add(1, kSeqCst);
    const int woken = rt->wake(c, all ? INT32_MAX : 1);
    // libc's count of those who wait, or are about to leave.
    if (all || woken == 0 || c->__data.__wrefs >> 3 != 0)
        all ? real_pthread_cond_broadcast()(c) : real_pthread_cond_signal()(c);
}

pthread_cond_t* of(cnd_t* c) { return reinterpret_cast<pthread_cond_t*>(c); }
pthread_mutex_t* of(mtx_t* m) { return reinterpret_cast<pthread_mutex_t*>(m); }

} // namespace

int t_pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m, const void* caller) {
    if (on_m()) return wait_on_m(c, m, caller);
    return real_pthread_cond_wait()(c, m);
}

int t_pthread_cond_timedwait(pthread_cond_t* c, pthread_mutex_t* m, const timespec* until,
                             const void* caller) {
    if (on_m())
        return wait_until(c, m, clock_of(c), until, caller,
                          [&] { return real_pthread_cond_timedwait()(c, m, until); });
    return real_pthread_cond_timedwait()(c, m, until);
}

int t_pthread_cond_clockwait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t clock,
                             const timespec* until, const void* caller) {
    if (on_m())
        return wait_until(c, m, clock, until, caller,
                          [&] { return real_pthread_cond_clockwait()(c, m, clock, until); });
    return real_pthread_cond_clockwait()(c, m, clock, until);
}

int t_pthread_cond_signal(pthread_cond_t* c, const void*) {
    if (!waiters.any(c)) return real_pthread_cond_signal()(c);
    wake(c, false);
    return 0;
}

int t_pthread_cond_broadcast(pthread_cond_t* c, const void*) {
    if (!waiters.any(c)) return real_pthread_cond_broadcast()(c);
    wake(c, true);
    return 0;
}

int t_cnd_wait(cnd_t* c, mtx_t* m, const void* caller) {
    if (on_m()) return thrd_result(wait_on_m(of(c), of(m), caller));
    return real_cnd_wait()(c, m);
}

int t_cnd_timedwait(cnd_t* c, mtx_t* m, const timespec* until, const void* caller) {
    if (on_m()) return thrd_result(t_pthread_cond_timedwait(of(c), of(m), until, caller));
    return real_cnd_timedwait()(c, m, until);
}

int t_cnd_signal(cnd_t* c, const void* caller) {
    return thrd_result(t_pthread_cond_signal(of(c), caller));
}
int t_cnd_broadcast(cnd_t* c, const void* caller) {
    return thrd_result(t_pthread_cond_broadcast(of(c), caller));
}

} // namespace baton::preload
