// SPDX-License-Identifier: Apache-2.0
//
// The forms in which calls on descriptors come: fortified, with 64 and with underscores, and those
// calls that no other row makes.
#include <cstdlib>
#include <ctime>

#include <aio.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <syslog.h>
#include <termios.h>

#include "preload/rows/named.hpp"

namespace rows {

namespace {

using Size = std::size_t;

struct Scratch {
    char name[32] = "/tmp/baton-forms-XXXXXX";
    Fd fd{::mkstemp(name)};
    Scratch() { (void)!::write(fd, "0123456789", 10); }
    ~Scratch() { ::unlink(name); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    std::string text() const {
        char b[64] = {};
        const ssize_t n = ::pread(fd, b, sizeof b - 1, 0);
        return " " + std::string(b, static_cast<Size>(n < 0 ? 0 : n));
    }
};

void add_socket_forms(Rows& rows) {
    const auto row = [&](const char* name, Ends ends, std::function<std::string(Pair&)> body) {
        rows.push_back({name, [=] {
                            Pair p = make(ends);
                            Later write([&] { (void)!::write(p.b, "abc", 3); });
                            return body(p);
                        }});
    };
    const auto read = named<ssize_t(int, void*, Size)>("__read");
    row("__read", Ends::kPipe, [=](Pair& p) {
        char b[4] = {};
        return result(read(p.a, b, 4)) + b + result(read(-1, b, 4));
    });
    const auto recvfrom =
        named<ssize_t(int, void*, Size, Size, int, sockaddr*, socklen_t*)>("__recvfrom_chk");
    row("__recvfrom_chk", Ends::kUnix, [=](Pair& p) {
        char b[4] = {};
        return result(recvfrom(p.a, b, 4, 4, 0, nullptr, nullptr)) + b;
    });
    const auto write = named<ssize_t(int, const void*, Size)>("__write");
    const auto send = named<ssize_t(int, const void*, Size, int)>("__send");
    row("__write, __send", Ends::kUnix, [=](Pair& p) {
        char b[8] = {};
        const std::string what = result(write(p.a, "de", 2)) + result(send(p.a, "f", 1, 0));
        return what + result(::recv(p.b, b, 3, MSG_WAITALL)) + b + result(send(-1, b, 1, 0));
    });
    const auto poll = named<int(pollfd*, nfds_t, int)>("__poll");
    const auto ppoll =
        named<int(pollfd*, nfds_t, const timespec*, const sigset_t*, Size)>("__ppoll_chk");
    row("__poll, __ppoll_chk", Ends::kPty, [=](Pair& p) {
        pollfd pfd{p.a, POLLIN, 0};
        std::string what = result(poll(&pfd, 1, -1)) + std::to_string(pfd.revents);
        what += result(ppoll(&pfd, 1, nullptr, nullptr, sizeof pfd));
        return what + result(poll(nullptr, 0, 1));
    });
    const auto select = named<int(int, fd_set*, fd_set*, fd_set*, timeval*)>("__select");
    row("__select", Ends::kPipe, [=](Pair& p) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(p.a, &set);
        return result(select(p.a + 1, &set, nullptr, nullptr, nullptr)) +
               std::to_string(FD_ISSET(p.a, &set));
    });
    const auto connect = named<int(int, const sockaddr*, socklen_t)>("__connect");
    rows.push_back({"__connect", [=] {
                        const Listening l = listening();
                        const Fd fd(::socket(AF_INET, SOCK_STREAM, 0));
                        const auto* at = reinterpret_cast<const sockaddr*>(&l.at);
                        return result(connect(fd, at, l.len)) + result(connect(fd, at, l.len));
                    }});
    const auto close = named<int(int)>("__close");
    const auto dup2 = named<int(int, int)>("__dup2");
    const auto closefrom = named<void(int)>("closefrom");
    rows.push_back({"__dup2, __close, closefrom", [=] {
                        std::string what = result(dup2(1, 610)) + result(dup2(4000, 610));
                        what += result(close(610)) + result(close(610));
                        ::dup2(1, 900);
                        closefrom(900);
                        return what + result(::fcntl(900, F_GETFD)) + result(::dup2(1, 1));
                    }});
    for (const char* name : {"__fcntl", "fcntl64"}) {
        const auto fcntl = named<int(int, int, ...)>(name);
        rows.push_back({name, [=] {
                            const Fd fd(fcntl(1, F_DUPFD, 500));
                            return std::to_string(fd >= 500) + result(fcntl(-1, F_GETFD));
                        }});
    }
}

void add_open_forms(Rows& rows) {
    const auto row = [&](const char* name, std::function<int(const char*, int, mode_t)> open) {
        rows.push_back({name, [=] {
                            const Scratch s;
                            const Fd fd(open(s.name, O_RDWR, 0)), none(open("/none/x", O_RDWR, 0));
                            return result(::write(fd, "ab", 2)) + s.text() + std::to_string(none);
                        }});
    };
    for (const char* name : {"open64", "__open", "__open64"})
        row(name, named<int(const char*, int, mode_t)>(name));
    for (const char* name : {"__open_2", "__open64_2"}) {
        const auto open = named<int(const char*, int)>(name);
        row(name, [=](const char* path, int flags, mode_t) { return open(path, flags); });
    }
    const auto openat64 = named<int(int, const char*, int, mode_t)>("openat64");
    row("openat64", [=](const char* path, int flags, mode_t mode) {
        return openat64(AT_FDCWD, path, flags, mode);
    });
    for (const char* name : {"__openat_2", "__openat64_2"}) {
        const auto open = named<int(int, const char*, int)>(name);
        row(name, [=](const char* path, int flags, mode_t) { return open(AT_FDCWD, path, flags); });
    }
    for (const char* name : {"creat", "creat64"}) {
        const auto creat = named<int(const char*, mode_t)>(name);
        row(name, [=](const char* path, int, mode_t) { return creat(path, 0600); });
    }
    for (const char* name : {"fopen", "fopen64"}) {
        const auto fopen = named<FILE*(const char*, const char*)>(name);
        rows.push_back({name, [=] {
                            const Scratch s;
                            FILE* f = fopen(s.name, "r");
                            const std::string what = std::to_string(std::fgetc(f));
                            std::fclose(f);
                            return what + (fopen("/none/x", "r") ? "" : result(-1));
                        }});
    }
    for (const char* name : {"freopen", "freopen64"}) {
        const auto freopen = named<FILE*(const char*, const char*, FILE*)>(name);
        rows.push_back({name, [=] {
                            const Scratch s;
                            FILE* f = freopen(s.name, "r", std::fopen("/dev/null", "r"));
                            const std::string what = std::to_string(std::fgetc(f));
                            std::fclose(f);
                            return what;
                        }});
    }
}

void add_position_forms(Rows& rows) {
    const auto row = [&](const char* name, std::function<std::string(const Scratch&)> body) {
        rows.push_back({name, [=] {
                            const Scratch s;
                            return body(s) + s.text();
                        }});
    };
    for (const char* name : {"pread64", "__pread64"}) {
        const auto f = named<ssize_t(int, void*, Size, off_t)>(name);
        row(name, [=](const Scratch& s) {
            char b[4] = {};
            return result(f(s.fd, b, 3, 5)) + b + result(f(-1, b, 3, 5));
        });
    }
    for (const char* name : {"__pread_chk", "__pread64_chk"}) {
        const auto f = named<ssize_t(int, void*, Size, off_t, Size)>(name);
        row(name, [=](const Scratch& s) {
            char b[4] = {};
            return result(f(s.fd, b, 3, 5, 4)) + b;
        });
    }
    for (const char* name : {"pwrite64", "__pwrite64"}) {
        const auto f = named<ssize_t(int, const void*, Size, off_t)>(name);
        row(name, [=](const Scratch& s) {
            return result(f(s.fd, "abc", 3, 4)) + result(f(-1, "abc", 3, 4));
        });
    }
    for (const char* name : {"preadv64", "pwritev", "pwritev64"}) {
        const auto f = named<ssize_t(int, const iovec*, int, off_t)>(name);
        row(name, [=](const Scratch& s) {
            char b[] = "ab", c[] = "cd";
            const iovec iov[] = {{b, 2}, {c, 2}};
            return result(f(s.fd, iov, 2, 5)) + b + c + result(f(s.fd, iov, 2, -1));
        });
    }
    for (const char* name : {"preadv64v2", "pwritev2", "pwritev64v2"}) {
        const auto f = named<ssize_t(int, const iovec*, int, off_t, int)>(name);
        row(name, [=](const Scratch& s) {
            char b[] = "ab";
            const iovec iov{b, 2};
            return result(f(s.fd, &iov, 1, 5, 0)) + b + result(f(s.fd, &iov, 1, 5, 0x4000));
        });
    }
    for (const char* name : {"ftruncate", "ftruncate64"}) {
        const auto f = named<int(int, off_t)>(name);
        row(name, [=](const Scratch& s) { return result(f(s.fd, 4)) + result(f(-1, 4)); });
    }
    for (const char* name : {"truncate", "truncate64"}) {
        const auto f = named<int(const char*, off_t)>(name);
        row(name, [=](const Scratch& s) { return result(f(s.name, 4)) + result(f("/none/x", 4)); });
    }
    for (const char* name : {"fallocate", "fallocate64"}) {
        const auto f = named<int(int, int, off_t, off_t)>(name);
        row(name, [=](const Scratch& s) {
            return result(f(s.fd, 0, 0, 20)) + std::to_string(::lseek(s.fd, 0, SEEK_END)) +
                   result(f(s.fd, 0, -1, 20));
        });
    }
    for (const char* name : {"posix_fallocate", "posix_fallocate64"}) {
        const auto f = named<int(int, off_t, off_t)>(name);
        row(name, [=](const Scratch& s) {
            return std::to_string(f(s.fd, 0, 20)) + std::to_string(f(s.fd, -1, 20)) +
                   std::to_string(f(-1, 0, 20));
        });
    }
    row("readahead", [](const Scratch& s) {
        return result(::readahead(s.fd, 0, 10)) + result(::readahead(-1, 0, 10));
    });
    row("syncfs, msync", [](const Scratch& s) {
        void* at = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, s.fd, 0);
        const Fd proc(::open("/proc", O_RDONLY));
        const std::string what = result(::msync(at, 4096, MS_SYNC)) + result(::syncfs(proc));
        ::munmap(at, 4096);
        return what + result(::msync(at, 4096, MS_SYNC)) + result(::syncfs(-1));
    });
    for (const char* name : {"lockf", "lockf64"}) {
        const auto f = named<int(int, int, off_t)>(name);
        row(name, [=](const Scratch& s) {
            return result(f(s.fd, F_LOCK, 5)) + result(f(s.fd, F_TEST, 0)) +
                   result(f(s.fd, F_ULOCK, 5)) + result(f(s.fd, 99, 5));
        });
    }
}

void add_moves(Rows& rows) {
    const auto sendfile64 = named<ssize_t(int, int, off_t*, Size)>("sendfile64");
    rows.push_back({"sendfile64", [=] {
                        const Scratch s;
                        const Pair p = make(Ends::kPipe);
                        off_t at = 2;
                        return result(sendfile64(p.b, s.fd, &at, 3)) + std::to_string(at);
                    }});
    rows.push_back({"tee, vmsplice", [] {
                        const Pair p = make(Ends::kPipe), q = make(Ends::kPipe);
                        const iovec iov{const_cast<char*>("abcd"), 4};
                        Later later([&] { (void)!::vmsplice(p.b, &iov, 1, 0); });
                        char b[8] = {};
                        const std::string what = result(::tee(p.a, q.b, 4, 0));
                        return what + result(::read(q.a, b, 8)) + b + result(::tee(0, 0, 1, 0));
                    }});
    rows.push_back({"tcdrain, tcsetattr, tcsendbreak", [] {
                        const Pair p = make(Ends::kPty), pipe = make(Ends::kPipe);
                        termios t{};
                        ::tcgetattr(p.a, &t);
                        std::string what = result(::tcsetattr(p.a, TCSADRAIN, &t));
                        what += result(::tcdrain(p.a)) + result(::tcsendbreak(p.a, 0));
                        what += result(::tcsetattr(pipe.a, TCSANOW, &t));
                        return what + result(::tcdrain(pipe.a)) + result(::tcsendbreak(-1, 0));
                    }});
    for (const char* name : {"aio_suspend", "aio_suspend64"}) {
        const auto suspend = named<int(const aiocb* const*, int, const timespec*)>(name);
        rows.push_back({name, [=] {
                            const Pair p = make(Ends::kPipe);
                            char b[4] = {};
                            aiocb one{};
                            one.aio_fildes = p.a;
                            one.aio_buf = b;
                            one.aio_nbytes = 3;
                            const aiocb* const list[] = {&one};
                            const timespec soon{0, 1'000'000};
                            std::string what = result(::aio_read(&one));
                            what += result(suspend(list, 1, &soon));
                            Later write([&] { (void)!::write(p.b, "abc", 3); });
                            what += result(suspend(list, 1, nullptr));
                            return what + result(::aio_return(&one)) + b;
                        }});
    }
    for (const char* name : {"lio_listio", "lio_listio64"}) {
        const auto listio = named<int(int, aiocb* const*, int, sigevent*)>(name);
        rows.push_back({name, [=] {
                            const Scratch s;
                            char b[4] = {};
                            aiocb one{};
                            one.aio_lio_opcode = LIO_READ;
                            one.aio_fildes = s.fd;
                            one.aio_buf = b;
                            one.aio_nbytes = 3;
                            aiocb* const list[] = {&one};
                            std::string what = result(listio(LIO_WAIT, list, 1, nullptr));
                            what += result(::aio_return(&one)) + b;
                            return what + result(listio(99, list, 1, nullptr));
                        }});
    }
    const auto vsyslog = named<void(int, const char*, va_list)>("vsyslog");
    const auto vsyslog_chk = named<void(int, int, const char*, va_list)>("__vsyslog_chk");
    const auto syslog_chk = named<void(int, int, const char*, ...)>("__syslog_chk");
    rows.push_back({"syslog", [=] {
                        ::setlogmask(LOG_MASK(LOG_ALERT)); // none of these
                        ::syslog(LOG_DEBUG, "%d", 1);
                        syslog_chk(LOG_DEBUG, 1, "%d", 1);
                        const auto by_list = [&](int n, ...) {
                            va_list list;
                            va_start(list, n);
                            n % 2 ? vsyslog(LOG_DEBUG, "%d", list)
                                  : vsyslog_chk(LOG_DEBUG, 1, "%d", list);
                            va_end(list);
                        };
                        by_list(1, 1), by_list(2, 1);
                        return std::to_string(::setlogmask(0));
                    }});
}

} // namespace

void add_forms(Rows& rows) {
    add_socket_forms(rows);
    add_open_forms(rows);
    add_position_forms(rows);
    add_moves(rows);
}

} // namespace rows
