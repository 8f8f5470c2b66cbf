// SPDX-License-Identifier: Apache-2.0
//
// Every call that writes, on everything it can write to; accept and connect.
#include <cstring>

#include <sys/uio.h>
#include <sys/un.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

struct Writer {
    const char* name;
    bool any;
    long (*write)(int fd, const void* buf, std::size_t n);
};

long by_vector(int fd, const void* buf, std::size_t n) {
    auto* p = static_cast<char*>(const_cast<void*>(buf));
    const iovec iov[] = {{p, n / 3}, {p + n / 3, n - n / 3}, {nullptr, 0}};
    return ::writev(fd, iov, 3);
}
long by_message(int fd, const void* buf, std::size_t n) {
    auto* p = static_cast<char*>(const_cast<void*>(buf));
    iovec iov[] = {{p, n / 2}, {p + n / 2, n - n / 2}};
    msghdr msg{};
    msg.msg_iov = iov;
    msg.msg_iovlen = 2;
    return ::sendmsg(fd, &msg, 0);
}
long by_messages(int fd, const void* buf, std::size_t n) {
    iovec iov{const_cast<void*>(buf), n};
    mmsghdr msg{};
    msg.msg_hdr.msg_iov = &iov;
    msg.msg_hdr.msg_iovlen = 1;
    const int r = ::sendmmsg(fd, &msg, 1, 0);
    return r == 1 ? static_cast<long>(msg.msg_len) : r;
}

constexpr Writer kWriters[] = {
    {"write", true, [](int fd, const void* b, std::size_t n) -> long { return ::write(fd, b, n); }},
    {"writev", true, by_vector},
    {"send", false,
     [](int fd, const void* b, std::size_t n) -> long { return ::send(fd, b, n, 0); }},
    {"sendto", false,
     [](int fd, const void* b, std::size_t n) -> long {
         return ::sendto(fd, b, n, 0, nullptr, 0);
     }},
    {"sendmsg", false, by_message},
    {"sendmmsg", false, by_messages},
};

constexpr std::size_t kMuch = 4 << 20; // more than any buffer holds

std::vector<char> much() {
    std::vector<char> data(kMuch);
    for (std::size_t i = 0; i < kMuch; i++) data[i] = static_cast<char>(i * 7 + i / 251);
    return data;
}

/// TCP makes its buffers larger by itself, until all of that fits, unless they have been set.
void little_room(const Pair& p) {
    const int n = 65536;
    (void)::setsockopt(p.a, SOL_SOCKET, SO_RCVBUF, &n, sizeof n);
    (void)::setsockopt(p.b, SOL_SOCKET, SO_SNDBUF, &n, sizeof n);
}

/// Reads all there is, and says whether it is what was sent.
std::string drained(int fd, const std::vector<char>& data, std::size_t most) {
    std::vector<char> got(most);
    std::size_t n = 0;
    while (n < most) {
        const ssize_t r = ::read(fd, got.data() + n, most - n);
        if (r <= 0) break;
        n += static_cast<std::size_t>(r);
    }
    return n == most && std::memcmp(got.data(), data.data(), n) == 0 ? " intact" : " broken";
}

std::string fits(const Writer& w, Ends, Pair& p) {
    std::string what = result(w.write(p.b, "hello!", 6));
    char buf[16] = {};
    (void)!::read(p.a, buf, sizeof buf);
    return what + " " + buf;
}
std::string in_full(const Writer& w, Ends, Pair& p) {
    const std::vector<char> data = much();
    std::string read;
    std::string what;
    {
        Later reader([&] { read = drained(p.a, data, kMuch); });
        what = result(w.write(p.b, data.data(), kMuch));
    }
    return what + read;
}
std::string partial(const Writer& w, Ends, Pair& p) {
    const std::vector<char> data = much();
    little_room(p);
    nonblocking(p.b);
    const long r = w.write(p.b, data.data(), kMuch);
    const std::string what = r > 0 && r < static_cast<long>(kMuch) ? "a part, " : result(r) + ", ";
    // The rest of the room, if that was not all of it.
    while (w.write(p.b, data.data(), 1) == 1) {
    }
    return what + result(w.write(p.b, data.data(), 1));
}
std::string timed_out(const Writer& w, Ends, Pair& p) {
    const std::vector<char> data = much();
    little_room(p);
    timeout(p.b, SO_SNDTIMEO, 20ms);
    const auto start = Clock::now();
    const long r = w.write(p.b, data.data(), kMuch);
    const std::string what = r > 0 && r < static_cast<long>(kMuch) ? "a part" : result(r);
    return what + timing(start, 20ms);
}
std::string broken(const Writer& w, Ends, Pair& p) {
    p.a.reset();
    (void)w.write(p.b, "x", 1); // TCP learns of it by this one
    std::this_thread::sleep_for(5ms);
    return result(w.write(p.b, "x", 1));
}
std::string broken_later(const Writer& w, Ends, Pair& p) {
    const std::vector<char> data = much();
    little_room(p);
    Later close([&] { p.a.reset(); });
    const long r = w.write(p.b, data.data(), kMuch);
    // A part went out, then the end: the part counts; a pipe's or another's may be none.
    return r < static_cast<long>(kMuch) ? "not all" : result(r);
}
std::string closed(const Writer& w, Ends, Pair& p) {
    const int fd = p.b;
    p.b.reset();
    return result(w.write(fd, "x", 1));
}
std::string fault(const Writer& w, Ends, Pair& p) {
    return result(w.write(p.b, reinterpret_cast<void*>(16), 4));
}
std::string none(const Writer& w, Ends, Pair& p) { return result(w.write(p.b, "", 0)); }
std::string read_only(const Writer& w, Ends, Pair&) {
    const Fd fd(::open("/dev/null", O_RDONLY));
    return result(w.write(fd, "x", 1));
}

void add(Rows& rows, const Writer& writer, Ends ends, const char* what,
         std::string (*condition)(const Writer&, Ends, Pair&)) {
    rows.push_back({std::string(writer.name) + " " + name_of(ends) + " " + what, [=, &writer] {
                        Pair p = make(ends);
                        return condition(writer, ends, p);
                    }});
}

void add_all(Rows& rows, const Writer& writer, Ends ends) {
    add(rows, writer, ends, "fits", fits);
    add(rows, writer, ends, "closed", closed);
    add(rows, writer, ends, "fault", fault);
    add(rows, writer, ends, "read only", read_only);
    if (!is_stream(ends) && ends != Ends::kPipe) return;
    add(rows, writer, ends, "in full", in_full);
    add(rows, writer, ends, "partial", partial);
    add(rows, writer, ends, "broken", broken);
    add(rows, writer, ends, "broken later", broken_later);
    add(rows, writer, ends, "none", none);
    if (is_socket(ends)) add(rows, writer, ends, "timed out", timed_out);
}

// ---- accept and connect ----

long accept_as(bool four, int fd) {
    return four ? ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC) : ::accept(fd, nullptr, nullptr);
}

std::string accepted(bool four, int fd) {
    const Fd got(static_cast<int>(accept_as(four, fd)));
    if (got < 0) return result(-1);
    const int flags = ::fcntl(got, F_GETFL), more = ::fcntl(got, F_GETFD);
    return std::string("one") + (flags & O_NONBLOCK ? " nonblocking" : "") +
           (more & FD_CLOEXEC ? " cloexec" : "");
}

void add_accepts(Rows& rows, bool four) {
    const std::string name = four ? "accept4 " : "accept ";
    rows.push_back({name + "ready", [=] {
                        Listening l = listening();
                        const Fd c(::socket(AF_INET, SOCK_STREAM, 0));
                        std::string what =
                            result(::connect(c, reinterpret_cast<sockaddr*>(&l.at), l.len));
                        return what + accepted(four, l.fd);
                    }});
    rows.push_back({name + "later", [=] {
                        Listening l = listening();
                        const Fd c(::socket(AF_INET, SOCK_STREAM, 0));
                        Later connect(
                            [&] { ::connect(c, reinterpret_cast<sockaddr*>(&l.at), l.len); });
                        return accepted(four, l.fd);
                    }});
    rows.push_back({name + "nonblocking", [=] {
                        Listening l = listening();
                        nonblocking(l.fd);
                        return accepted(four, l.fd);
                    }});
    rows.push_back({name + "timed out", [=] {
                        Listening l = listening();
                        timeout(l.fd, SO_RCVTIMEO, 20ms);
                        const auto start = Clock::now();
                        const std::string what = accepted(four, l.fd);
                        return what + timing(start, 20ms);
                    }});
    rows.push_back({name + "not listening", [=] {
                        const Fd s(::socket(AF_INET, SOCK_STREAM, 0));
                        return accepted(four, s);
                    }});
    rows.push_back({name + "no socket", [=] {
                        const Pair p = make(Ends::kPipe);
                        (void)!::write(p.b, "x", 1);
                        return accepted(four, p.a);
                    }});
    rows.push_back({name + "closed", [=] { return accepted(four, 4000); }});
    rows.push_back({name + "two wait", [=] {
                        Listening l = listening();
                        std::string other;
                        std::string mine;
                        {
                            Later also([&] { other = accepted(four, l.fd); }, 1ms);
                            Later connect([&] {
                                for (int i = 0; i < 2; i++) {
                                    const Fd c(::socket(AF_INET, SOCK_STREAM, 0));
                                    ::connect(c, reinterpret_cast<sockaddr*>(&l.at), l.len);
                                    std::this_thread::sleep_for(5ms);
                                }
                            });
                            mine = accepted(four, l.fd);
                        }
                        return mine + other;
                    }});
}

void add_connects(Rows& rows) {
    rows.push_back({"connect refused", [] {
                        Listening l = listening();
                        l.fd.reset();
                        const Fd c(::socket(AF_INET, SOCK_STREAM, 0));
                        return result(::connect(c, reinterpret_cast<sockaddr*>(&l.at), l.len));
                    }});
    rows.push_back({"connect twice", [] {
                        Listening l = listening();
                        const Fd c(::socket(AF_INET, SOCK_STREAM, 0));
                        (void)::connect(c, reinterpret_cast<sockaddr*>(&l.at), l.len);
                        return result(::connect(c, reinterpret_cast<sockaddr*>(&l.at), l.len));
                    }});
    rows.push_back({"connect unix, nobody", [] {
                        sockaddr_un at{};
                        at.sun_family = AF_UNIX;
                        std::strcpy(at.sun_path, "/nonexistent/socket");
                        const Fd c(::socket(AF_UNIX, SOCK_STREAM, 0));
                        return result(::connect(c, reinterpret_cast<sockaddr*>(&at), sizeof at));
                    }});
    rows.push_back({"connect no socket", [] {
                        Listening l = listening();
                        const Pair p = make(Ends::kPipe);
                        return result(::connect(p.a, reinterpret_cast<sockaddr*>(&l.at), l.len));
                    }});
}

// ---- what goes along with the bytes ----

std::string descriptor_passed() {
    Pair p = make(Ends::kUnix);
    Pair sent = make(Ends::kPipe);
    char control[CMSG_SPACE(sizeof(int))] = {}, byte = 'x';
    iovec iov{&byte, 1};
    msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    const auto send = [&] {
        cmsghdr* c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        const int fd = sent.b;
        std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
        ::sendmsg(p.b, &msg, 0);
    };
    char into[CMSG_SPACE(sizeof(int))] = {}, got = 0;
    iovec iov2{&got, 1};
    msghdr msg2{};
    msg2.msg_iov = &iov2;
    msg2.msg_iovlen = 1;
    msg2.msg_control = into;
    msg2.msg_controllen = sizeof into;
    std::string what;
    {
        Later later(send);
        what = result(::recvmsg(p.a, &msg2, 0));
    }
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg2)), sizeof fd);
    const Fd received(fd);
    what += result(::write(received, "hi", 2));
    char buf[4] = {};
    (void)!::read(sent.a, buf, 2);
    return what + buf;
}

} // namespace

void add_writes(Rows& rows) {
    for (const Writer& writer : kWriters)
        for (int e = 0; e < static_cast<int>(Ends::kCount); e++)
            if (writer.any || is_socket(static_cast<Ends>(e)))
                add_all(rows, writer, static_cast<Ends>(e));
    add_accepts(rows, false);
    add_accepts(rows, true);
    add_connects(rows);
    rows.push_back({"recvmsg SCM_RIGHTS", descriptor_passed});
}

} // namespace rows
