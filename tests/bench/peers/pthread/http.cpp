// SPDX-License-Identifier: Apache-2.0
//
// A thread for each connection, blocking reads and writes. What the request parser does, all
// servers of these benchmarks do: find the end of the headers, take the request line apart, walk
// the header lines for `Connection: close`, keep what was read beyond the request, answer in one
// write.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

#include "threads.hpp"

namespace {

struct Request {
    std::string_view path;
    bool keep_alive;
};

/// A request whose header block, with its last empty line, is `head`.
std::optional<Request> parse(std::string_view head) {
    auto end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    const auto first = line.find(' '), last = line.rfind(' ');
    if (first == std::string_view::npos || first == last) return {};
    if (line.substr(0, first) != "GET" || !line.substr(last + 1).starts_with("HTTP/1.")) return {};
    Request request{line.substr(first + 1, last - first - 1), !line.ends_with("1.0")};
    for (;;) {
        const auto begin = end + 2;
        end = head.find("\r\n", begin);
        if (end == begin) return request;
        const std::string_view header = head.substr(begin, end - begin);
        const auto colon = header.find(':');
        if (colon == std::string_view::npos) return {};
        if (colon == 10 && ::strncasecmp(header.data(), "connection", 10) == 0)
            request.keep_alive = header.find("close", colon) == std::string_view::npos;
    }
}

std::string response(const char* status, std::string_view body) {
    return std::string("HTTP/1.1 ") + status +
           "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n\r\n" + std::string(body);
}

const std::string kHello = response("200 OK", "Hello, World!");
const std::string kSlept = response("200 OK", "slept");
const std::string kNotFound = response("404 Not Found", "not found");

const std::string& answer(std::string_view path) {
    if (path == "/") return kHello;
    const std::size_t at = path.find("?us=");
    const std::string_view what = path.substr(0, at);
    if (at == std::string_view::npos || (what != "/block" && what != "/nap")) return kNotFound;
    long us = 0;
    std::from_chars(path.data() + at + 4, path.data() + path.size(), us);
    const timespec t{us / 1'000'000, us % 1'000'000 * 1000};
    ::syscall(SYS_nanosleep, &t, nullptr);
    return kSlept;
}

/// Answers the first request in `pending` and takes it off; false if the connection is to end.
bool answer_one(int fd, std::string_view& pending, std::size_t head) {
    const auto request = parse(pending.substr(0, head));
    if (!request) return false;
    const std::string& reply = answer(request->path);
    pending.remove_prefix(head);
    if (::send(fd, reply.data(), reply.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(reply.size()))
        return false;
    return request->keep_alive;
}

void converse(int fd) {
    char buf[8192];
    std::size_t filled = 0;
    for (bool more = true; more;) {
        const ssize_t n = ::read(fd, buf + filled, sizeof buf - filled);
        if (n <= 0) break;
        filled += static_cast<std::size_t>(n);
        std::string_view pending(buf, filled);
        std::size_t end = 0;
        while (more && (end = pending.find("\r\n\r\n")) != std::string_view::npos)
            more = answer_one(fd, pending, end + 4);
        if (!pending.empty()) std::memmove(buf, pending.data(), pending.size());
        filled = pending.size();
    }
    ::close(fd);
}

} // namespace

void serve() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener, any, size) != 0 || ::listen(listener, 1024) != 0 ||
        ::getsockname(listener, any, &size) != 0)
        throw bench::Failure(std::string("listen: ") + std::strerror(errno));
    std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
    for (;;) {
        const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) throw bench::Failure(std::string("accept: ") + std::strerror(errno));
        const int one = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        std::thread(converse, fd).detach();
    }
}
