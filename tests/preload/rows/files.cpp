// SPDX-License-Identifier: Apache-2.0
//
// Files, standard I/O, and what becomes of descriptors.
#include <cstdlib>
#include <cstring>

#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

Fd scratch() {
    char name[] = "/tmp/baton-rows-XXXXXX";
    Fd fd(::mkstemp(name));
    ::unlink(name);
    return fd;
}

void add_regular(Rows& rows) {
    const auto row = [&](const char* name, std::function<std::string(int)> body) {
        rows.push_back({name, [=] {
                            const Fd fd = scratch();
                            (void)!::write(fd, "0123456789", 10);
                            ::lseek(fd, 0, SEEK_SET);
                            return body(fd);
                        }});
    };
    row("read a file", [](int fd) {
        char b[16] = {};
        const std::string what = result(::read(fd, b, 4));
        return what + b + result(::read(fd, b, 16)) + b + result(::read(fd, b, 16));
    });
    row("write a file", [](int fd) {
        const std::string what = result(::write(fd, "abc", 3));
        return what + std::to_string(::lseek(fd, 0, SEEK_CUR));
    });
    row("readv a file", [](int fd) {
        char a[3] = {}, b[16] = {};
        const iovec iov[] = {{a, 2}, {b, 15}};
        return result(::readv(fd, iov, 2)) + a + b;
    });
    row("writev too long", [](int fd) {
        std::vector<iovec> iov(2000, iovec{const_cast<char*>("x"), 1});
        return result(::writev(fd, iov.data(), 2000));
    });
    row("pread", [](int fd) {
        char b[8] = {};
        const std::string what = result(::pread(fd, b, 3, 5));
        return what + b + std::to_string(::lseek(fd, 0, SEEK_CUR));
    });
    row("pwrite, preadv2", [](int fd) {
        char b[8] = {};
        const iovec iov{b, 4};
        const std::string what = result(::pwrite(fd, "XY", 2, 1));
        return what + result(::preadv2(fd, &iov, 1, 0, 0)) + b;
    });
    row("pread at a pipe", [](int) {
        const Pair p = make(Ends::kPipe);
        char b[4];
        return result(::pread(p.a, b, 4, 0));
    });
    row("fsync", [](int fd) { return result(::fsync(fd)) + result(::fdatasync(fd)); });
    row("fsync a pipe", [](int) { return result(::fsync(make(Ends::kPipe).a)); });
    row("flock",
        [](int fd) { return result(::flock(fd, LOCK_EX)) + result(::flock(fd, LOCK_UN)); });
    row("fcntl F_SETLKW", [](int fd) {
        struct flock lock {};
        lock.l_type = F_WRLCK;
        return result(::fcntl(fd, F_SETLKW, &lock));
    });
    row("fcntl F_DUPFD", [](int fd) {
        const Fd other(::fcntl(fd, F_DUPFD, 500));
        return std::to_string(other >= 500);
    });
    row("fcntl bad", [](int fd) { return result(::fcntl(fd, 9999, 0)); });
    row("sendfile", [](int fd) {
        Pair p = make(Ends::kUnix);
        char b[16] = {};
        const std::string what = result(::sendfile(p.b, fd, nullptr, 10));
        return what + result(::read(p.a, b, 16)) + b;
    });
    row("copy_file_range", [](int fd) {
        const Fd other = scratch();
        return result(::copy_file_range(fd, nullptr, other, nullptr, 100, 0));
    });
    row("splice", [](int fd) {
        const Pair p = make(Ends::kPipe);
        return result(::splice(fd, nullptr, p.b, nullptr, 6, 0));
    });
    row("fread, fgets, getline", [](int fd) {
        (void)!::write(fd, "one\ntwo\nthree\n", 14);
        ::lseek(fd, 0, SEEK_SET);
        FILE* f = ::fdopen(::dup(fd), "r");
        char b[8] = {}, *line = nullptr;
        std::size_t n = 0;
        std::string what = std::to_string(::fread(b, 1, 2, f)) + b;
        what += ::fgets(b, sizeof b, f) ? b : "end";
        what += std::to_string(::getline(&line, &n, f)) + std::to_string(::getc(f));
        ::free(line);
        return what + std::to_string(::fclose(f));
    });
    row("fwrite, fflush", [](int fd) {
        FILE* f = ::fdopen(::dup(fd), "w");
        std::string what = std::to_string(::fwrite("hello", 1, 5, f));
        what += std::to_string(::fputs("!", f)) + std::to_string(::fflush(f));
        ::fclose(f);
        return what + std::to_string(::lseek(fd, 0, SEEK_CUR));
    });
}

void add_opens(Rows& rows) {
    rows.push_back({"open nothing", [] { return result(::open("/nonexistent", O_RDONLY)); }});
    rows.push_back({"open with a mode", [] {
                        char name[] = "/tmp/baton-rows-XXXXXX";
                        ::close(::mkstemp(name));
                        ::unlink(name);
                        const Fd fd(::open(name, O_CREAT | O_EXCL | O_WRONLY, 0640));
                        const std::string what = result(::access(name, R_OK));
                        ::unlink(name);
                        return what + std::to_string(fd >= 0);
                    }});
    rows.push_back({"openat", [] {
                        const Fd dir(::open("/etc", O_RDONLY | O_DIRECTORY));
                        const Fd fd(::openat(dir, "passwd", O_RDONLY));
                        return std::to_string(fd >= 0);
                    }});
    rows.push_back({"read a directory", [] {
                        const Fd dir(::open("/etc", O_RDONLY | O_DIRECTORY));
                        char b[4];
                        return result(::read(dir, b, 4));
                    }});
    rows.push_back({"read /dev/zero", [] {
                        const Fd fd(::open("/dev/zero", O_RDONLY));
                        char b[64];
                        return result(::read(fd, b, 64));
                    }});
}

/// A number that stood for something else before.
void add_reuse(Rows& rows) {
    rows.push_back({"dup2 over a socket", [] {
                        Pair p = make(Ends::kUnix), q = make(Ends::kPipe);
                        char b[4] = {};
                        (void)!::write(p.b, "s", 1);
                        std::string what = result(::read(p.a, b, 4)) + b;
                        ::dup2(q.a, p.a);
                        Later write([&] { (void)!::write(q.b, "p", 1); });
                        return what + result(::read(p.a, b, 4)) + b;
                    }});
    rows.push_back({"a number anew, of another kind", [] {
                        std::string what;
                        for (int i = 0; i < 30; i++) {
                            Pair p = make(static_cast<Ends>(i * 5 % 7));
                            char b[4] = {};
                            Later write([&] { (void)!::write(p.b, "x", 1); }, 1ms);
                            what += result(::read(p.a, b, 4)) + b;
                        }
                        return what;
                    }});
    rows.push_back({"a number anew, closed by fclose", [] {
                        std::string what;
                        for (int i = 0; i < 20; i++) {
                            Pair p = make(static_cast<Ends>(i % 2 ? 0 : 5));
                            char b[4] = {};
                            {
                                Later write([&] { (void)!::write(p.b, "x", 1); }, 1ms);
                                what += result(::read(p.a, b, 4)) + b;
                            }
                            FILE* f = ::fdopen(p.a, "r");
                            ::fclose(f);
                            p.a = Fd(-1);
                        }
                        return what;
                    }});
    rows.push_back(
        {"a number anew, closed by system call", [] {
             std::string what;
             for (int i = 0; i < 20; i++) {
                 Pair p = make(static_cast<Ends>(i % 7));
                 char b[4] = {};
                 {
                     Later write([&] { (void)!::write(p.b, "x", 1); }, 1ms);
                     what += result(::read(p.a, b, 4)) + b;
                 }
                 long r;
                 const long fd = p.a;
                 asm volatile("syscall" : "=a"(r) : "a"(3L), "D"(fd) : "rcx", "r11", "memory");
                 p.a = Fd(-1);
             }
             return what;
         }});
    rows.push_back({"close_range", [] {
                        const int fd = ::fcntl(1, F_DUPFD, 700);
                        std::string what = result(::close_range(700, 800, 0));
                        return what + result(::fcntl(fd, F_GETFD));
                    }});
    rows.push_back({"close twice", [] {
                        const int fd = ::dup(1);
                        std::string what = result(::close(fd));
                        return what + result(::close(fd)) + result(::close(-1));
                    }});
    rows.push_back({"dup2, dup3", [] {
                        std::string what = result(::dup2(1, 600)) + result(::dup2(4000, 600));
                        what += result(::dup3(1, 1, 0)) + result(::dup3(1, 601, O_CLOEXEC));
                        ::close(600);
                        ::close(601);
                        return what;
                    }});
    rows.push_back({"ioctl FIONBIO", [] {
                        Pair p = make(Ends::kTcp);
                        int on = 1;
                        char b[4];
                        std::string what = result(::ioctl(p.a, FIONBIO, &on));
                        what += result(::read(p.a, b, 4));
                        on = 0;
                        ::ioctl(p.a, FIONBIO, &on);
                        Later write([&] { (void)!::write(p.b, "x", 1); });
                        return what + result(::read(p.a, b, 4));
                    }});
    rows.push_back({"O_NONBLOCK by another descriptor", [] {
                        Pair p = make(Ends::kPipe);
                        const Fd other(::dup(p.a));
                        nonblocking(other);
                        char b[4];
                        return result(::read(p.a, b, 4));
                    }});
}

} // namespace

void add_files(Rows& rows) {
    add_regular(rows);
    add_opens(rows);
    add_reuse(rows);
}

} // namespace rows
