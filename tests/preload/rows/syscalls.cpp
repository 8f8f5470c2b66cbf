// SPDX-License-Identifier: Apache-2.0
//
// Calls by syscall(), which knows no fewer ways to wait than libc does.
#include <atomic>
#include <climits>
#include <ctime>

#include <linux/futex.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

using Word = std::atomic<std::uint32_t>;

template <class... Args>
std::string call(long number, Args... args) {
    return result(::syscall(number, args...));
}
long futex(const void* at, int op, std::uint32_t value, const timespec* timeout = nullptr,
           const void* other = nullptr, std::uint32_t bits = 0) {
    return ::syscall(SYS_futex, at, op, value, timeout, other, bits);
}
timespec in_20ms(clockid_t clock) {
    timespec t;
    ::clock_gettime(clock, &t);
    t.tv_nsec += 20'000'000;
    t.tv_sec += t.tv_nsec / 1'000'000'000;
    t.tv_nsec %= 1'000'000'000;
    return t;
}
/// Until the word is no longer 0, which another one changes later.
std::string until_set(Word& word, int op, std::function<void()> set) {
    Later later(set);
    long rc = 0;
    while (word == 0) rc = futex(&word, op, 0, nullptr, nullptr, FUTEX_BITSET_MATCH_ANY);
    return result(rc);
}

void add_futex_waits(Rows& rows, const std::string& name, int flag) {
    const auto row = [&](const std::string& what, std::function<std::string(Word&)> body) {
        rows.push_back({name + what, [body] {
                            Word word{0};
                            return body(word);
                        }});
    };
    for (const int op : {FUTEX_WAIT, FUTEX_WAIT_BITSET})
        row(op == FUTEX_WAIT ? "" : " bitset", [=](Word& word) {
            return until_set(word, op | flag, [&word, flag] {
                word = 1;
                futex(&word, FUTEX_WAKE | flag, 1);
            });
        });
    row(", another value", [=](Word& w) { return result(futex(&w, FUTEX_WAIT | flag, 4)); });
    row(", no such address",
        [=](Word&) { return result(futex(reinterpret_cast<void*>(4096), FUTEX_WAIT | flag, 0)); });
    row(", half an address", [=](Word& w) {
        return result(futex(reinterpret_cast<char*>(&w) + 2, FUTEX_WAIT | flag, 0));
    });
    row(" timed out", [=](Word& w) {
        const timespec t{0, 20'000'000};
        const auto start = Clock::now();
        return result(futex(&w, FUTEX_WAIT | flag, 0, &t)) + timing(start, 20ms);
    });
    for (const long ns : {0L, -1L, 1'000'000'000L})
        row(" for " + std::to_string(ns), [=](Word& w) {
            const timespec t{0, ns};
            return result(futex(&w, FUTEX_WAIT | flag, 0, &t));
        });
    for (const int clock : {0, FUTEX_CLOCK_REALTIME}) {
        row(" until " + std::to_string(clock), [=](Word& w) {
            const timespec t = in_20ms(clock ? CLOCK_REALTIME : CLOCK_MONOTONIC);
            const auto start = Clock::now();
            const long rc = futex(&w, FUTEX_WAIT_BITSET | flag | clock, 0, &t, nullptr, UINT_MAX);
            return result(rc) + timing(start, 20ms);
        });
        row(" until long ago " + std::to_string(clock), [=](Word& w) {
            const timespec t{1, 0};
            return result(futex(&w, FUTEX_WAIT_BITSET | flag | clock, 0, &t, nullptr, UINT_MAX));
        });
    }
    row(" for some bits", [=](Word& w) {
        const timespec t = in_20ms(CLOCK_MONOTONIC);
        return result(futex(&w, FUTEX_WAIT_BITSET | flag, 0, &t, nullptr, 4));
    });
    row(" for no bits", [=](Word& w) {
        return result(futex(&w, FUTEX_WAIT_BITSET | flag, 0)) +
               result(futex(&w, FUTEX_WAKE_BITSET | flag, 1));
    });
    row(" of which nobody waits", [=](Word& w) {
        return result(futex(&w, FUTEX_WAKE | flag, 1)) +
               result(futex(&w, FUTEX_WAKE | flag, INT_MAX)) +
               result(futex(nullptr, FUTEX_WAKE | flag, 1));
    });
    row(" moved", [=](Word& word) {
        Word other{0};
        std::string what = until_set(word, FUTEX_WAIT | flag, [&] {
            const auto most = reinterpret_cast<const timespec*>(5);
            what = result(futex(&word, FUTEX_CMP_REQUEUE | flag, 0, most, &other, 7));
            word = 1;
            futex(&word, FUTEX_CMP_REQUEUE | flag, 0, most, &other, 1);
            futex(&other, FUTEX_WAKE | flag, 1);
        });
        return what;
    });
    row(" woken with another", [=](Word& word) {
        Word other{0};
        return until_set(other, FUTEX_WAIT | flag, [&word, &other, flag] {
            const auto most = reinterpret_cast<const timespec*>(1);
            futex(&word, FUTEX_WAKE_OP | flag, 1, most, &other,
                  FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0));
        });
    });
}

void add_futexes(Rows& rows) {
    add_futex_waits(rows, "syscall futex", 0);
    add_futex_waits(rows, "syscall futex private", FUTEX_PRIVATE_FLAG);
    rows.push_back({"syscall futex of another process", [] {
                        void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                        Word& word = *static_cast<Word*>(at);
                        const pid_t pid = ::fork();
                        if (pid == 0) {
                            ::usleep(10'000);
                            word = 1;
                            futex(&word, FUTEX_WAKE, 1);
                            ::_exit(0);
                        }
                        long rc = 0;
                        while (word == 0) rc = futex(&word, FUTEX_WAIT, 0);
                        ::waitpid(pid, nullptr, 0);
                        ::munmap(at, 4096);
                        return result(rc);
                    }});
}

void add_streams_by_number(Rows& rows) {
    const auto row = [&](const char* name, Ends ends, std::function<std::string(int)> body) {
        rows.push_back({std::string("syscall ") + name, [=] {
                            Pair p = make(ends);
                            Later write([&] { (void)!::write(p.b, "abc", 3); });
                            return body(p.a);
                        }});
    };
    row("read", Ends::kPipe, [](int fd) {
        char b[4] = {};
        return call(SYS_read, fd, b, 4) + b + call(SYS_read, -1, b, 4);
    });
    row("readv", Ends::kUnix, [](int fd) {
        char a[3] = {}, b[3] = {};
        const iovec iov[] = {{a, 2}, {b, 2}};
        return call(SYS_readv, fd, iov, 2) + a + " " + b;
    });
    row("recvfrom", Ends::kTcp, [](int fd) {
        char b[4] = {};
        const std::string what = call(SYS_recvfrom, fd, b, 4, MSG_PEEK, nullptr, nullptr) + b;
        return what + call(SYS_recvfrom, fd, b, 4, 0, nullptr, nullptr);
    });
    row("recvmsg", Ends::kDgram, [](int fd) {
        char b[4] = {};
        iovec iov{b, 2};
        msghdr msg{};
        msg.msg_iov = &iov;
        msg.msg_iovlen = 1;
        return call(SYS_recvmsg, fd, &msg, 0) + b + std::to_string(msg.msg_flags & MSG_TRUNC);
    });
    row("poll", Ends::kPty, [](int fd) {
        pollfd pfd{fd, POLLIN, 0};
        return call(SYS_poll, &pfd, 1, -1) + std::to_string(pfd.revents) +
               call(SYS_poll, nullptr, 0, 0);
    });
    row("epoll_wait", Ends::kPipe, [](int fd) {
        const Fd epfd(::epoll_create1(0));
        epoll_event ev{};
        ev.events = EPOLLIN;
        ::epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
        return call(SYS_epoll_wait, static_cast<int>(epfd), &ev, 1, -1);
    });
    rows.push_back({"syscall write, writev, sendto, sendmsg", [] {
                        const Pair p = make(Ends::kUnix);
                        const int fd = p.b;
                        iovec iov{const_cast<char*>("de"), 2};
                        msghdr msg{};
                        msg.msg_iov = &iov;
                        msg.msg_iovlen = 1;
                        std::string what = call(SYS_write, fd, "abc", 3);
                        what += call(SYS_writev, fd, &iov, 1);
                        what += call(SYS_sendto, fd, "f", 1, 0, nullptr, 0);
                        what += call(SYS_sendmsg, fd, &msg, 0);
                        char b[16] = {};
                        return what + result(::read(p.a, b, sizeof b)) + b;
                    }});
    rows.push_back({"syscall connect, accept, accept4", [] {
                        const Listening l = listening();
                        const auto dial = [&] {
                            const Fd fd(::socket(AF_INET, SOCK_STREAM, 0));
                            return call(SYS_connect, static_cast<int>(fd), &l.at, l.len);
                        };
                        const int fd = l.fd;
                        Later later([&] { dial(), dial(); });
                        const Fd a(static_cast<int>(::syscall(SYS_accept, fd, 0, 0)));
                        const Fd b(static_cast<int>(::syscall(SYS_accept4, fd, 0, 0, 0)));
                        return std::to_string(a >= 0 && b >= 0) + dial();
                    }});
}

void add_others_by_number(Rows& rows) {
    rows.push_back({"syscall pread64", [] {
                        const Fd fd(::open("/proc/self/exe", O_RDONLY));
                        char b[4] = {};
                        return call(SYS_pread64, static_cast<int>(fd), b, 3, 1L) + b;
                    }});
    rows.push_back({"syscall close", [] {
                        const int fd = ::dup(1);
                        return call(SYS_close, fd) + call(SYS_close, fd);
                    }});
    rows.push_back({"syscall nanosleep", [] {
                        const timespec t{0, 20'000'000}, bad{0, -1};
                        const auto start = Clock::now();
                        const std::string what = call(SYS_nanosleep, &t, nullptr);
                        return what + timing(start, 20ms) + call(SYS_nanosleep, &bad, nullptr);
                    }});
    rows.push_back({"syscall clock_nanosleep", [] {
                        const timespec t = in_20ms(CLOCK_MONOTONIC), bad{0, -1};
                        const auto start = Clock::now();
                        const std::string what =
                            call(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr);
                        return what + timing(start, 20ms) +
                               call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &bad, nullptr);
                    }});
    rows.push_back({"syscall wait4", [] {
                        const pid_t pid = ::fork();
                        if (pid == 0) ::_exit(3);
                        int status = 0;
                        const long got = ::syscall(SYS_wait4, pid, &status, 0, nullptr);
                        return std::to_string(got == pid) + std::to_string(status) +
                               call(SYS_wait4, pid, &status, 0, nullptr);
                    }});
    rows.push_back({"syscall of no number", [] { return call(5000); }});
    rows.push_back(
        {"syscall getppid", [] { return std::to_string(::syscall(SYS_getppid) == ::getppid()); }});
}

} // namespace

void add_syscalls(Rows& rows) {
    add_futexes(rows);
    add_streams_by_number(rows);
    add_others_by_number(rows);
}

} // namespace rows
