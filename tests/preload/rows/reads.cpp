// SPDX-License-Identifier: Apache-2.0
//
// Every call that reads, on everything it can read from, in every condition.
#include <cstring>

#include <sys/uio.h>
#include <termios.h>

#include "preload/rows/rows.hpp"

extern "C" {
ssize_t __read_chk(int fd, void* buf, size_t n, size_t room);
ssize_t __recv_chk(int fd, void* buf, size_t n, size_t room, int flags);
}

namespace rows {

namespace {

struct Reader {
    const char* name;
    bool any; // not sockets alone
    long (*read)(int fd, void* buf, std::size_t n);
};

long by_vector(int fd, void* buf, std::size_t n) {
    const iovec iov[] = {{buf, n / 2}, {static_cast<char*>(buf) + n / 2, n - n / 2}};
    return ::readv(fd, iov, 2);
}
long by_message(int fd, void* buf, std::size_t n) {
    iovec iov{buf, n};
    msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    return ::recvmsg(fd, &msg, 0);
}
long by_messages(int fd, void* buf, std::size_t n) {
    iovec iov{buf, n};
    mmsghdr msg{};
    msg.msg_hdr.msg_iov = &iov;
    msg.msg_hdr.msg_iovlen = 1;
    const int r = ::recvmmsg(fd, &msg, 1, 0, nullptr);
    return r == 1 ? static_cast<long>(msg.msg_len) : r;
}
long by_recvfrom(int fd, void* buf, std::size_t n) {
    sockaddr_storage from;
    socklen_t len = sizeof from;
    return ::recvfrom(fd, buf, n, 0, reinterpret_cast<sockaddr*>(&from), &len);
}

constexpr Reader kReaders[] = {
    {"read", true, [](int fd, void* b, std::size_t n) -> long { return ::read(fd, b, n); }},
    {"__read_chk", true,
     [](int fd, void* b, std::size_t n) -> long { return __read_chk(fd, b, n, n); }},
    {"readv", true, by_vector},
    {"recv", false, [](int fd, void* b, std::size_t n) -> long { return ::recv(fd, b, n, 0); }},
    {"__recv_chk", false,
     [](int fd, void* b, std::size_t n) -> long { return __recv_chk(fd, b, n, n, 0); }},
    {"recvfrom", false, by_recvfrom},
    {"recvmsg", false, by_message},
    {"recvmmsg", false, by_messages},
};

using Condition = std::string (*)(const Reader& reader, Ends ends, Pair& p);

std::string seen(const Reader& reader, int fd, std::size_t n = 16) {
    char buf[64] = {};
    const long r = reader.read(fd, buf, n);
    return result(r) + " '" + std::string(buf, buf + std::max(r, 0L)) + "'";
}

std::string ready(const Reader& reader, Ends, Pair& p) {
    (void)!::write(p.b, "hello", 5);
    return seen(reader, p.a);
}
std::string later(const Reader& reader, Ends, Pair& p) {
    const auto start = Clock::now();
    Later write([&] { (void)!::write(p.b, "later", 5); });
    const std::string what = seen(reader, p.a);
    return what + timing(start, 10ms);
}
std::string in_parts(const Reader& reader, Ends, Pair& p) {
    (void)!::write(p.b, "abcdefgh", 8);
    std::string what = seen(reader, p.a, 4);
    nonblocking(p.a);
    return what + ", " + seen(reader, p.a);
}
std::string end(const Reader& reader, Ends, Pair& p) {
    p.b.reset();
    return seen(reader, p.a);
}
std::string end_later(const Reader& reader, Ends, Pair& p) {
    Later close([&] { p.b.reset(); });
    return seen(reader, p.a);
}
std::string would_block(const Reader& reader, Ends, Pair& p) {
    nonblocking(p.a);
    std::string what = seen(reader, p.a);
    what += ::fcntl(p.a, F_GETFL) & O_NONBLOCK ? ", still nonblocking" : ", blocking";
    (void)!::write(p.b, "x", 1);
    std::this_thread::sleep_for(1ms);
    return what + ", " + seen(reader, p.a);
}
std::string stays_blocking(const Reader& reader, Ends, Pair& p) {
    Later write([&] { (void)!::write(p.b, "x", 1); });
    const std::string what = seen(reader, p.a);
    return what + (::fcntl(p.a, F_GETFL) & O_NONBLOCK ? ", nonblocking" : ", still blocking");
}
std::string timed_out(const Reader& reader, Ends, Pair& p) {
    timeout(p.a, SO_RCVTIMEO, 20ms);
    const auto start = Clock::now();
    const std::string what = seen(reader, p.a);
    return what + timing(start, 20ms);
}
std::string in_time(const Reader& reader, Ends, Pair& p) {
    timeout(p.a, SO_RCVTIMEO, 5s);
    Later write([&] { (void)!::write(p.b, "x", 1); });
    return seen(reader, p.a);
}
std::string fault(const Reader& reader, Ends, Pair& p) {
    (void)!::write(p.b, "hello", 5);
    return result(reader.read(p.a, reinterpret_cast<void*>(16), 4));
}
std::string closed(const Reader& reader, Ends, Pair& p) {
    const int fd = p.a;
    p.a.reset();
    return seen(reader, fd);
}
std::string write_only(const Reader& reader, Ends, Pair& p) {
    const Fd fd(::open("/dev/null", O_WRONLY));
    (void)p;
    return seen(reader, fd);
}
std::string none(const Reader& reader, Ends, Pair& p) {
    (void)!::write(p.b, "hello", 5);
    char buf[1];
    return result(reader.read(p.a, buf, 0));
}
std::string two_wait(const Reader& reader, Ends, Pair& p) {
    std::string other;
    {
        Later also([&] { other = seen(reader, p.a, 1); }, 1ms);
        Later write([&] {
            (void)!::write(p.b, "a", 1);
            std::this_thread::sleep_for(10ms);
            (void)!::write(p.b, "b", 1);
        });
        const std::string mine = seen(reader, p.a, 1);
        if (mine.starts_with("1 ") && mine != "1 'a'" && mine != "1 'b'") return mine;
    }
    return other.starts_with("1 ") ? "each one" : other;
}

bool ends_tell(Ends e) { return is_stream(e) || e == Ends::kSeqpacket || e == Ends::kPipe; }

void add(Rows& rows, const Reader& reader, Ends ends, const char* what, Condition condition) {
    rows.push_back({std::string(reader.name) + " " + name_of(ends) + " " + what, [=, &reader] {
                        Pair p = make(ends);
                        return condition(reader, ends, p);
                    }});
}

void add_all(Rows& rows, const Reader& reader, Ends ends) {
    add(rows, reader, ends, "ready", ready);
    add(rows, reader, ends, "later", later);
    add(rows, reader, ends, "in parts", in_parts);
    add(rows, reader, ends, "nonblocking", would_block);
    add(rows, reader, ends, "blocking", stays_blocking);
    add(rows, reader, ends, "closed", closed);
    add(rows, reader, ends, "two wait", two_wait);
    if (ends_tell(ends)) {
        add(rows, reader, ends, "end", end);
        add(rows, reader, ends, "end later", end_later);
    }
    if (is_socket(ends)) {
        add(rows, reader, ends, "timed out", timed_out);
        add(rows, reader, ends, "in time", in_time);
    }
    if (ends != Ends::kPty) add(rows, reader, ends, "fault", fault);
    if (ends == Ends::kUnix) add(rows, reader, ends, "write only", write_only);
    if (is_stream(ends) || ends == Ends::kPipe) add(rows, reader, ends, "none", none);
}

// ---- MSG_WAITALL, MSG_PEEK and MSG_DONTWAIT ----

std::string wait_all(Pair& p, bool ends_early) {
    char buf[32] = {};
    Later write([&] {
        (void)!::write(p.b, "abc", 3);
        std::this_thread::sleep_for(5ms);
        (void)!::write(p.b, "defgh", 5);
        if (ends_early) p.b.reset();
    });
    const long r = ::recv(p.a, buf, ends_early ? 20 : 8, MSG_WAITALL);
    return result(r) + " " + buf;
}

void add_flags(Rows& rows, Ends ends) {
    const std::string on = std::string(" ") + name_of(ends);
    const auto row = [&](const char* name, std::function<std::string(Pair&)> body) {
        rows.push_back({name + on, [=] {
                            Pair p = make(ends);
                            return body(p);
                        }});
    };
    row("recv MSG_DONTWAIT", [](Pair& p) {
        char b[4];
        return result(::recv(p.a, b, 4, MSG_DONTWAIT));
    });
    row("recv MSG_PEEK", [](Pair& p) {
        char b[8] = {};
        Later write([&] { (void)!::write(p.b, "peek", 4); });
        const long first = ::recv(p.a, b, 2, MSG_PEEK);
        return result(first) + result(::recv(p.a, b, 4, 0)) + b;
    });
    if (!is_stream(ends)) return;
    row("recv bad flag", [](Pair& p) {
        char b[4];
        return result(::recv(p.a, b, 4, MSG_OOB));
    });
    row("recv MSG_WAITALL", [](Pair& p) { return wait_all(p, false); });
    row("recv MSG_WAITALL, cut", [](Pair& p) { return wait_all(p, true); });
    row("recv MSG_WAITALL, timed out", [](Pair& p) {
        timeout(p.a, SO_RCVTIMEO, 20ms);
        (void)!::write(p.b, "abc", 3);
        char b[8];
        return result(::recv(p.a, b, 8, MSG_WAITALL));
    });
    row("recv MSG_WAITALL|MSG_DONTWAIT", [](Pair& p) {
        (void)!::write(p.b, "abc", 3);
        std::this_thread::sleep_for(1ms);
        char b[8];
        return result(::recv(p.a, b, 8, MSG_WAITALL | MSG_DONTWAIT));
    });
}

void add_messages(Rows& rows) {
    rows.push_back({"recvmmsg three, in parts", [] {
                        Pair p = make(Ends::kDgram);
                        char b[3][4];
                        iovec iov[3];
                        mmsghdr msgs[3] = {};
                        for (int i = 0; i < 3; i++) {
                            iov[i] = {b[i], 4};
                            msgs[i].msg_hdr.msg_iov = &iov[i];
                            msgs[i].msg_hdr.msg_iovlen = 1;
                        }
                        (void)!::write(p.b, "1", 1);
                        Later write([&] {
                            (void)!::write(p.b, "22", 2);
                            std::this_thread::sleep_for(5ms);
                            (void)!::write(p.b, "333", 3);
                        });
                        std::string what = result(::recvmmsg(p.a, msgs, 3, 0, nullptr));
                        for (const mmsghdr& m : msgs) what += " " + std::to_string(m.msg_len);
                        return what;
                    }});
    rows.push_back({"recvmmsg MSG_WAITFORONE", [] {
                        Pair p = make(Ends::kDgram);
                        char b[4];
                        iovec iov{b, 4};
                        mmsghdr msgs[2] = {};
                        for (mmsghdr& m : msgs) {
                            m.msg_hdr.msg_iov = &iov;
                            m.msg_hdr.msg_iovlen = 1;
                        }
                        Later write([&] { (void)!::write(p.b, "1", 1); });
                        return result(::recvmmsg(p.a, msgs, 2, MSG_WAITFORONE, nullptr));
                    }});
}

/// Terminals without lines: how many bytes a read is to wait for, and how long (tenths of a
/// second).
void add_terminals(Rows& rows) {
    struct Case {
        const char* name;
        cc_t min, time;
        const char *first, *then;
        std::chrono::milliseconds least;
    };
    static constexpr Case kCases[] = {
        {"VMIN 0", 0, 0, "", "", 0ms},
        {"VMIN 0, something there", 0, 0, "ab", "", 0ms},
        {"VMIN 0 VTIME 1", 0, 1, "", "", 100ms},
        {"VMIN 0 VTIME 1, something comes", 0, 1, "", "ab", 10ms},
        {"VMIN 2 VTIME 1, one comes", 2, 1, "", "a", 100ms},
        {"VMIN 5, fewer asked for", 5, 0, "abcd", "", 0ms},
        {"VMIN 3, one byte after the other", 3, 0, "a", "bc", 10ms},
    };
    struct Form {
        const char* name;
        long (*read)(int fd, char* buf, std::size_t n);
    };
    static constexpr Form kForms[] = {
        {"read", [](int fd, char* b, std::size_t n) -> long { return ::read(fd, b, n); }},
        {"readv", [](int fd, char* b, std::size_t n) { return by_vector(fd, b, n); }},
        {"getc",
         [](int fd, char* b, std::size_t) {
             FILE* f = ::fdopen(::dup(fd), "r");
             const int c = std::getc(f);
             if (c != EOF) *b = static_cast<char>(c);
             ::fclose(f);
             return c == EOF ? 0L : 1L;
         }},
    };
    for (const Form& form : kForms) {
        for (const Case& c : kCases) {
            if (form.name == std::string("getc") && c.min > 0)
                continue; // it asks for a buffer full
            rows.push_back({form.name + std::string(" pty ") + c.name, [&form, &c] {
                                Pair p = make(Ends::kPty);
                                termios t{};
                                ::tcgetattr(p.a, &t);
                                t.c_cc[VMIN] = c.min;
                                t.c_cc[VTIME] = c.time;
                                ::tcsetattr(p.a, TCSANOW, &t);
                                (void)!::write(p.b, c.first, std::strlen(c.first));
                                const auto start = Clock::now();
                                Later more(
                                    [&] { (void)!::write(p.b, c.then, std::strlen(c.then)); });
                                char b[8] = {};
                                return result(form.read(p.a, b, 4)) + b + timing(start, c.least);
                            }});
        }
    }
}

} // namespace

void add_reads(Rows& rows) {
    for (const Reader& reader : kReaders)
        for (int e = 0; e < static_cast<int>(Ends::kCount); e++)
            if (reader.any || is_socket(static_cast<Ends>(e)))
                add_all(rows, reader, static_cast<Ends>(e));
    for (int e = 0; e <= static_cast<int>(Ends::kSeqpacket); e++)
        add_flags(rows, static_cast<Ends>(e));
    add_messages(rows);
    add_terminals(rows);
}

} // namespace rows
