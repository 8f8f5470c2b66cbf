// SPDX-License-Identifier: Apache-2.0
//
// idle: memory of a connection that has nothing to say: growth of a server's resident set while
// 20,000 connections are made and each asks once for "/", over their number. The kernel's own
// buffers are not in it. Where the hard limit of descriptors is lower, and may not be raised, there
// are as many as it allows.
//
// The servers are those of `http`. Fair to know: tokio's task has no stack, but its peer here keeps
// a buffer of 8 KiB in it, as Go's keeps one on its heap; baton's server and epoll's keep 1.5 KiB.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "support/http_load.hpp"

namespace {

constexpr rlim_t kConnections = 20'000;
constexpr rlim_t kOthers = 500; // descriptors beside them
constexpr int kFirst = 100;     // connections before the first look: what is there once
constexpr std::string_view kRequest = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";

[[noreturn]] void fail(const char* what) {
    throw bench::Failure(std::string(what) + ": " + std::strerror(errno));
}

/// So many connections can be had, by the descriptors we allow ourselves and the servers, which
/// inherit that.
int allowed_connections() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    rlimit more{kConnections + kOthers, std::max(limit.rlim_max, kConnections + kOthers)};
    if (::setrlimit(RLIMIT_NOFILE, &more) != 0) { // not root
        more = {limit.rlim_max, limit.rlim_max};
        if (::setrlimit(RLIMIT_NOFILE, &more) != 0) fail("setrlimit");
    }
    return static_cast<int>(std::min(more.rlim_cur, kConnections + kOthers) - kOthers);
}

/// Clients of a server on loopback; they end with a reset, so as to leave no TIME_WAIT behind.
class Clients {
public:
    explicit Clients(const std::string& url) {
        const int port = std::atoi(url.c_str() + url.rfind(':') + 1);
        to_.sin_family = AF_INET;
        to_.sin_port = htons(static_cast<std::uint16_t>(port));
        to_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    ~Clients() {
        const linger reset{1, 0};
        for (const int fd : fds_) {
            ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            ::close(fd);
        }
    }
    Clients(const Clients&) = delete;
    Clients& operator=(const Clients&) = delete;

    /// One more, that has had an answer.
    void add() {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) fail("socket");
        fds_.push_back(fd);
        if (::connect(fd, reinterpret_cast<sockaddr*>(&to_), sizeof to_) != 0) fail("connect");
        if (::send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) < 0) fail("send");
        char answer[512];
        if (::recv(fd, answer, sizeof answer, 0) <= 0) fail("no answer");
    }

private:
    sockaddr_in to_{};
    std::vector<int> fds_;
};

bench::Figures measure(const bench::Command& command, int connections) {
    const bench::Server server(command);
    Clients clients(server.url());
    for (int i = 0; i < kFirst; i++) clients.add();
    const double before = server.resident_bytes();
    for (int i = 0; i < connections; i++) clients.add();
    ::usleep(100'000);
    return {{"bytes_each", (server.resident_bytes() - before) / connections}};
}

void plan(bench::Plan& plan) {
    const int connections = allowed_connections();
    for (const char* impl : {"baton", "go", "tokio", "epoll"}) {
        const bench::Command command = bench::server_command(plan, impl);
        plan.add_own(impl, {{"conns", std::to_string(connections)}},
                     [=] { return measure(command, connections); });
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "idle", .rounds = 3, .quick_rounds = 1, .plan = plan}, argc, argv);
}
