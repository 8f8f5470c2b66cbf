// SPDX-License-Identifier: Apache-2.0
//
// connect.
#include <netinet/in.h>
#include <poll.h>
#include <sys/un.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

std::string connected(int fd, const Listening& l) {
    return result(::connect(fd, reinterpret_cast<const sockaddr*>(&l.at), l.len));
}
Fd tcp_socket(int flags = 0) { return Fd(::socket(AF_INET, SOCK_STREAM | flags, 0)); }

/// A listener, and connections that fill its queue: the next one waits.
struct Full {
    Listening l = listening();
    std::vector<Fd> in_queue;
    Full() {
        ::listen(l.fd, 0);
        for (int i = 0; i < 4; i++) {
            in_queue.push_back(tcp_socket(SOCK_NONBLOCK));
            (void)connected(in_queue.back(), l);
        }
        std::this_thread::sleep_for(2ms);
    }
};

void add_tcp(Rows& rows) {
    const auto row = [&](const char* name, std::function<std::string(int, const Listening&)> body) {
        rows.push_back({std::string("connect ") + name, [=] {
                            const Listening l = listening();
                            const Fd fd = tcp_socket();
                            return body(fd, l);
                        }});
    };
    row("and talk", [](int fd, const Listening& l) {
        std::string what = connected(fd, l);
        const Fd peer(::accept(l.fd, nullptr, nullptr));
        char b[4] = {};
        what += result(::write(fd, "abc", 3));
        what += result(::read(peer, b, 4)) + b;
        return what + std::to_string(::fcntl(fd, F_GETFL) & O_NONBLOCK);
    });
    row("twice", [](int fd, const Listening& l) { return connected(fd, l) + connected(fd, l); });
    row("nowhere", [](int fd, const Listening& l) {
        const Listening gone = l.fd >= 0 ? listening() : Listening();
        ::shutdown(gone.fd, SHUT_RDWR);
        return connected(fd, gone) + connected(fd, l);
    });
    row("nonblocking", [](int, const Listening& l) {
        const Fd fd = tcp_socket(SOCK_NONBLOCK);
        std::string what = connected(fd, l);
        pollfd p{fd, POLLOUT, 0};
        ::poll(&p, 1, 1000);
        return what + connected(fd, l) + connected(fd, l);
    });
    row("and disconnect", [](int fd, const Listening& l) {
        sockaddr none{};
        none.sa_family = AF_UNSPEC;
        std::string what = connected(fd, l);
        what += result(::connect(fd, &none, sizeof none));
        return what + connected(fd, l);
    });
    row("bad address", [](int fd, const Listening&) {
        return result(::connect(fd, reinterpret_cast<const sockaddr*>(16), 16));
    });
    row("short address", [](int fd, const Listening& l) {
        return result(::connect(fd, reinterpret_cast<const sockaddr*>(&l.at), 1));
    });
    row("long address", [](int fd, const Listening& l) {
        return result(::connect(fd, reinterpret_cast<const sockaddr*>(&l.at), 1000));
    });
    row("another family", [](int fd, const Listening&) {
        sockaddr_un at{AF_UNIX, "/nonexistent"};
        return result(::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at));
    });
    row("a listener", [](int, const Listening& l) { return connected(l.fd, l); });
    row("not open", [](int, const Listening& l) { return connected(4000, l); });
    row("a file", [](int, const Listening& l) {
        const Fd file(::open("/etc/passwd", O_RDONLY));
        return connected(file, l);
    });
    row("timed out", [](int fd, const Listening&) {
        Full full;
        timeout(fd, SO_SNDTIMEO, 50ms);
        const auto start = Clock::now();
        std::string what = connected(fd, full.l);
        what += timing(start, 50ms);
        what += connected(fd, full.l); // it is under way still
        what += timing(start, 100ms);
        ::fcntl(fd, F_SETFL, O_NONBLOCK);
        return what + connected(fd, full.l);
    });
    row("under way", [](int, const Listening& l) {
        const Fd fd = tcp_socket(SOCK_NONBLOCK);
        (void)connected(fd, l);
        ::fcntl(fd, F_SETFL, 0);
        return connected(fd, l) + connected(fd, l);
    });
}

/// A Unix listener whose queue is full: the next one waits, until an accept.
struct FullUnix {
    sockaddr_un at{};
    Fd fd;
    std::vector<Fd> in_queue;
    explicit FullUnix(int type) : fd(::socket(AF_UNIX, type, 0)), type_(type) {
        at.sun_family = AF_UNIX;
        ::bind(fd, to(), sizeof(sa_family_t)); // a name of the kernel's choice
        socklen_t len = sizeof at;
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &len);
        len_ = len;
        ::listen(fd, 0);
        in_queue.emplace_back(::socket(AF_UNIX, type, 0));
        (void)::connect(in_queue.back(), to(), len_);
    }
    const sockaddr* to() const { return reinterpret_cast<const sockaddr*>(&at); }
    std::string connected(int by) const { return result(::connect(by, to(), len_)); }
    Fd socket(int flags = 0) const { return Fd(::socket(AF_UNIX, type_ | flags, 0)); }

private:
    int type_;
    socklen_t len_ = 0;
};

void add_full_unix(Rows& rows, int type, const std::string& name) {
    const auto row = [&](const char* what, std::function<std::string(FullUnix&)> body) {
        rows.push_back({"connect " + name + " " + what, [=] {
                            FullUnix full(type);
                            return body(full);
                        }});
    };
    row("waits for room", [](FullUnix& full) {
        const Fd fd = full.socket();
        const auto start = Clock::now();
        Later accept([&] { ::close(::accept(full.fd, nullptr, nullptr)); }, 30ms);
        return full.connected(fd) + timing(start, 30ms);
    });
    row("timed out", [](FullUnix& full) {
        const Fd fd = full.socket();
        timeout(fd, SO_SNDTIMEO, 40ms);
        const auto start = Clock::now();
        return full.connected(fd) + timing(start, 40ms);
    });
    row("nonblocking", [](FullUnix& full) {
        const Fd fd = full.socket(SOCK_NONBLOCK);
        const std::string what = full.connected(fd);
        ::close(::accept(full.fd, nullptr, nullptr));
        return what + full.connected(fd);
    });
    row("refused while it waits", [](FullUnix& full) {
        const Fd fd = full.socket();
        Later close([&] { full.fd.reset(); }, 30ms);
        return full.connected(fd);
    });
}

void add_others(Rows& rows) {
    add_full_unix(rows, SOCK_STREAM, "unix");
    add_full_unix(rows, SOCK_SEQPACKET, "seqpacket");
    rows.push_back({"connect unix", [] {
                        char name[] = "/tmp/baton-rows-XXXXXX";
                        ::close(::mkstemp(name));
                        ::unlink(name);
                        sockaddr_un at{};
                        at.sun_family = AF_UNIX;
                        std::strcpy(at.sun_path, name);
                        const auto* to = reinterpret_cast<const sockaddr*>(&at);
                        const Fd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
                        std::string what = result(::connect(fd, to, sizeof at));
                        const Fd l(::socket(AF_UNIX, SOCK_STREAM, 0));
                        ::bind(l, to, sizeof at);
                        ::listen(l, 4);
                        what += result(::connect(fd, to, sizeof at));
                        ::unlink(name);
                        return what;
                    }});
    rows.push_back({"connect udp", [] {
                        const Listening l = listening();
                        const Fd fd(::socket(AF_INET, SOCK_DGRAM, 0));
                        return connected(fd, l) + connected(fd, l);
                    }});
}

} // namespace

void add_dials(Rows& rows) {
    add_tcp(rows);
    add_others(rows);
}

} // namespace rows
