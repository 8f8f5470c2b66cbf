// SPDX-License-Identifier: Apache-2.0
//
// Raw system calls that the kernel does not restart after a handler, or ends early for one: none
// sees the signal that preempts, and all see the program's own.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/probe.hpp"

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

/// How often `call`, which sleeps for a moment, ended with EINTR within a while, on one P beside a
/// goroutine that computes. It computes a little itself before each, so as to be seen awake.
long interrupted(const std::function<long()>& call) {
    long count = 0;
    baton::run([&] {
        baton::set_max_procs(1);
        std::atomic<bool> done{false};
        baton::WaitGroup wg;
        wg.go([&] {
            for (const auto end = Clock::now() + 1500ms; Clock::now() < end;) {
                for (const auto until = Clock::now() + 5us; Clock::now() < until;) {
                }
                count += call() < 0 && errno == EINTR;
            }
            done = true;
        });
        wg.go([&] {
            while (!done.load(std::memory_order_relaxed)) { // relaxed: a flag alone
            }
        });
        wg.wait();
    });
    return count;
}

} // namespace

TEST_CASE("preempt: a raw call that has just begun begins anew") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delivers signals when it likes\n");
    return;
#endif
    if (baton::assist_tier() != baton::Assist::kProbe) {
        std::printf("skip: no probe in this tier: a raw call may return EINTR\n");
        return;
    }
    const timespec sleep{0, 50'000};
    CHECK(interrupted([&] { return ::syscall(SYS_nanosleep, &sleep, nullptr); }) == 0);
    CHECK(interrupted([&] {
              return ::syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &sleep, nullptr);
          }) == 0);
    CHECK(interrupted([] { return ::syscall(SYS_poll, nullptr, 0, 1); }) == 0);
    const int epfd = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event;
    CHECK(interrupted([&] { return ::syscall(SYS_epoll_wait, epfd, &event, 1, 1); }) == 0);
    ::close(epfd);
    sem_t never;
    REQUIRE(::sem_init(&never, 0, 0) == 0);
    CHECK(interrupted([&] {
              timespec soon;
              ::clock_gettime(CLOCK_REALTIME, &soon);
              soon.tv_nsec += soon.tv_nsec < 999'000'000 ? 1'000'000 : 0;
              return ::sem_timedwait(&never, &soon);
          }) == 0);
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    const timeval limit{0, 1000}; // with one the kernel restarts no wait
    REQUIRE(::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    char c;
    CHECK(interrupted([&] { return ::syscall(SYS_read, ends[0], &c, 1); }) == 0);
    for (const int fd : ends) ::close(fd);
}

namespace {

constexpr std::size_t kMuch = 8 << 20;

/// Bytes of which none looks like the one before or a page further on.
std::vector<char> pattern() {
    std::vector<char> data(kMuch);
    for (std::size_t i = 0; i < kMuch; i++) data[i] = static_cast<char>(i * 7 + i / 251);
    return data;
}

/// Reads all there is, or as much as `data`; whether it is that.
bool comes_whole(int fd, const std::vector<char>& data) {
    std::vector<char> got(data.size());
    std::size_t n = 0;
    for (ssize_t r = 1; n < got.size() && r > 0; n += static_cast<std::size_t>(r))
        if ((r = ::read(fd, got.data() + n, std::min<std::size_t>(1 << 16, got.size() - n))) < 0)
            return false;
    return n == data.size() && got == data;
}

struct Passed {
    int times = 0;
    int whole = 0;
};

/// On two Ps beside three that compute: `call` passes kMuch bytes on by one call, and a thread at
/// the other end does `other`, which says whether all is well.
Passed pass_beside_hogs(const std::function<long(int)>& call,
                        const std::function<bool(int)>& other) {
    Passed passed;
    baton::run([&] {
        baton::set_max_procs(2);
        std::atomic<bool> done{false};
        baton::WaitGroup wg;
        for (int i = 0; i < 3; i++) {
            wg.go([&] {
                while (!done.load(std::memory_order_relaxed)) { // relaxed: a flag alone
                }
            });
        }
        for (const auto end = Clock::now() + 250ms; passed.times < 3 || Clock::now() < end;) {
            int ends[2];
            REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
            std::thread thread([&] { passed.whole += other(ends[1]); });
            const bool all = call(ends[0]) == static_cast<long>(kMuch);
            ::shutdown(ends[0], SHUT_RDWR);
            baton::blocking([&] { thread.join(); });
            passed.whole += all;
            passed.times++;
            for (const int fd : ends) ::close(fd);
        }
        done = true;
        wg.wait();
    });
    return passed;
}

/// Without the probe one may end early now and then (README.md): a quarter of them is too many.
void check_whole(const Passed& passed) {
    if (baton::assist_tier() == baton::Assist::kProbe) {
        CHECK(passed.whole == 2 * passed.times);
    } else {
        CHECK(4 * passed.whole > 3 * 2 * passed.times);
    }
}

} // namespace

// One that has passed on a part ends with its length when a signal comes, which none of a program's
// own calls is to see.
TEST_CASE("preempt: a raw call that passes on much ends when all of it is passed on") {
    std::vector<char> data = pattern();
    iovec pieces[3] = {{data.data(), 1}, {data.data() + 1, kMuch / 2}, {}};
    pieces[2] = {data.data() + 1 + kMuch / 2, kMuch - 1 - kMuch / 2};
    const int file = ::memfd_create("data", MFD_CLOEXEC);
    REQUIRE(::write(file, data.data(), kMuch) == static_cast<ssize_t>(kMuch));
    const std::function<long(int)> writers[] = {
        [&](int fd) { return ::syscall(SYS_write, fd, data.data(), kMuch); },
        [&](int fd) { return ::syscall(SYS_sendto, fd, data.data(), kMuch, 0, nullptr, 0); },
        [&](int fd) { return ::syscall(SYS_writev, fd, pieces, 3); },
        [&](int fd) {
            msghdr message{};
            message.msg_iov = pieces;
            message.msg_iovlen = 3;
            return ::syscall(SYS_sendmsg, fd, &message, 0);
        },
        [&](int fd) {
            off_t from = 0;
            return ::syscall(SYS_sendfile, fd, file, &from, kMuch);
        },
    };
    int which = 0;
    for (const auto& call : writers) {
        CAPTURE(which++);
        const Passed passed = pass_beside_hogs(call, [&](int fd) { return comes_whole(fd, data); });
        check_whole(passed);
    }
    ::close(file);
}

TEST_CASE("preempt: a raw call that waits for all of it gets all of it") {
    const std::vector<char> data = pattern();
    std::vector<char> got(kMuch);
    const Passed passed = pass_beside_hogs(
        [&](int fd) {
            return ::syscall(SYS_recvfrom, fd, got.data(), kMuch, MSG_WAITALL, nullptr, nullptr);
        },
        [&](int fd) {
            for (std::size_t n = 0; n < kMuch;) {
                const ssize_t r = ::send(fd, data.data() + n,
                                         std::min<std::size_t>(1 << 16, kMuch - n), MSG_NOSIGNAL);
                if (r < 0) return false;
                n += static_cast<std::size_t>(r);
            }
            return true;
        });
    check_whole(passed);
    CHECK((got == data || baton::assist_tier() != baton::Assist::kProbe));
}

TEST_CASE("preempt: the program's own signal ends a raw call") {
    struct sigaction sa = {}, old[2];
    sa.sa_handler = [](int) {};
    const int signals[] = {SIGUSR1, SIGRTMIN}; // below and above SIGURG
    for (int i = 0; i < 2; i++) sigaction(signals[i], &sa, &old[i]);
    for (const int sig : signals) {
        std::atomic<long> tid{0};
        std::atomic<pthread_t> thread{};
        int error = 0;
        std::thread killer([&] {
            while (tid == 0) std::this_thread::yield();
            CHECK(probe_test::sleeps(tid));
            ::pthread_kill(thread, sig);
        });
        baton::run([&] {
            const timespec sleep{20, 0};
            thread = ::pthread_self();
            tid = ::syscall(SYS_gettid);
            const auto start = Clock::now();
            error = ::syscall(SYS_nanosleep, &sleep, nullptr) == 0 ? 0 : errno;
            CHECK(Clock::now() - start < 15s);
        });
        CHECK(error == EINTR);
        killer.join();
    }
    for (int i = 0; i < 2; i++) sigaction(signals[i], &old[i], nullptr);
}
