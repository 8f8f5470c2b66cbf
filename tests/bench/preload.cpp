// SPDX-License-Identifier: Apache-2.0
//
// preload: a blocking echo server in plain POSIX calls, one and the same code: a thread for each
// connection, or a goroutine for each with libbaton_preload.so, which the program is linked with.
// The client is an epoll loop in another process; each connection sends 64 bytes, waits for them to
// come back, and begins anew. It is measured when every connection has been answered once.
//
// params waits = read: the server's read blocks; poll: it polls its connection and an eventfd
// first.
//
// rps, p50_us, p99_us  of the echoes
// threads              of the server, at the end
// memory_mb            of the server: resident, its page tables, and the kernel's stacks (16 KiB
// for
//                      each thread), 10^6 bytes
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

constexpr std::size_t kMessage = 64;

// ---- the server, as one would write it ----

void serve(int fd) {
    char buf[1024];
    for (;;) {
        const ssize_t n = ::read(fd, buf, sizeof buf);
        if (n <= 0 || ::write(fd, buf, static_cast<std::size_t>(n)) != n) break;
    }
    ::close(fd);
}

/// The same, as a program does that waits for more than its peer: an event of its own, say.
void serve_polling(int fd) {
    const int event = ::eventfd(0, EFD_CLOEXEC);
    pollfd fds[2] = {{fd, POLLIN, 0}, {event, POLLIN, 0}};
    char buf[1024];
    while (::poll(fds, 2, -1) == 1) {
        const ssize_t n = ::read(fd, buf, sizeof buf);
        if (n <= 0 || ::write(fd, buf, static_cast<std::size_t>(n)) != n) break;
    }
    ::close(event);
    ::close(fd);
}

template <class Spawn>
void accept_all(int listener, Spawn spawn) {
    for (;;) {
        const int fd = ::accept(listener, nullptr, nullptr);
        if (fd < 0) continue;
        const int on = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        spawn(fd);
    }
}

[[noreturn]] void server(int listener, bool threads, void (*serve_one)(int)) {
    if (threads) {
        accept_all(listener, [&](int fd) { std::thread(serve_one, fd).detach(); });
    } else {
        baton::run([&] {
            if (!baton::hooks_active()) ::_exit(3);
            accept_all(listener, [&](int fd) { baton::go(serve_one, fd); });
        });
    }
    ::_exit(0);
}

// ---- the client ----

struct Connection {
    int fd = -1;
    bool answered = false; // once at least
    std::size_t got = 0;
    std::int64_t sent_ns = 0;
};

class Client {
public:
    Client(const sockaddr_in& at, int n) : epfd_(::epoll_create1(0)), all_(std::size_t(n)) {
        for (Connection& c : all_) {
            c.fd = ::socket(AF_INET, SOCK_STREAM, 0);
            if (::connect(c.fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0)
                throw bench::Failure(std::string("connect: ") + std::strerror(errno));
            const int on = 1;
            ::setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            epoll_event ev{};
            ev.events = EPOLLIN;
            ev.data.ptr = &c;
            ::epoll_ctl(epfd_, EPOLL_CTL_ADD, c.fd, &ev);
        }
        for (Connection& c : all_) send(c);
    }
    /// Runs for so long; the latencies seen are kept if `note`.
    void run(std::int64_t ns, bool note) {
        epoll_event events[256];
        const std::int64_t end = bench::now_ns() + ns;
        std::int64_t now = 0;
        while ((now = bench::now_ns()) < end) {
            const int n = ::epoll_wait(epfd_, events, 256, 100);
            for (int i = 0; i < n; i++)
                receive(*static_cast<Connection*>(events[i].data.ptr), note);
        }
    }
    /// Until every connection has been answered, so that the server has all of its threads. The one
    /// that accepts them is not served first where thousands of others want the CPU.
    void warm_up(std::int64_t most_ns) {
        const std::int64_t end = bench::now_ns() + most_ns;
        while (answered_ < all_.size()) {
            if (bench::now_ns() > end)
                throw bench::Failure(std::to_string(answered_) + " connections of " +
                                     std::to_string(all_.size()) + " were answered");
            run(50'000'000, false);
        }
    }
    std::vector<double> latencies_us;

private:
    static void send(Connection& c) {
        static const char message[kMessage] = {};
        c.got = 0;
        c.sent_ns = bench::now_ns();
        if (::send(c.fd, message, kMessage, MSG_NOSIGNAL) != kMessage)
            throw bench::Failure("a connection broke");
    }
    void receive(Connection& c, bool note) {
        char buf[kMessage];
        const ssize_t n = ::recv(c.fd, buf, kMessage - c.got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) throw bench::Failure("a connection broke");
        if (n < 0) return;
        c.got += static_cast<std::size_t>(n);
        if (c.got < kMessage) return;
        if (!c.answered) answered_++;
        c.answered = true;
        if (note) latencies_us.push_back(static_cast<double>(bench::now_ns() - c.sent_ns) / 1000);
        send(c);
    }

    int epfd_;
    std::size_t answered_ = 0;
    std::vector<Connection> all_;
};

long status_of(pid_t pid, const char* key) {
    FILE* f = std::fopen(("/proc/" + std::to_string(pid) + "/status").c_str(), "r");
    char line[256];
    long value = 0;
    while (f && std::fgets(line, sizeof line, f))
        if (std::strncmp(line, key, std::strlen(key)) == 0)
            value = std::atol(line + std::strlen(key) + 1);
    if (f) std::fclose(f);
    return value;
}

void side(const bench::KeyValues& args) {
    const rlimit most{200'000, 200'000};
    ::setrlimit(RLIMIT_NOFILE, &most);
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof at;
    if (::bind(listener, reinterpret_cast<sockaddr*>(&at), len) != 0 || ::listen(listener, 4096))
        throw bench::Failure("cannot listen");
    ::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &len);

    const bool threads = args.text("by") == "threads";
    const pid_t pid = ::fork();
    if (pid == 0) server(listener, threads, args.text("waits") == "poll" ? serve_polling : serve);
    ::close(listener);
    const double ms = static_cast<double>(args.number("ms"));
    Client client(at, static_cast<int>(args.number("connections")));
    client.warm_up(60'000'000'000);
    client.run(static_cast<std::int64_t>(ms * 3e5), false);
    const std::int64_t start = bench::now_ns();
    client.run(static_cast<std::int64_t>(ms * 1e6), true);
    const double s = static_cast<double>(bench::now_ns() - start) / 1e9;
    const long count = status_of(pid, "Threads:");
    const long kib = status_of(pid, "VmRSS:") + status_of(pid, "VmPTE:") + count * 16;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);

    std::vector<double>& us = client.latencies_us;
    if (us.empty()) throw bench::Failure("no echo came");
    std::sort(us.begin(), us.end());
    const auto n = static_cast<double>(us.size());
    bench::print_figure("rps", n / s);
    bench::print_figure("p50_us", us[us.size() / 2]);
    bench::print_figure("p99_us", us[us.size() * 99 / 100]);
    bench::print_figure("threads", static_cast<double>(count));
    bench::print_figure("memory_mb", static_cast<double>(kib) * 1024 / 1e6);
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=700" : "ms=3000";
    const auto add = [&](const char* connections, const char* waits) {
        for (const char* by : {"threads", "hooks"})
            plan.add("baton", {{"connections", connections}, {"waits", waits}, {"by", by}}, {ms});
    };
    for (const char* connections : {"64", "1000", "10000"}) add(connections, "read");
    for (const char* connections : {"64", "1000"}) add(connections, "poll");
}

} // namespace

int main(int argc, char** argv) { return bench::run({"preload", 5, 1, plan, side}, argc, argv); }
