// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <linux/futex.h>

#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr auto kSeqCst = std::memory_order_seq_cst;
constexpr auto kRelaxed = std::memory_order_relaxed; // each use says why
// Kinds, as libc has them: two bits, and what is beside them.
constexpr int kRecursive = 1, kErrorCheck = 2;
constexpr int kThreads = 16 | 32 | 64 | 128 | 256; // robust, PI, PP, process-shared, elided
constexpr int kSpins = 100;
// Who has just taken it says so at once, unless the kernel takes its CPU between the two.
constexpr int kMoments = 20;
constexpr std::int64_t kMomentNs = 100'000;

Waiters waiters;
int forker = 0; // marks, both
int heir = 0;

std::atomic_ref<int> word(pthread_mutex_t* m) { return std::atomic_ref(m->__data.__lock); }
std::atomic_ref<int> owner(pthread_mutex_t* m) { return std::atomic_ref(m->__data.__owner); }
int type(const pthread_mutex_t* m) { return m->__data.__kind & 3; }

bool grab(pthread_mutex_t* m) {
    int free = 0;
    // seq_cst: may be (A)'s look. relaxed on failure: it is somebody's.
    return word(m).load(kRelaxed) == 0 &&
           word(m).compare_exchange_strong(free, 1, kSeqCst, kRelaxed); // relaxed: as above
}

/// The caller has it. Said at once: to others a lock of nobody's may be a thread's, and they block.
void own(pthread_mutex_t* m) {
    m->__data.__count = 1;
    m->__data.__nusers++;
    // relaxed: who takes a stale one for it asks again.
    owner(m).store(own_mark(), kRelaxed);
}

bool take(pthread_mutex_t* m) {
    if (!grab(m)) return false;
    own(m);
    return true;
}

/// libc's way, which leaves the word at 2: who unlocks wakes one more than may be there.
int block(pthread_mutex_t* m, std::int64_t deadline) {
    const timespec t = to_timespec(deadline);
    Bracket bracket;
    // acquire: pairs with the unlock.
    while (word(m).exchange(2, std::memory_order_acquire) != 0) {
        const long rc =
            raw_syscall(SYS_futex, &m->__data.__lock, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 2,
                        deadline == kNever ? nullptr : &t, nullptr, -1);
        if (rc == -ETIMEDOUT) return ETIMEDOUT;
    }
    own(m); // before the bracket's end, which may have to wait for a P
    return 0;
}

/// Parks while the owner is a goroutine, as `by` says; if it is not known yet, for a moment. 0: the
/// mutex is worth another look; or ETIMEDOUT.
int wait_for_owner(pthread_mutex_t* m, int by, std::int64_t deadline) {
    const std::int64_t moment = by ? kNever : deadline_in(kMomentNs);
    const int err = park_until(waiters, m, std::min(deadline, moment), [m, by] {
        const int now = owner(m).load(kSeqCst);
        return word(m).load(kSeqCst) == 0 || (by ? !is_marked(now) : now != 0);
    });
    return moment < deadline ? 0 : err;
}

int lock_word(pthread_mutex_t* m, std::int64_t deadline) {
    for (int i = 0; i < kSpins; i++) {
        if (take(m)) return 0;
        __builtin_ia32_pause();
    }
    const bool parks = rt->place() == BATON_MAY_PARK;
    for (int moments = 0;;) {
        if (take(m)) return 0;
        const int by = owner(m).load(kSeqCst); // seq_cst: a look, which wait_for_owner confirms
        const bool waits = by ? is_marked(by) : moments++ < kMoments;
        if (!parks || !waits) return block(m, deadline);
        if (const int err = wait_for_owner(m, by, deadline)) return err;
    }
}

/// Locked by the caller already?
bool is_own(pthread_mutex_t* m) {
    const int mine = on_m() && rt->place() != BATON_ELSEWHERE ? own_mark() : heir;
    return mine != 0 && owner(m).load(kRelaxed) == mine; // relaxed: nobody else writes that
}

/// What the kind has to say before anything else. -1: nothing.
int by_kind(pthread_mutex_t* m, int held) {
    const int t = type(m);
    if ((t != kRecursive && t != kErrorCheck) || !is_own(m)) return -1;
    if (t == kErrorCheck) return held;
    if (m->__data.__count + 1 == 0) return EAGAIN;
    m->__data.__count++;
    return 0;
}

template <class F>
int pinned(F lock) {
    rt->pin();
    const int rc = lock();
    if (rc != 0 && rc != EOWNERDEAD) rt->unpin();
    return rc;
}

int unlock_marked(pthread_mutex_t* m) {
    const int t = type(m);
    if (t == kRecursive || t == kErrorCheck) {
        if (!is_own(m)) return EPERM;
        if (t == kRecursive && --m->__data.__count != 0) return 0;
    }
    m->__data.__nusers--;
    owner(m).store(0, kSeqCst); // (B)
    const int old = word(m).exchange(0, kSeqCst);
    // It may be gone from here on.
    if (old > 1)
        (void)raw_syscall(SYS_futex, &m->__data.__lock, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    if (waiters.any(m)) rt->wake(m, 1);
    return 0;
}

[[gnu::noinline]] int unlock_threads(pthread_mutex_t* m, const void* caller) {
    const int rc = real_pthread_mutex_unlock()(m);
    if (rc == 0 && on_goroutine(kGroup_locks, caller)) rt->unpin();
    return rc;
}

[[gnu::always_inline]] inline int unlock(pthread_mutex_t* m, const void* caller) {
    if (is_marked(owner(m).load(kRelaxed))) [[unlikely]] // relaxed: it is ours, so it stays
        return unlock_marked(m);
    if ((m->__data.__kind & kThreads) && on_m()) [[unlikely]]
        return unlock_threads(m, caller);
    return real_pthread_mutex_unlock()(m);
}

pthread_mutex_t* of(mtx_t* m) { return reinterpret_cast<pthread_mutex_t*>(m); }

} // namespace

bool deadline_at(clockid_t clock, const timespec* t, std::int64_t* deadline) {
    if (t->tv_nsec < 0 || t->tv_nsec >= kNsPerS) return false;
    *deadline = t->tv_sec < 0 ? 1 : to_ns(*t);
    if (clock != CLOCK_MONOTONIC && *deadline != kNever) {
        const std::int64_t left = *deadline - now_ns(clock);
        *deadline = left > 0 ? deadline_in(left) : 1;
    }
    return true;
}

bool is_threads(const pthread_mutex_t* m) { return (m->__data.__kind & kThreads) != 0; }

int lock_mutex(pthread_mutex_t* m, std::int64_t deadline) {
    if (const int rc = by_kind(m, EDEADLK); rc >= 0) return rc;
    return take(m) ? 0 : lock_word(m, deadline);
}

int unlock_mutex(pthread_mutex_t* m) {
    return is_marked(owner(m).load(kRelaxed)) // relaxed: as in unlock
               ? unlock_marked(m)
               : real_pthread_mutex_unlock()(m);
}

bool lend(pthread_mutex_t* m) {
    if (!is_marked(owner(m).load(kRelaxed))) return false; // relaxed: as in unlock
    owner(m).store(own_tid(), kSeqCst);                    // (B): to those parked it is a thread's
    if (waiters.any(m)) rt->wake(m, INT32_MAX);
    return true;
}

void take_back(pthread_mutex_t* m) { owner(m).store(own_mark(), kRelaxed); } // relaxed: as in own

void note_forker() { forker = on_m() && rt->place() != BATON_ELSEWHERE ? own_mark() : 0; }
void inherit_locks() { heir = forker; }

// ---- the hooks ----

int g_pthread_mutex_lock(pthread_mutex_t* m) {
    if (is_threads(m)) return pinned([&] { return blocking(real_pthread_mutex_lock(), m); });
    return lock_mutex(m, kNever);
}

int g_pthread_mutex_trylock(pthread_mutex_t* m) {
    if (is_threads(m)) return pinned([&] { return real_pthread_mutex_trylock()(m); });
    if (const int rc = by_kind(m, EBUSY); rc >= 0) return rc;
    return take(m) ? 0 : EBUSY;
}

int g_pthread_mutex_clocklock(pthread_mutex_t* m, clockid_t clock, const timespec* until) {
    if (is_threads(m))
        return pinned([&] { return blocking(real_pthread_mutex_clocklock(), m, clock, until); });
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) return EINVAL;
    if (const int rc = by_kind(m, EDEADLK); rc >= 0) return rc;
    std::int64_t deadline = 0;
    if (take(m)) return 0;
    return deadline_at(clock, until, &deadline) ? lock_mutex(m, deadline) : EINVAL;
}

int g_pthread_mutex_timedlock(pthread_mutex_t* m, const timespec* until) {
    return g_pthread_mutex_clocklock(m, CLOCK_REALTIME, until);
}

int t_pthread_mutex_unlock(pthread_mutex_t* m, const void* caller) { return unlock(m, caller); }
int t___pthread_mutex_unlock(pthread_mutex_t* m, const void* caller) { return unlock(m, caller); }

int thrd_result(int err) {
    switch (err) {
    case 0:
        return thrd_success;
    case EBUSY:
        return thrd_busy;
    case ENOMEM:
        return thrd_nomem;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}

int g_mtx_lock(mtx_t* m) { return thrd_result(g_pthread_mutex_lock(of(m))); }
int g_mtx_trylock(mtx_t* m) { return thrd_result(g_pthread_mutex_trylock(of(m))); }
int g_mtx_timedlock(mtx_t* m, const timespec* until) {
    return thrd_result(g_pthread_mutex_timedlock(of(m), until));
}
int t_mtx_unlock(mtx_t* m, const void* caller) { return thrd_result(unlock(of(m), caller)); }

} // namespace baton::preload
