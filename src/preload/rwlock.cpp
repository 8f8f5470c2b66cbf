// SPDX-License-Identifier: Apache-2.0
//
// Read-write locks and semaphores: a goroutine tries, and parks if that fails; every thread's
// unlock and post looks for one that is parked. They change the object by a locked instruction
// before they look, so on x86 the look is not taken too early, as (B) in locks.hpp.
//
// A read-write lock knows its writer by the number of the thread, and unlocks it for reading if
// that is not the caller's. So a goroutine that writes is marked there, and the mark is replaced by
// the thread at hand just before libc unlocks: no goroutine changes threads between the two.
//
// A post in a signal handler that has interrupted the runtime cannot wake a goroutine.
#include <cstring>

#include <dlfcn.h>
#include <link.h>

#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed; // each use says why

// So long and so often a goroutine yields its CPU to who has a lock.
constexpr std::int64_t kYieldNs = 1'000'000;
constexpr int kYields = 100;

Waiters lock_waiters;
Waiters semaphore_waiters;
constinit thread_local int tid = 0;

std::atomic_ref<int> writer(pthread_rwlock_t* l) { return std::atomic_ref(l->__data.__cur_writer); }

/// Writers first, or other processes': libc keeps count of who waits.
bool is_libcs(const pthread_rwlock_t* l) {
    return l->__data.__shared != 0 || l->__data.__flags != 0 || rt->place() != BATON_MAY_PARK;
}

/// relaxed: nobody else writes that.
bool is_writer(pthread_rwlock_t* l) { return writer(l).load(kRelaxed) == own_mark(); }

int note_writer(pthread_rwlock_t* l, int rc) {
    if (rc == 0) writer(l).store(own_mark(), kRelaxed); // relaxed: as libc's
    return rc;
}

/// OpenSSL keeps what blinds a private key with the thread that made it, and locks between one use
/// and the next: no other goroutine may come to its thread meanwhile, nor it go on on another one.
/// So there the thread waits. Not announced: who comes back from that may be moved as well.
bool is_openssls(const void* caller) {
    dl_find_object object{};
    return ::_dl_find_object(const_cast<void*>(caller), &object) == 0 &&
           std::strstr(object.dlfo_link_map->l_name, "/libcrypto.so") != nullptr;
}

/// `attempt` until it is anything but busy.
template <class Attempt>
int lock(pthread_rwlock_t* l, clockid_t clock, const timespec* until, Attempt attempt) {
    int rc = attempt(l);
    if (rc != EBUSY) return rc;
    std::int64_t deadline = kNever;
    if (until && !deadline_at(clock, until, &deadline)) return EINVAL;
    const int end = park_until(lock_waiters, l, deadline, [&] {
        rc = attempt(l);
        return rc != EBUSY;
    });
    return end == 0 ? rc : end;
}

/// Without a limit; `real` waits in libc.
template <class Attempt, class Real>
int lock(pthread_rwlock_t* l, const void* caller, Attempt attempt, Real real) {
    int rc = attempt(l);
    if (rc != EBUSY) return rc;
    if (!is_openssls(caller)) return lock(l, CLOCK_MONOTONIC, nullptr, attempt);
    // Each that blocks makes for a thread more; who has the lock mostly needs but a CPU for a
    // moment. But beside other processes a yield may last for all their turns, with the P kept
    // that who has the lock may be waiting for.
    const std::int64_t end = deadline_in(kYieldNs);
    for (int i = 0; rc == EBUSY && i < kYields && now_ns() < end; i++) {
        (void)raw_syscall(SYS_sched_yield);
        rc = attempt(l);
    }
    return rc == EBUSY ? real(l) : rc;
}

int unlock(pthread_rwlock_t* l) {
    if (is_marked(writer(l).load(kRelaxed))) // relaxed: then it is ours
        writer(l).store(own_tid(), kRelaxed);
    const int rc = real_pthread_rwlock_unlock()(l);
    if (lock_waiters.any(l)) rt->wake(l, INT32_MAX);
    return rc;
}

int try_read(pthread_rwlock_t* l) { return ::pthread_rwlock_tryrdlock(l); }
int try_write(pthread_rwlock_t* l) { return real_pthread_rwlock_trywrlock()(l); }

bool known(clockid_t clock) { return clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME; }

// As in glibc's new_sem: the count, the waiters, and whether another process may use it.
bool is_shared(const sem_t* s) { return reinterpret_cast<const int*>(s)[2] != 0; }

int sem_wait_until(sem_t* s, clockid_t clock, const timespec* until) {
    const auto attempt = [s] { return ::sem_trywait(s) == 0; };
    if (attempt()) return 0;
    std::int64_t deadline = kNever;
    if (until && (!known(clock) || !deadline_at(clock, until, &deadline))) return EINVAL;
    return park_until(semaphore_waiters, s, deadline, attempt);
}

} // namespace

int own_tid() {
    if (tid == 0) tid = static_cast<int>(raw_syscall(SYS_gettid));
    return tid;
}
void forget_tid() { tid = 0; }

// The hooks jump to these two, so that their caller is the hook's.
int g_pthread_rwlock_rdlock(pthread_rwlock_t* l) {
    const void* caller = __builtin_return_address(0);
    if (is_writer(l)) return EDEADLK;
    if (is_libcs(l)) return blocking(real_pthread_rwlock_rdlock(), l);
    return lock(l, caller, try_read, real_pthread_rwlock_rdlock());
}
int g_pthread_rwlock_timedrdlock(pthread_rwlock_t* l, const timespec* until) {
    return g_pthread_rwlock_clockrdlock(l, CLOCK_REALTIME, until);
}
int g_pthread_rwlock_clockrdlock(pthread_rwlock_t* l, clockid_t clock, const timespec* until) {
    if (!known(clock)) return EINVAL;
    if (is_writer(l)) return EDEADLK;
    if (is_libcs(l)) return blocking(real_pthread_rwlock_clockrdlock(), l, clock, until);
    return lock(l, clock, until, try_read);
}
int g_pthread_rwlock_wrlock(pthread_rwlock_t* l) {
    const void* caller = __builtin_return_address(0);
    if (is_writer(l)) return EDEADLK;
    return note_writer(l, is_libcs(l) ? blocking(real_pthread_rwlock_wrlock(), l)
                                      : lock(l, caller, try_write, real_pthread_rwlock_wrlock()));
}
int g_pthread_rwlock_timedwrlock(pthread_rwlock_t* l, const timespec* until) {
    return g_pthread_rwlock_clockwrlock(l, CLOCK_REALTIME, until);
}
int g_pthread_rwlock_clockwrlock(pthread_rwlock_t* l, clockid_t clock, const timespec* until) {
    if (!known(clock)) return EINVAL;
    if (is_writer(l)) return EDEADLK;
    return note_writer(l, is_libcs(l) ? blocking(real_pthread_rwlock_clockwrlock(), l, clock, until)
                                      : lock(l, clock, until, try_write));
}
int g_pthread_rwlock_trywrlock(pthread_rwlock_t* l) { return note_writer(l, try_write(l)); }

int t_pthread_rwlock_unlock(pthread_rwlock_t* l, const void*) {
    return rt ? unlock(l) : real_pthread_rwlock_unlock()(l);
}
int t___pthread_rwlock_unlock(pthread_rwlock_t* l, const void*) {
    return rt ? unlock(l) : real_pthread_rwlock_unlock()(l);
}

int g_sem_wait(sem_t* s) {
    if (is_shared(s)) return blocking(real_sem_wait(), s);
    return static_cast<int>(finish(-sem_wait_until(s, CLOCK_MONOTONIC, nullptr)));
}
int g_sem_timedwait(sem_t* s, const timespec* until) {
    if (is_shared(s)) return blocking(real_sem_timedwait(), s, until);
    return static_cast<int>(finish(-sem_wait_until(s, CLOCK_REALTIME, until)));
}
int g_sem_clockwait(sem_t* s, clockid_t clock, const timespec* until) {
    if (is_shared(s)) return blocking(real_sem_clockwait(), s, clock, until);
    return static_cast<int>(finish(-sem_wait_until(s, clock, until)));
}
int t_sem_post(sem_t* s, const void*) {
    if (!rt) return real_sem_post()(s);
    const int rc = real_sem_post()(s);
    if (rc == 0 && semaphore_waiters.any(s)) rt->wake(s, 1);
    return rc;
}

} // namespace baton::preload
