// SPDX-License-Identifier: Apache-2.0
//
// Mutexes of each kind, condition variables, read-write locks and semaphores, with another thread
// as the other side.
#include <atomic>
#include <memory>

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <threads.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

timespec in(clockid_t clock, std::chrono::milliseconds d) {
    timespec t;
    ::clock_gettime(clock, &t);
    t.tv_nsec += d.count() * 1'000'000;
    t.tv_sec += t.tv_nsec / 1'000'000'000;
    t.tv_nsec %= 1'000'000'000;
    return t;
}

std::string name_of_error(int e) { return e == 0 ? "0" : strerrorname_np(e); }

struct Kind {
    const char* name;
    int type;
    bool shared, robust, inherit;
};
constexpr Kind kKinds[] = {
    {"normal", PTHREAD_MUTEX_NORMAL, false, false, false},
    {"default", PTHREAD_MUTEX_DEFAULT, false, false, false},
    {"recursive", PTHREAD_MUTEX_RECURSIVE, false, false, false},
    {"errorcheck", PTHREAD_MUTEX_ERRORCHECK, false, false, false},
    {"adaptive", PTHREAD_MUTEX_ADAPTIVE_NP, false, false, false},
    {"shared", PTHREAD_MUTEX_NORMAL, true, false, false},
    {"shared errorcheck", PTHREAD_MUTEX_ERRORCHECK, true, false, false},
    {"robust", PTHREAD_MUTEX_NORMAL, false, true, false},
    {"inheriting", PTHREAD_MUTEX_NORMAL, false, false, true},
};

struct Mutex {
    pthread_mutex_t m;
    explicit Mutex(const Kind& k) {
        pthread_mutexattr_t a;
        ::pthread_mutexattr_init(&a);
        ::pthread_mutexattr_settype(&a, k.type);
        if (k.shared) ::pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
        if (k.robust) ::pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
        if (k.inherit) ::pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
        ::pthread_mutex_init(&m, &a);
        ::pthread_mutexattr_destroy(&a);
    }
    operator pthread_mutex_t*() { return &m; }
};

/// What another thread gets.
template <class F>
std::string elsewhere(F f) {
    std::string got;
    std::thread([&] { got = name_of_error(f()); }).join();
    return got;
}

using Body = std::string (*)(Mutex& m);

std::string lock_unlock(Mutex& m) {
    std::string what = name_of_error(::pthread_mutex_lock(m));
    what += elsewhere([&] { return ::pthread_mutex_trylock(m); });
    what += name_of_error(::pthread_mutex_destroy(m));
    what += name_of_error(::pthread_mutex_unlock(m));
    return what + name_of_error(::pthread_mutex_destroy(m));
}
std::string held_across_sleep(Mutex& m) {
    std::string what = name_of_error(::pthread_mutex_lock(m));
    for (int i = 0; i < 5; i++) ::usleep(1000);
    what += elsewhere([&] { return ::pthread_mutex_trylock(m); });
    return what + name_of_error(::pthread_mutex_unlock(m));
}
std::string contended(Mutex& m) {
    std::atomic<bool> held{false};
    std::string what;
    {
        std::thread other([&] {
            ::pthread_mutex_lock(m);
            held = true;
            std::this_thread::sleep_for(10ms);
            ::pthread_mutex_unlock(m);
        });
        while (!held) ::usleep(100);
        what = name_of_error(::pthread_mutex_trylock(m));
        what += name_of_error(::pthread_mutex_lock(m));
        other.join();
    }
    return what + name_of_error(::pthread_mutex_unlock(m));
}
std::string timed(Mutex& m) {
    std::atomic<int> step{0};
    std::thread other([&] {
        ::pthread_mutex_lock(m);
        step = 1;
        while (step != 2) std::this_thread::sleep_for(1ms);
        ::pthread_mutex_unlock(m);
    });
    while (step != 1) ::usleep(100);
    const auto start = Clock::now();
    timespec t = in(CLOCK_REALTIME, 20ms);
    std::string what = name_of_error(::pthread_mutex_timedlock(m, &t));
    what += timing(start, 20ms);
    t = {0, 2'000'000'000};
    what += name_of_error(::pthread_mutex_timedlock(m, &t));
    step = 2;
    t = in(CLOCK_REALTIME, 5000ms);
    what += name_of_error(::pthread_mutex_timedlock(m, &t));
    other.join();
    return what + name_of_error(::pthread_mutex_unlock(m));
}
std::string waited_for_by_thread(Mutex& m) {
    std::string what = name_of_error(::pthread_mutex_lock(m));
    std::atomic<bool> got{false};
    std::thread other([&] {
        ::pthread_mutex_lock(m);
        got = true;
        ::pthread_mutex_unlock(m);
    });
    ::usleep(10'000);
    what += got ? " early" : " waits";
    what += name_of_error(::pthread_mutex_unlock(m));
    other.join();
    return what + (got ? " got it" : " lost");
}
std::string many(Mutex& m) {
    long n = 0;
    std::vector<std::thread> all;
    for (int i = 0; i < 3; i++)
        all.emplace_back([&] {
            for (int j = 0; j < 500; j++) {
                ::pthread_mutex_lock(m);
                n++;
                ::pthread_mutex_unlock(m);
            }
        });
    for (int j = 0; j < 500; j++) {
        ::pthread_mutex_lock(m);
        n++;
        ::pthread_mutex_unlock(m);
    }
    for (std::thread& t : all) t.join();
    return std::to_string(n);
}
std::string again(Mutex& m) {
    std::string what = name_of_error(::pthread_mutex_lock(m));
    what += name_of_error(::pthread_mutex_trylock(m));
    ::usleep(1000);
    what += name_of_error(::pthread_mutex_unlock(m));
    what += elsewhere([&] { return ::pthread_mutex_trylock(m) == EBUSY ? EBUSY : 0; });
    return what;
}
std::string relock(Mutex& m) { // errorcheck and recursive
    std::string what = name_of_error(::pthread_mutex_lock(m));
    ::usleep(1000);
    what += name_of_error(::pthread_mutex_lock(m));
    what += elsewhere([&] { return ::pthread_mutex_unlock(m); });
    what += name_of_error(::pthread_mutex_unlock(m));
    what += name_of_error(::pthread_mutex_unlock(m));
    return what + name_of_error(::pthread_mutex_unlock(m));
}
std::string waits_on_condition(Mutex& m) {
    pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    bool ready = false;
    std::thread other([&] {
        std::this_thread::sleep_for(10ms);
        ::pthread_mutex_lock(m);
        ready = true;
        ::pthread_cond_signal(&c);
        ::pthread_mutex_unlock(m);
    });
    std::string what = name_of_error(::pthread_mutex_lock(m));
    while (!ready) what = name_of_error(::pthread_cond_wait(&c, m));
    what += elsewhere([&] { return ::pthread_mutex_trylock(m); });
    what += name_of_error(::pthread_mutex_unlock(m));
    other.join();
    return what + name_of_error(::pthread_cond_destroy(&c));
}
std::string condition_times_out(Mutex& m) {
    pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    ::pthread_mutex_lock(m);
    const auto start = Clock::now();
    timespec t = in(CLOCK_REALTIME, 20ms);
    std::string what = name_of_error(::pthread_cond_timedwait(&c, m, &t));
    what += timing(start, 20ms);
    t = in(CLOCK_MONOTONIC, 20ms);
    what += name_of_error(::pthread_cond_clockwait(&c, m, CLOCK_MONOTONIC, &t));
    what += timing(start, 40ms);
    t = {0, -1};
    what += name_of_error(::pthread_cond_timedwait(&c, m, &t));
    what += elsewhere([&] { return ::pthread_mutex_trylock(m); });
    return what + name_of_error(::pthread_mutex_unlock(m));
}
std::string signals_thread(Mutex& m) {
    pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    bool ready = false;
    std::atomic<int> done{0};
    std::vector<std::thread> all;
    for (int i = 0; i < 3; i++)
        all.emplace_back([&] {
            ::pthread_mutex_lock(m);
            while (!ready) ::pthread_cond_wait(&c, m);
            ::pthread_mutex_unlock(m);
            done++;
        });
    ::usleep(10'000);
    ::pthread_mutex_lock(m);
    ready = true;
    ::pthread_cond_broadcast(&c);
    ::pthread_mutex_unlock(m);
    for (std::thread& t : all) t.join();
    return std::to_string(done);
}

void add_mutexes(Rows& rows) {
    const struct {
        const char* name;
        Body body;
    } bodies[] = {{"lock", lock_unlock},
                  {"held across a sleep", held_across_sleep},
                  {"contended", contended},
                  {"timed", timed},
                  {"waited for by a thread", waited_for_by_thread},
                  {"by many", many},
                  {"condition", waits_on_condition},
                  {"condition times out", condition_times_out},
                  {"condition of threads", signals_thread}};
    for (const Kind& k : kKinds) {
        const auto add = [&](const char* name, Body body) {
            rows.push_back({std::string("mutex ") + k.name + " " + name, [&k, body] {
                                Mutex m(k);
                                return body(m);
                            }});
        };
        for (const auto& b : bodies) add(b.name, b.body);
        add("try again", again);
        if (k.type == PTHREAD_MUTEX_RECURSIVE || k.type == PTHREAD_MUTEX_ERRORCHECK)
            add("relock", relock);
    }
}

// ---- C11 ----

void add_c11(Rows& rows) {
    rows.push_back({"mtx_lock", [] {
                        mtx_t m;
                        ::mtx_init(&m, mtx_timed);
                        std::string what = std::to_string(::mtx_lock(&m));
                        ::usleep(1000);
                        what += std::to_string(::mtx_trylock(&m));
                        const timespec t = in(CLOCK_REALTIME, 10ms);
                        what += std::to_string(::mtx_timedlock(&m, &t));
                        return what + std::to_string(::mtx_unlock(&m));
                    }});
    rows.push_back({"mtx_lock recursive", [] {
                        mtx_t m;
                        ::mtx_init(&m, mtx_recursive);
                        std::string what = std::to_string(::mtx_lock(&m));
                        what += std::to_string(::mtx_lock(&m));
                        what += std::to_string(::mtx_unlock(&m));
                        what += std::to_string(::mtx_unlock(&m));
                        return what + std::to_string(::mtx_unlock(&m));
                    }});
    rows.push_back({"cnd_wait", [] {
                        mtx_t m;
                        cnd_t c;
                        ::mtx_init(&m, mtx_plain);
                        ::cnd_init(&c);
                        bool ready = false;
                        Later signal([&] {
                            ::mtx_lock(&m);
                            ready = true;
                            ::cnd_broadcast(&c);
                            ::mtx_unlock(&m);
                        });
                        ::mtx_lock(&m);
                        int rc = 0;
                        while (!ready) rc = ::cnd_wait(&c, &m);
                        ::mtx_unlock(&m);
                        return std::to_string(rc);
                    }});
    rows.push_back({"cnd_timedwait", [] {
                        mtx_t m;
                        cnd_t c;
                        ::mtx_init(&m, mtx_plain);
                        ::cnd_init(&c);
                        ::mtx_lock(&m);
                        const timespec t = in(CLOCK_REALTIME, 20ms);
                        const std::string what = std::to_string(::cnd_timedwait(&c, &m, &t));
                        ::mtx_unlock(&m);
                        return what;
                    }});
}

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
    rows.push_back({"syscall futex", [] {
                        std::atomic<std::uint32_t> word{0};
                        Later wake([&] {
                            word = 1;
                            ::syscall(SYS_futex, &word, 1, 1, nullptr, nullptr, 0);
                        });
                        long rc = 0;
                        while (word == 0)
                            rc = ::syscall(SYS_futex, &word, 0, 0, nullptr, nullptr, 0);
                        return result(rc);
                    }});
    rows.push_back({"syscall futex, another value", [] {
                        std::uint32_t word = 5;
                        return result(::syscall(SYS_futex, &word, 0, 4, nullptr, nullptr, 0));
                    }});
    rows.push_back({"syscall read", [] {
                        Pair p = make(Ends::kPipe);
                        Later write([&] { (void)!::write(p.b, "x", 1); });
                        char b[4];
                        return result(::syscall(SYS_read, static_cast<int>(p.a), b, 4));
                    }});
}

} // namespace

void add_locks(Rows& rows) {
    add_mutexes(rows);
    add_c11(rows);
    add_rwlocks(rows, PTHREAD_RWLOCK_PREFER_READER_NP);
    add_rwlocks(rows, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    add_semaphores(rows, false);
    add_semaphores(rows, true);
    add_others(rows);
}

} // namespace rows
