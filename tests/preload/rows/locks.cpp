// SPDX-License-Identifier: Apache-2.0
//
// Mutexes of each kind, condition variables, read-write locks and semaphores, with another thread
// as the other side.
#include <atomic>

#include <pthread.h>
#include <threads.h>

#include "preload/rows/lock_rows.hpp"

namespace rows {

namespace {

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

} // namespace

void add_locks(Rows& rows) {
    add_mutexes(rows);
    add_c11(rows);
}

} // namespace rows
