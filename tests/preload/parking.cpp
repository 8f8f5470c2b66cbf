// SPDX-License-Identifier: Apache-2.0
//
// That the hooks are at work: goroutines in libc's calls hold no threads. And where they are not:
// groups, plain threads, forked children, allocators.
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "preload/hooked.hpp"
#include "preload/many.hpp"
#include "support/child.hpp"

namespace {

using namespace std::chrono_literals;
using child_process::check_ends;
using child_process::check_works;
using child_process::reached;
using child_process::run_child;
using hooked::preload;
using many::many_wait;

TEST_CASE("child: read" * doctest::skip()) {
    many_wait([](int fd, int) {
        char b[4];
        (void)!::read(fd, b, 4);
    });
}
TEST_CASE("child: poll of several" * doctest::skip()) {
    many_wait([](int fd, int) {
        pollfd fds[] = {{fd, POLLIN, 0}, {-1, POLLIN, 0}, {fd, POLLIN | POLLPRI, 0}};
        (void)::poll(fds, 3, -1);
    });
}
TEST_CASE("child: epoll_wait" * doctest::skip()) {
    many_wait([](int fd, int) {
        const int epfd = ::epoll_create1(0);
        epoll_event ev{};
        ev.events = EPOLLIN;
        ::epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
        (void)::epoll_wait(epfd, &ev, 1, -1);
        ::close(epfd);
    });
}
TEST_CASE("child: usleep" * doctest::skip()) {
    many_wait([](int, int) { ::usleep(200'000); });
}
TEST_CASE("child: one descriptor" * doctest::skip()) {
    int fds[2];
    REQUIRE(::pipe(fds) == 0);
    many_wait([&](int fd, int i) {
        char b[1];
        (void)!::read(fd, b, 1);
        // And all of one, each for a byte of its own.
        (void)!::write(fds[1], b, 1);
        (void)!::read(fds[0], b, 1);
        if (i == 0) baton::yield();
    });
}

// What each waits for beside its own is the same for all of them.
TEST_CASE("child: poll of one's own and another" * doctest::skip()) {
    int stop[2];
    REQUIRE(::pipe(stop) == 0);
    many_wait([&](int fd, int) {
        pollfd fds[] = {{fd, POLLIN, 0}, {stop[0], POLLIN, 0}};
        (void)::poll(fds, 2, -1);
    });
}

TEST_CASE("goroutines that wait in libc's calls hold no threads") {
    for (const char* call : {"read", "poll of several", "poll of one's own and another",
                             "epoll_wait", "usleep", "one descriptor"})
        check_works(run_child(call, {preload()}));
}

TEST_CASE("child: closed" * doctest::skip()) {
    baton::run([] {
        int fds[2];
        REQUIRE(::pipe(fds) == 0);
        baton::WaitGroup wg;
        int failed = 0;
        for (int i = 0; i < 3; i++)
            wg.go([&] {
                char b[1];
                if (::read(fds[0], b, 1) == -1) std::atomic_ref(failed)++;
            });
        baton::sleep_for(20ms);
        ::close(fds[0]);
        wg.wait();
        if (failed == 3) reached();
        ::close(fds[1]);
    });
}
TEST_CASE("a close wakes who waits") { check_works(run_child("closed", {preload()})); }

// What a child of vfork closes is its own.
TEST_CASE("child: vfork" * doctest::skip()) {
    baton::run([] {
        int fds[2];
        REQUIRE(::pipe(fds) == 0);
        baton::WaitGroup wg;
        long got = 0;
        wg.go([&] {
            char b[1];
            got = ::read(fds[0], b, 1);
        });
        baton::sleep_for(20ms);
        const pid_t pid = ::vfork();
        if (pid == 0) {
            ::close(fds[0]);
            ::_exit(0);
        }
        int status;
        ::waitpid(pid, &status, 0);
        baton::sleep_for(5ms);
        (void)!::write(fds[1], "x", 1);
        wg.wait();
        if (got == 1) reached();
    });
}
TEST_CASE("a close in a child of vfork wakes nobody") {
    check_works(run_child("vfork", {preload()}));
}

TEST_CASE("child: fork" * doctest::skip()) {
    baton::run([] {
        int fds[2];
        REQUIRE(::pipe(fds) == 0);
        baton::WaitGroup wg;
        const auto one_byte = [&] {
            char b[1];
            return ::read(fds[0], b, 1) == 1;
        };
        wg.go([&] { CHECK(one_byte()); });
        baton::sleep_for(20ms);
        (void)!::write(fds[1], "x", 1);
        wg.wait();
        const pid_t pid = ::fork();
        if (pid == 0) {
            int code = 3;
            // A runtime of its own, and the same descriptors.
            std::thread([&] {
                baton::run([&] {
                    baton::WaitGroup inner;
                    inner.go([&] { code = one_byte() ? 0 : 4; });
                    baton::sleep_for(20ms);
                    (void)!::write(fds[1], "y", 1);
                    inner.wait();
                });
            }).join();
            ::_exit(baton::hooks_active() ? code : 5);
        }
        int status = -1;
        REQUIRE(::waitpid(pid, &status, 0) == pid);
        std::printf("child: %x\n", static_cast<unsigned>(status));
        if (status == 0) reached();
    });
}
TEST_CASE("a forked child has hooks for its own runtime") {
    check_works(run_child("fork", {preload()}));
}

// What a library's pthread_atfork handlers do: lock before, unlock after, on either side.
TEST_CASE("child: fork with a lock" * doctest::skip()) {
    baton::run([] {
        pthread_mutex_t m = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
        ::pthread_mutex_lock(&m);
        const pid_t pid = ::fork();
        if (pid == 0) {
            if (::pthread_mutex_unlock(&m) != 0) ::_exit(1);
            ::_exit(::pthread_mutex_lock(&m) == 0 && ::pthread_mutex_unlock(&m) == 0 ? 0 : 2);
        }
        int status = -1;
        ::waitpid(pid, &status, 0);
        if (status == 0 && ::pthread_mutex_unlock(&m) == 0) reached();
    });
}
TEST_CASE("a forked child owns the locks of the goroutine that forked") {
    check_works(run_child("fork with a lock", {preload()}));
}

TEST_CASE("child: hooks are off" * doctest::skip()) {
    baton::run([] {
        if (!baton::hooks_active()) reached();
        ::usleep(1000);
    });
}
TEST_CASE("child: hooks are on" * doctest::skip()) {
    baton::run([] {
        if (baton::hooks_active()) reached();
        ::usleep(1000);
    });
}
TEST_CASE("BATON_HOOKS chooses groups") {
    check_works(run_child("hooks are off"));
    check_works(run_child("hooks are off", {preload(), "BATON_HOOKS=none"}));
    for (const char* groups : {"all", "sleep", "sockets,files,sleep,names,locks"})
        check_works(run_child("hooks are on", {preload(), std::string("BATON_HOOKS=") + groups}));
    // A group left out holds threads, which shows that the others need not.
    const auto child = run_child("usleep", {preload(), "BATON_HOOKS=sockets"});
    CHECK_FALSE(child.has(child_process::kReached));
    check_works(run_child("usleep", {preload(), "BATON_HOOKS=sleep,names"}));
}
TEST_CASE("a bad BATON_HOOKS is one clear line") {
    for (const char* bad : {"sockts", "all,sleep", "", ",", "sleep,", "ALL"}) {
        const auto child =
            run_child("hooks are on", {preload(), std::string("BATON_HOOKS=") + bad});
        check_ends(child, 2);
        CHECK(child.said() == child_process::Strings{
                                  std::string("baton: BATON_HOOKS=") + bad +
                                  ": not all, none, or some of sockets,files,sleep,names,locks"});
    }
}

// Goroutines and plain threads at one lock, which goroutines hold across sleeps.
TEST_CASE("child: locks" * doctest::skip()) {
    struct {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
        pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
        sem_t items;
        long n = 0, guarded = 0, turns = 0;
    } s;
    ::sem_init(&s.items, 0, 0);
    const auto work = [&](int rounds, bool sleeps) {
        for (int i = 0; i < rounds; i++) {
            ::pthread_mutex_lock(&s.mutex);
            const long n = s.n;
            if (sleeps && i % 8 == 0) ::usleep(50);
            s.n = n + 1;
            if (s.n % 2 == 0) ::pthread_cond_broadcast(&s.cond);
            ::pthread_mutex_unlock(&s.mutex);
            ::pthread_rwlock_wrlock(&s.rwlock);
            s.guarded++;
            ::pthread_rwlock_unlock(&s.rwlock);
            ::sem_post(&s.items);
        }
    };
    const auto consume = [&](int rounds) {
        for (int i = 0; i < rounds; i++) {
            while (::sem_wait(&s.items) != 0) {
            }
            ::pthread_rwlock_rdlock(&s.rwlock);
            if (s.guarded <= 0) std::abort();
            ::pthread_rwlock_unlock(&s.rwlock);
        }
    };
    // Whoever finds the number odd waits for it to be even.
    const auto wait_even = [&](int rounds) {
        for (int i = 0; i < rounds; i++) {
            ::pthread_mutex_lock(&s.mutex);
            while (s.n % 2 != 0) ::pthread_cond_wait(&s.cond, &s.mutex);
            s.turns++;
            ::pthread_mutex_unlock(&s.mutex);
        }
    };
    constexpr int kG = 60, kT = 3, kRounds = 64;
    baton::run([&] {
        baton::WaitGroup wg;
        std::vector<std::thread> threads;
        for (int i = 0; i < kT; i++) {
            threads.emplace_back([&] { work(kRounds, false); });
            threads.emplace_back([&] { consume(kRounds); });
            threads.emplace_back([&] { wait_even(kRounds); });
        }
        for (int i = 0; i < kG; i++) {
            wg.go([&] { work(kRounds, true); });
            wg.go([&] { consume(kRounds); });
            wg.go([&] { wait_even(kRounds); });
        }
        wg.wait();
        for (std::thread& t : threads) t.join();
        constexpr long kAll = long{kG + kT} * kRounds;
        std::printf("%ld %ld %ld of %ld, peak %llu threads\n", s.n, s.guarded, s.turns, kAll,
                    static_cast<unsigned long long>(baton::stats().threads_peak));
        if (s.n == kAll && s.guarded == kAll && s.turns == kAll && baton::stats().threads_peak < 60)
            reached();
    });
}
TEST_CASE("goroutines and threads share locks") {
    for (int i = 0; i < 3; i++) check_works(run_child("locks", {preload()}, 30s));
}

TEST_CASE("child: mutex" * doctest::skip()) {
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    many_wait([&](int fd, int i) {
        ::pthread_mutex_lock(&m);
        char b[1];
        if (i == 0) (void)!::read(fd, b, 1);
        ::pthread_mutex_unlock(&m);
    });
}
TEST_CASE("child: cond" * doctest::skip()) {
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t c = PTHREAD_COND_INITIALIZER;
    bool go = false;
    many_wait([&](int fd, int i) {
        char b[1];
        if (i == 0) (void)!::read(fd, b, 1);
        ::pthread_mutex_lock(&m);
        if (i == 0) {
            go = true;
            ::pthread_cond_broadcast(&c);
        }
        while (!go) ::pthread_cond_wait(&c, &m);
        ::pthread_mutex_unlock(&m);
    });
}
TEST_CASE("child: sem" * doctest::skip()) {
    sem_t s;
    ::sem_init(&s, 0, 0);
    many_wait([&](int fd, int i) {
        char b[1];
        if (i == 0) (void)!::read(fd, b, 1);
        if (i != 0) ::sem_wait(&s);
        ::sem_post(&s);
    });
}
TEST_CASE("goroutines that wait for libc's locks hold no threads") {
    for (const char* what : {"mutex", "cond", "sem"}) check_works(run_child(what, {preload()}));
}

TEST_CASE("child: allocations" * doctest::skip()) {
    baton::run([] {
        baton::WaitGroup wg;
        for (int i = 0; i < 64; i++)
            wg.go([i] {
                std::vector<void*> all;
                for (int j = 0; j < 2000; j++) {
                    const auto n = static_cast<std::size_t>((i * 31 + j * 17) % 5000 + 1);
                    void* p = std::malloc(n);
                    std::memset(p, i, n);
                    all.push_back(p);
                    if (j % 50 == 0) ::usleep(100);
                    if (j % 3 == 0) {
                        std::free(all.front());
                        all.erase(all.begin());
                    }
                }
                for (void* p : all) std::free(p);
            });
        wg.wait();
        if (baton::hooks_active()) reached();
    });
}
TEST_CASE("hooks work with jemalloc and tcmalloc") {
    for (const char* library : {"libjemalloc.so.2", "libtcmalloc_minimal.so.4"})
        for (const bool first : {true, false}) {
            const std::string a = hooked::library(), b = library;
            check_works(
                run_child("allocations", {"LD_PRELOAD=" + (first ? a + ":" + b : b + ":" + a)}));
        }
}

} // namespace
