// SPDX-License-Identifier: Apache-2.0
//
// tlsproxy: TLS before a server that has none, by OpenSSL's blocking calls on plain sockets:
// accept, SSL_accept, SSL_read, poll, write. The code is that of a server with a thread for each
// connection, and with --threads it is one; otherwise a connection has a goroutine, by
// libbaton_preload.so.
//
//   tlsproxy PORT [--threads]         "listening on 127.0.0.1:N"; what comes goes to port PORT
//
// The certificate is made at the start and signed by itself. SIGTERM ends it. Of its goroutine's
// stack a connection uses 12 KiB.
#include <baton/baton.hpp>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "certificate.hpp"

namespace {

class Socket {
public:
    explicit Socket(int fd) : fd_(fd) {
        const int on = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    ~Socket() { ::close(fd_); }
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    int fd() const { return fd_; }

private:
    int fd_;
};

sockaddr_in loopback(int port) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(static_cast<std::uint16_t>(port));
    return at;
}

bool write_all(int fd, const char* data, std::size_t n) {
    while (n > 0) {
        const ssize_t done = ::write(fd, data, n);
        if (done <= 0) return false;
        data += done;
        n -= static_cast<std::size_t>(done);
    }
    return true;
}

/// What the client says goes to the server; false at the end.
bool forward(SSL* client, int server) {
    char buf[4096];
    do {
        const int n = ::SSL_read(client, buf, sizeof buf);
        if (n <= 0 || !write_all(server, buf, static_cast<std::size_t>(n))) return false;
    } while (::SSL_pending(client) > 0); // decrypted already: poll would not tell
    return true;
}
bool answer(int server, SSL* client) {
    char buf[4096];
    const ssize_t n = ::read(server, buf, sizeof buf);
    return n > 0 && ::SSL_write(client, buf, static_cast<int>(n)) > 0;
}

void serve(SSL_CTX* context, int fd, int port) {
    const Socket client(fd);
    const Socket server(::socket(AF_INET, SOCK_STREAM, 0));
    const sockaddr_in at = loopback(port);
    if (::connect(server.fd(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) return;
    const tls::Ssl ssl(::SSL_new(context));
    if (!ssl || ::SSL_set_fd(ssl.get(), client.fd()) != 1 || ::SSL_accept(ssl.get()) != 1) return;
    pollfd ends[2] = {{client.fd(), POLLIN, 0}, {server.fd(), POLLIN, 0}};
    while (::poll(ends, 2, -1) > 0) {
        if (ends[0].revents != 0 && !forward(ssl.get(), server.fd())) break;
        if (ends[1].revents != 0 && !answer(server.fd(), ssl.get())) break;
    }
    (void)::SSL_shutdown(ssl.get());
}

int listen_at(sockaddr_in* at) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof *at;
    *at = loopback(0);
    if (::bind(fd, reinterpret_cast<sockaddr*>(at), len) != 0 || ::listen(fd, 1024) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(at), &len) != 0)
        throw std::runtime_error(std::string("cannot listen: ") + std::strerror(errno));
    return fd;
}

/// Calls `start(fd)` for each connection.
template <class Start>
[[noreturn]] void accept_all(int listener, Start start) {
    for (;;) {
        const int fd = ::accept(listener, nullptr, nullptr);
        if (fd >= 0)
            start(fd);
        else
            ::usleep(10'000); // no descriptors left, say
    }
}

} // namespace

int main(int argc, char** argv) try {
    const bool threads = argc == 3 && argv[2] == std::string_view("--threads");
    if (argc != 2 && !threads) {
        std::fprintf(stderr, "usage: tlsproxy PORT [--threads]\n");
        return 2;
    }
    const int port = std::atoi(argv[1]);
    std::signal(SIGPIPE, SIG_IGN);
    const tls::Context context = tls::server_context();
    sockaddr_in at{};
    const int listener = listen_at(&at);
    std::printf("listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
    std::fflush(stdout);
    const auto handle = [&](int fd) { serve(context.get(), fd, port); };
    if (threads) accept_all(listener, [&](int fd) { std::thread(handle, fd).detach(); });
    baton::run([&] {
        if (!baton::hooks_active()) throw std::runtime_error("libbaton_preload.so is not there");
        accept_all(listener, [&](int fd) { baton::go(handle, fd); });
    });
} catch (const std::exception& e) {
    std::fprintf(stderr, "tlsproxy: %s\n", e.what());
    return 1;
}
