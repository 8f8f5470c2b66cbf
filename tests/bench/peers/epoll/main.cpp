// SPDX-License-Identifier: Apache-2.0
//
// What the kernel's interface allows, with no runtime in between: a thread per CPU with an epoll of
// its own, level-triggered, connections dealt out to them in turn. For each request one read and
// one write, and an epoll_wait for as many connections as were ready.
//
// The HTTP is that of tools/examples/httpd.cpp for "/": libhttp-parser, the same buffers, the
// answer copied from the same text; so what differs from baton's server is how it waits.
// `epoll http` prints "listening on HOST:PORT".
#include <arpa/inet.h>
#include <gnu/libc-version.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr std::string_view kHello = "HTTP/1.1 200 OK\r\n"
                                    "Content-Type: text/plain\r\n"
                                    "Content-Length: 13\r\n\r\n"
                                    "Hello, World!";
constexpr std::string_view kNotFound = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
constexpr int kEventsMax = 128;

[[noreturn]] void die(const char* what) {
    std::fprintf(stderr, "epoll: %s: %s\n", what, std::strerror(errno));
    std::_Exit(1);
}

struct Connection {
    int fd = -1;
    http_parser parser{};
    std::uint8_t url_len = 0;
    std::uint16_t out_len = 0;
    char url[64];
    char out[512];
    char in[1024];

    bool serve();
    void answer();
    bool flush();
};

Connection* of(http_parser* parser) { return static_cast<Connection*>(parser->data); }

bool Connection::flush() {
    const std::size_t n = out_len;
    out_len = 0;
    // Answers are small and wait for each other: that the buffer is full does not come up.
    return n == 0 || ::send(fd, out, n, MSG_NOSIGNAL) == static_cast<ssize_t>(n);
}

void Connection::answer() {
    const std::string_view text = std::string_view(url, url_len) == "/" ? kHello : kNotFound;
    if (sizeof out - out_len < text.size()) flush();
    std::memcpy(out + out_len, text.data(), text.size());
    out_len = static_cast<std::uint16_t>(out_len + text.size());
}

int on_message_begin(http_parser* parser) {
    of(parser)->url_len = 0;
    return 0;
}

int on_url(http_parser* parser, const char* at, std::size_t n) {
    Connection* c = of(parser);
    if (n > sizeof c->url - c->url_len) return 1;
    std::memcpy(c->url + c->url_len, at, n);
    c->url_len = static_cast<std::uint8_t>(c->url_len + n);
    return 0;
}

int on_message_complete(http_parser* parser) {
    of(parser)->answer();
    return http_should_keep_alive(parser) ? 0 : 1;
}

/// Takes what there is. False: the connection is to end.
bool Connection::serve() {
    static const http_parser_settings settings = [] {
        http_parser_settings s;
        http_parser_settings_init(&s);
        s.on_message_begin = on_message_begin;
        s.on_url = on_url;
        s.on_message_complete = on_message_complete;
        return s;
    }();
    const ssize_t n = ::read(fd, in, sizeof in);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    const auto size = static_cast<std::size_t>(n);
    const bool whole = http_parser_execute(&parser, &settings, in, size) == size;
    return flush() && whole && HTTP_PARSER_ERRNO(&parser) == HPE_OK;
}

void loop(int epfd) {
    for (;;) {
        epoll_event events[kEventsMax];
        const int n = ::epoll_wait(epfd, events, kEventsMax, -1);
        for (int i = 0; i < n; i++) {
            auto* c = static_cast<Connection*>(events[i].data.ptr);
            if (c->serve()) continue;
            ::close(c->fd);
            delete c;
        }
    }
}

void serve() {
    cpu_set_t cpus;
    ::sched_getaffinity(0, sizeof cpus, &cpus);
    std::vector<int> epolls;
    for (int i = 0; i < CPU_COUNT(&cpus); i++) {
        epolls.push_back(::epoll_create1(EPOLL_CLOEXEC));
        std::thread(loop, epolls.back()).detach();
    }
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    const int one = 1;
    ::setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); // they inherit it
    if (::bind(listener, any, size) != 0 || ::listen(listener, 4096) != 0 ||
        ::getsockname(listener, any, &size) != 0)
        die("listen");
    std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
    for (std::size_t next = 0;; next = (next + 1) % epolls.size()) {
        auto* c = new Connection;
        c->fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (c->fd < 0) die("accept");
        http_parser_init(&c->parser, HTTP_REQUEST);
        c->parser.data = c;
        epoll_event ev{};
        ev.events = EPOLLIN | EPOLLRDHUP;
        ev.data.ptr = c;
        if (::epoll_ctl(epolls[next], EPOLL_CTL_ADD, c->fd, &ev) != 0) die("epoll_ctl");
    }
}

} // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    if (what == "version") {
        std::printf("version=glibc %s\n", ::gnu_get_libc_version());
    } else if (what == "http" || what == "idle") {
        serve();
    } else {
        std::fprintf(stderr, "epoll: unknown benchmark '%s'\n", argc > 1 ? argv[1] : "");
        return 1;
    }
}
