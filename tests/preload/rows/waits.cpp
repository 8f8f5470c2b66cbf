// SPDX-License-Identifier: Apache-2.0
//
// poll, select and epoll_wait, by each of their names, on one descriptor and on several.
#include <csignal>
#include <cstring>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/timerfd.h>

#include "preload/rows/rows.hpp"

extern "C" int __poll_chk(pollfd* fds, nfds_t n, int ms, size_t room);

namespace rows {

namespace {

// ---- poll ----

struct Poller {
    const char* name;
    int (*poll)(pollfd* fds, nfds_t n, int ms);
};

int by_ppoll(pollfd* fds, nfds_t n, int ms) {
    const timespec t{ms / 1000, ms % 1000 * 1'000'000L};
    return ::ppoll(fds, n, ms < 0 ? nullptr : &t, nullptr);
}
int by_masked_ppoll(pollfd* fds, nfds_t n, int ms) {
    sigset_t mask;
    sigemptyset(&mask);
    const timespec t{ms / 1000, ms % 1000 * 1'000'000L};
    return ::ppoll(fds, n, ms < 0 ? nullptr : &t, &mask);
}

constexpr Poller kPollers[] = {
    {"poll", [](pollfd* f, nfds_t n, int ms) { return ::poll(f, n, ms); }},
    {"__poll_chk", [](pollfd* f, nfds_t n, int ms) { return __poll_chk(f, n, ms, n * sizeof *f); }},
    {"ppoll", by_ppoll},
    {"ppoll with a mask", by_masked_ppoll},
};

std::string polled(const Poller& poller, std::vector<pollfd> fds, int ms) {
    std::string what = result(poller.poll(fds.data(), fds.size(), ms));
    for (const pollfd& p : fds) what += " " + std::to_string(p.revents);
    return what;
}

void add_polls(Rows& rows, const Poller& q) {
    const auto row = [&](const std::string& what, std::function<std::string(Pair&)> body,
                         Ends ends = Ends::kUnix) {
        rows.push_back({std::string(q.name) + " " + what, [=] {
                            Pair p = make(ends);
                            return body(p);
                        }});
    };
    for (int e = 0; e < static_cast<int>(Ends::kCount); e++) {
        const Ends ends = static_cast<Ends>(e);
        const std::string on = name_of(ends);
        row(
            on + " ready",
            [&q](Pair& p) {
                (void)!::write(p.b, "x", 1);
                return polled(q, {{p.a, POLLIN, 0}}, -1);
            },
            ends);
        row(
            on + " later",
            [&q](Pair& p) {
                Later write([&] { (void)!::write(p.b, "x", 1); });
                return polled(q, {{p.a, POLLIN, 0}}, -1);
            },
            ends);
        row(
            on + " in time",
            [&q](Pair& p) {
                Later write([&] { (void)!::write(p.b, "x", 1); });
                return polled(q, {{p.a, POLLIN | POLLPRI, 0}}, 5000);
            },
            ends);
        row(
            on + " timed out",
            [&q](Pair& p) {
                const auto start = Clock::now();
                const std::string what = polled(q, {{p.a, POLLIN, 0}}, 20);
                return what + timing(start, 20ms);
            },
            ends);
        row(
            on + " writable",
            [&q](Pair& p) {
                return polled(q, {{p.b, POLLOUT, 0}}, -1);
            },
            ends);
    }
    row("at once", [&q](Pair& p) { return polled(q, {{p.a, POLLIN, 0}}, 0); });
    row("both ways", [&q](Pair& p) { return polled(q, {{p.a, POLLIN | POLLOUT, 0}}, 1000); });
    row("hangup later", [&q](Pair& p) {
        Later close([&] { p.b.reset(); });
        return polled(q, {{p.a, POLLIN | POLLRDHUP, 0}}, -1);
    });
    row(
        "hangup of a pipe",
        [&q](Pair& p) {
            Later close([&] { p.b.reset(); });
            return polled(q, {{p.a, POLLIN, 0}}, -1);
        },
        Ends::kPipe);
    row(
        "nobody reads",
        [&q](Pair& p) {
            p.a.reset();
            return polled(q, {{p.b, POLLOUT, 0}}, -1);
        },
        Ends::kPipe);
    row("not open", [&q](Pair&) { return polled(q, {{4000, POLLIN, 0}}, -1); });
    row("negative", [&q](Pair&) { return polled(q, {{-1, POLLIN, 0}}, 10); });
    row("none", [&q](Pair&) {
        const auto start = Clock::now();
        const std::string what = polled(q, {}, 20);
        return what + timing(start, 20ms);
    });
    row("a file", [&q](Pair&) {
        const Fd f(::open("/etc/passwd", O_RDONLY));
        return polled(q, {{f, POLLIN, 0}}, -1);
    });
    row("several, the last", [&q](Pair& p) {
        Pair other = make(Ends::kPipe), third = make(Ends::kTcp);
        Later write([&] { (void)!::write(p.b, "x", 1); });
        return polled(q, {{third.a, POLLIN, 0}, {other.a, POLLIN, 0}, {p.a, POLLIN, 0}}, -1);
    });
    row("several, twice the same", [&q](Pair& p) {
        Later write([&] { (void)!::write(p.b, "x", 1); });
        return polled(q, {{p.a, POLLPRI, 0}, {-5, POLLIN, 0}, {p.a, POLLIN, 0}}, 5000);
    });
    row("several, timed out", [&q](Pair& p) {
        Pair other = make(Ends::kPipe);
        const auto start = Clock::now();
        const std::string what = polled(q, {{other.a, POLLIN, 0}, {p.a, POLLIN, 0}}, 20);
        return what + timing(start, 20ms);
    });
    row("several, of one both ways", [&q](Pair& p) {
        Pair other = make(Ends::kPipe);
        char some[4096] = {};
        while (::send(p.a, some, sizeof some, MSG_DONTWAIT) > 0) continue;
        Later drain([&] {
            char read[4096];
            while (::recv(p.b, read, sizeof read, MSG_DONTWAIT) > 0) continue;
        });
        return polled(q, {{other.a, POLLIN, 0}, {p.a, POLLIN | POLLOUT, 0}}, -1);
    });
    row("several, one of them hangs up", [&q](Pair& p) {
        Pair other = make(Ends::kPipe);
        Later close([&] { p.b.reset(); });
        return polled(q, {{other.a, POLLIN, 0}, {p.a, POLLIN | POLLRDHUP, 0}}, -1);
    });
    row("several, one is not open", [&q](Pair& p) {
        return polled(q, {{p.a, POLLIN, 0}, {4000, POLLIN, 0}}, -1);
    });
    row("more than are waited for one by one", [&q](Pair& p) {
        std::vector<Pair> pairs;
        std::vector<pollfd> fds;
        for (int i = 0; i < 20; i++) {
            pairs.push_back(make(Ends::kPipe));
            fds.push_back({pairs.back().a, POLLIN, 0});
        }
        fds.push_back({p.a, POLLIN, 0});
        Later write([&] { (void)!::write(p.b, "x", 1); });
        return polled(q, fds, -1);
    });
    row(
        "urgent data is no input",
        [&q](Pair& p) {
            (void)!::send(p.b, "!", 1, MSG_OOB);
            const auto start = Clock::now();
            const std::string what = polled(q, {{p.a, POLLIN, 0}}, 20);
            return what + timing(start, 20ms);
        },
        Ends::kTcp);
    row("no room in memory",
        [&q](Pair&) { return result(q.poll(reinterpret_cast<pollfd*>(16), 1, 10)); });
}

// ---- select ----

struct Selecter {
    const char* name;
    int (*select)(int n, fd_set* r, fd_set* w, fd_set* x, int ms);
};

int by_select(int n, fd_set* r, fd_set* w, fd_set* x, int ms) {
    timeval t{ms / 1000, ms % 1000 * 1000L};
    const int got = ::select(n, r, w, x, ms < 0 ? nullptr : &t);
    // Linux says what is left of the time.
    if (got == 0 && (t.tv_sec != 0 || t.tv_usec != 0)) return -2;
    if (got > 0 && ms > 0 && t.tv_sec == 0 && t.tv_usec == 0) return -3;
    return got;
}
int by_pselect(int n, fd_set* r, fd_set* w, fd_set* x, int ms) {
    const timespec t{ms / 1000, ms % 1000 * 1'000'000L};
    return ::pselect(n, r, w, x, ms < 0 ? nullptr : &t, nullptr);
}
constexpr Selecter kSelecters[] = {{"select", by_select}, {"pselect", by_pselect}};

fd_set set_of(std::initializer_list<int> fds) {
    fd_set set;
    FD_ZERO(&set);
    for (const int fd : fds) FD_SET(fd, &set);
    return set;
}

void add_selects(Rows& rows, const Selecter& q) {
    const auto row = [&](const std::string& what, std::function<std::string(Pair&, Pair&)> body) {
        rows.push_back({std::string(q.name) + " " + what, [=] {
                            Pair p = make(Ends::kUnix), other = make(Ends::kPipe);
                            return body(p, other);
                        }});
    };
    row("ready", [&q](Pair& p, Pair& other) {
        (void)!::write(p.b, "x", 1);
        fd_set r = set_of({p.a, other.a});
        const std::string what = result(q.select(64, &r, nullptr, nullptr, -1));
        return what + (FD_ISSET(p.a, &r) ? " it" : "") + (FD_ISSET(other.a, &r) ? " other" : "");
    });
    row("later", [&q](Pair& p, Pair& other) {
        fd_set r = set_of({p.a, other.a}), x = set_of({p.a});
        Later write([&] { (void)!::write(other.b, "x", 1); });
        const std::string what = result(q.select(64, &r, nullptr, &x, 5000));
        return what + (FD_ISSET(p.a, &r) ? " it" : "") + (FD_ISSET(other.a, &r) ? " other" : "") +
               (FD_ISSET(p.a, &x) ? " urgent" : "");
    });
    row("timed out", [&q](Pair& p, Pair&) {
        fd_set r = set_of({p.a});
        const auto start = Clock::now();
        const std::string what = result(q.select(64, &r, nullptr, nullptr, 20));
        return what + (FD_ISSET(p.a, &r) ? " it" : " cleared") + timing(start, 20ms);
    });
    row("at once", [&q](Pair& p, Pair&) {
        fd_set r = set_of({p.a}), w = set_of({p.a});
        return result(q.select(64, &r, &w, nullptr, 0));
    });
    row("writable", [&q](Pair& p, Pair& other) {
        fd_set r = set_of({other.a}), w = set_of({p.a});
        const std::string what = result(q.select(64, &r, &w, nullptr, -1));
        return what + (FD_ISSET(p.a, &w) ? " it" : "") + (FD_ISSET(other.a, &r) ? " other" : "");
    });
    row("none", [&q](Pair&, Pair&) {
        const auto start = Clock::now();
        const std::string what = result(q.select(0, nullptr, nullptr, nullptr, 20));
        return what + timing(start, 20ms);
    });
    row("not open", [&q](Pair&, Pair&) {
        fd_set r = set_of({900});
        return result(q.select(901, &r, nullptr, nullptr, 1000));
    });
    row("less than none",
        [&q](Pair&, Pair&) { return result(q.select(-1, nullptr, nullptr, nullptr, 10)); });
}

// ---- epoll ----

struct Epoll {
    const char* name;
    int (*wait)(int fd, epoll_event* ev, int most, int ms);
};

int by_pwait2(int fd, epoll_event* ev, int most, int ms) {
    const timespec t{ms / 1000, ms % 1000 * 1'000'000L};
    return ::epoll_pwait2(fd, ev, most, ms < 0 ? nullptr : &t, nullptr);
}
constexpr Epoll kEpolls[] = {
    {"epoll_wait",
     [](int fd, epoll_event* e, int n, int ms) { return ::epoll_wait(fd, e, n, ms); }},
    {"epoll_pwait",
     [](int fd, epoll_event* e, int n, int ms) { return ::epoll_pwait(fd, e, n, ms, nullptr); }},
    {"epoll_pwait2", by_pwait2},
};

void add_epolls(Rows& rows, const Epoll& q) {
    const auto row = [&](const std::string& what, std::function<std::string(Pair&, int)> body) {
        rows.push_back({std::string(q.name) + " " + what, [=] {
                            Pair p = make(Ends::kUnix);
                            const Fd epfd(::epoll_create1(0));
                            epoll_event ev{};
                            ev.events = EPOLLIN;
                            ev.data.u32 = 77;
                            ::epoll_ctl(epfd, EPOLL_CTL_ADD, p.a, &ev);
                            return body(p, epfd);
                        }});
    };
    const auto waited = [&q](int epfd, int ms) {
        epoll_event ev[4] = {};
        std::string what = result(q.wait(epfd, ev, 4, ms));
        return what + " " + std::to_string(ev[0].events) + " " + std::to_string(ev[0].data.u32);
    };
    row("ready", [=](Pair& p, int epfd) {
        (void)!::write(p.b, "x", 1);
        return waited(epfd, -1);
    });
    row("later", [=](Pair& p, int epfd) {
        Later write([&] { (void)!::write(p.b, "x", 1); });
        return waited(epfd, -1);
    });
    row("level-triggered", [=](Pair& p, int epfd) {
        Later write([&] { (void)!::write(p.b, "x", 1); });
        const std::string first = waited(epfd, 5000);
        return first + ", " + waited(epfd, 5000);
    });
    row("added later", [=](Pair&, int epfd) {
        const Fd event(::eventfd(1, 0));
        Later add([&] {
            epoll_event ev{};
            ev.events = EPOLLIN;
            ev.data.u32 = 5;
            ::epoll_ctl(epfd, EPOLL_CTL_ADD, event, &ev);
        });
        return waited(epfd, -1);
    });
    row("timed out", [=](Pair&, int epfd) {
        const auto start = Clock::now();
        const std::string what = waited(epfd, 20);
        return what + timing(start, 20ms);
    });
    row("at once", [=](Pair&, int epfd) { return waited(epfd, 0); });
    row("no epoll", [=](Pair& p, int) { return waited(p.a, 10); });
    row("not open", [=](Pair&, int) { return waited(4000, 10); });
    row("no room", [&q](Pair&, int epfd) {
        epoll_event ev{};
        return result(q.wait(epfd, &ev, 0, 10));
    });
    row("inside another", [=](Pair& p, int epfd) {
        const Fd outer(::epoll_create1(0));
        epoll_event ev{};
        ev.events = EPOLLIN;
        ev.data.u32 = 3;
        ::epoll_ctl(outer, EPOLL_CTL_ADD, epfd, &ev);
        Later write([&] { (void)!::write(p.b, "x", 1); });
        return waited(outer, -1);
    });
}

// ---- descriptors that count ----

void add_counters(Rows& rows) {
    rows.push_back({"read eventfd later", [] {
                        const Fd fd(::eventfd(0, 0));
                        Later write([&] {
                            const std::uint64_t n = 42;
                            (void)!::write(fd, &n, 8);
                        });
                        std::uint64_t n = 0;
                        const std::string what = result(::read(fd, &n, 8));
                        return what + " " + std::to_string(n);
                    }});
    rows.push_back({"read eventfd short", [] {
                        const Fd fd(::eventfd(3, 0));
                        int n = 0;
                        return result(::read(fd, &n, 4));
                    }});
    rows.push_back({"read eventfd nonblocking", [] {
                        const Fd fd(::eventfd(0, EFD_NONBLOCK));
                        std::uint64_t n = 0;
                        return result(::read(fd, &n, 8));
                    }});
    rows.push_back({"write eventfd full", [] {
                        const Fd fd(::eventfd(0, 0));
                        std::uint64_t n = UINT64_MAX - 1;
                        (void)!::write(fd, &n, 8);
                        Later read([&] {
                            std::uint64_t got = 0;
                            (void)!::read(fd, &got, 8);
                        });
                        n = 7;
                        return result(::write(fd, &n, 8));
                    }});
    rows.push_back({"read timerfd", [] {
                        const Fd fd(::timerfd_create(CLOCK_MONOTONIC, 0));
                        itimerspec t{};
                        t.it_value.tv_nsec = 20'000'000;
                        ::timerfd_settime(fd, 0, &t, nullptr);
                        std::uint64_t n = 0;
                        const auto start = Clock::now();
                        const std::string what = result(::read(fd, &n, 8));
                        return what + " " + std::to_string(n) + timing(start, 20ms);
                    }});
}

} // namespace

void add_waits(Rows& rows) {
    for (const Poller& q : kPollers) add_polls(rows, q);
    for (const Selecter& q : kSelecters) add_selects(rows, q);
    for (const Epoll& q : kEpolls) add_epolls(rows, q);
    add_counters(rows);
}

} // namespace rows
