// SPDX-License-Identifier: Apache-2.0
//
// Read-write locks, semaphores, and what else waits for other threads.
#include <atomic>

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>

#include "preload/rows/lock_rows.hpp"

namespace rows {

namespace {

// ---- read-write locks and semaphores ----

void add_rwlocks(Rows& rows, int preference) {
    const auto row = [&](const char* name, std::function<std::string(pthread_rwlock_t*)> body) {
        rows.push_back({std::string("rwlock ") + std::to_string(preference) + " " + name, [=] {
                            pthread_rwlock_t l;
                            pthread_rwlockattr_t a;
                            ::pthread_rwlockattr_init(&a);
                            ::pthread_rwlockattr_setkind_np(&a, preference);
                            ::pthread_rwlock_init(&l, &a);
                            std::string what = body(&l);
                            return what + name_of_error(::pthread_rwlock_destroy(&l));
                        }});
    };
    row("read", [](pthread_rwlock_t* l) {
        std::string what = name_of_error(::pthread_rwlock_rdlock(l));
        ::usleep(1000);
        what += elsewhere([&] { return ::pthread_rwlock_trywrlock(l); });
        what += elsewhere(
            [&] { return ::pthread_rwlock_tryrdlock(l) ? EBUSY : ::pthread_rwlock_unlock(l); });
        return what + name_of_error(::pthread_rwlock_unlock(l));
    });
    row("write", [](pthread_rwlock_t* l) {
        std::string what = name_of_error(::pthread_rwlock_wrlock(l));
        for (int i = 0; i < 5; i++) ::usleep(1000);
        what += elsewhere([&] { return ::pthread_rwlock_tryrdlock(l); });
        what += name_of_error(::pthread_rwlock_rdlock(l));
        what += name_of_error(::pthread_rwlock_wrlock(l));
        what += name_of_error(::pthread_rwlock_unlock(l));
        return what + elsewhere([&] {
                   return ::pthread_rwlock_trywrlock(l) ? EBUSY : ::pthread_rwlock_unlock(l);
               });
    });
    row("contended", [](pthread_rwlock_t* l) {
        std::atomic<bool> held{false};
        std::thread other([&] {
            ::pthread_rwlock_wrlock(l);
            held = true;
            std::this_thread::sleep_for(10ms);
            ::pthread_rwlock_unlock(l);
        });
        while (!held) ::usleep(100);
        std::string what = name_of_error(::pthread_rwlock_rdlock(l));
        other.join();
        return what + name_of_error(::pthread_rwlock_unlock(l));
    });
    row("writer waits", [](pthread_rwlock_t* l) {
        std::atomic<bool> held{false};
        std::thread other([&] {
            ::pthread_rwlock_rdlock(l);
            held = true;
            std::this_thread::sleep_for(10ms);
            ::pthread_rwlock_unlock(l);
        });
        while (!held) ::usleep(100);
        std::string what = name_of_error(::pthread_rwlock_wrlock(l));
        other.join();
        return what + name_of_error(::pthread_rwlock_unlock(l));
    });
    row("timed", [](pthread_rwlock_t* l) {
        std::atomic<int> step{0};
        std::thread other([&] {
            ::pthread_rwlock_wrlock(l);
            step = 1;
            while (step != 2) std::this_thread::sleep_for(1ms);
            ::pthread_rwlock_unlock(l);
        });
        while (step != 1) ::usleep(100);
        timespec t = in(CLOCK_REALTIME, 20ms);
        std::string what = name_of_error(::pthread_rwlock_timedrdlock(l, &t));
        what += name_of_error(::pthread_rwlock_timedwrlock(l, &t));
        t = in(CLOCK_MONOTONIC, 20ms);
        what += name_of_error(::pthread_rwlock_clockwrlock(l, CLOCK_MONOTONIC, &t));
        step = 2;
        other.join();
        return what;
    });
}

void add_semaphores(Rows& rows, bool shared) {
    const auto row = [&](const char* name, std::function<std::string(sem_t*)> body) {
        rows.push_back({std::string(shared ? "shared sem " : "sem ") + name, [=] {
                            sem_t s;
                            ::sem_init(&s, shared, 0);
                            std::string what = body(&s);
                            ::sem_destroy(&s);
                            return what;
                        }});
    };
    row("ready", [](sem_t* s) {
        ::sem_post(s);
        const std::string what = result(::sem_wait(s));
        return what + result(::sem_trywait(s));
    });
    row("later", [](sem_t* s) {
        Later post([&] { ::sem_post(s); });
        return result(::sem_wait(s));
    });
    row("timed", [](sem_t* s) {
        const auto start = Clock::now();
        timespec t = in(CLOCK_REALTIME, 20ms);
        std::string what = result(::sem_timedwait(s, &t));
        t = in(CLOCK_MONOTONIC, 20ms);
        what += result(::sem_clockwait(s, CLOCK_MONOTONIC, &t));
        t.tv_nsec = -1;
        what += result(::sem_timedwait(s, &t));
        return what + timing(start, 40ms);
    });
    row("in time", [](sem_t* s) {
        Later post([&] { ::sem_post(s); });
        const timespec t = in(CLOCK_REALTIME, 5000ms);
        return result(::sem_timedwait(s, &t));
    });
    row("many", [](sem_t* s) {
        Later post([&] {
            for (int i = 0; i < 100; i++) ::sem_post(s);
        });
        int n = 0;
        for (int i = 0; i < 100; i++) n += ::sem_wait(s) == 0;
        return std::to_string(n);
    });
    row("wakes a thread", [](sem_t* s) {
        std::thread other([&] { ::sem_wait(s); });
        ::usleep(5000);
        std::string what = result(::sem_post(s));
        other.join();
        return what;
    });
}

void add_others(Rows& rows) {
    rows.push_back({"pthread_join", [] {
                        pthread_t t;
                        ::pthread_create(
                            &t, nullptr,
                            [](void* p) {
                                ::usleep(5000);
                                return p;
                            },
                            reinterpret_cast<void*>(7));
                        void* got = nullptr;
                        const int rc = ::pthread_join(t, &got);
                        return std::to_string(rc) +
                               std::to_string(reinterpret_cast<std::uintptr_t>(got));
                    }});
    rows.push_back({"pthread_barrier_wait", [] {
                        pthread_barrier_t b;
                        ::pthread_barrier_init(&b, nullptr, 2);
                        int theirs = 0;
                        std::thread other([&] { theirs = ::pthread_barrier_wait(&b); });
                        const int mine = ::pthread_barrier_wait(&b);
                        other.join();
                        return std::to_string(mine + theirs);
                    }});
    rows.push_back({"pthread_once", [] {
                        static pthread_once_t once;
                        static int n;
                        once = PTHREAD_ONCE_INIT;
                        n = 0;
                        const auto f = [] {
                            ::usleep(5000);
                            n++;
                        };
                        std::thread other([&] { ::pthread_once(&once, f); });
                        const int rc = ::pthread_once(&once, f);
                        const int seen = n;
                        other.join();
                        return std::to_string(rc) + std::to_string(seen) + std::to_string(n);
                    }});
}

} // namespace

void add_semaphores(Rows& rows) {
    add_rwlocks(rows, PTHREAD_RWLOCK_PREFER_READER_NP);
    add_rwlocks(rows, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    add_semaphores(rows, false);
    add_semaphores(rows, true);
    add_others(rows);
}

} // namespace rows
