// SPDX-License-Identifier: Apache-2.0
//
// Files at an offset, out of the page cache and past it; what waits its turn.
#include <cstdlib>
#include <memory>

#include <sys/stat.h>
#include <sys/uio.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

constexpr std::size_t kBlock = 4096, kBlocks = 8;

/// What the compiler is not to see through, and warn of.
template <class T>
T opaque(T value) {
    volatile T kept = value;
    return kept;
}

/// 8 blocks of 'a' to 'h', and 10 bytes more; in a file system that has O_DIRECT, if there is one.
Fd letters(int flags = 0, bool cached = true) {
    char name[] = "/var/tmp/baton-rows-XXXXXX";
    const int made = ::mkstemp(name);
    for (std::size_t i = 0; i < kBlocks; i++) {
        const std::string block(kBlock, static_cast<char>('a' + i));
        (void)!::write(made, block.data(), kBlock);
    }
    (void)!::write(made, "0123456789", 10);
    if (!cached) {
        ::fsync(made);
        ::posix_fadvise(made, 0, 0, POSIX_FADV_DONTNEED);
    }
    Fd fd(::open(name, O_RDWR | flags));
    ::close(made);
    ::unlink(name);
    return fd;
}

std::string first_and_last(const char* b, long n) {
    return n > 0 ? std::string(1, b[0]) + b[n - 1] : std::string();
}

void add_reads(Rows& rows, const std::string& how, int flags, bool cached) {
    const auto row = [&](const char* name, std::size_t n, off_t at, std::size_t skew = 0) {
        rows.push_back({"pread " + how + " " + name, [=] {
                            const Fd fd = letters(flags, cached);
                            const std::unique_ptr<char, decltype(&::free)> owner(
                                static_cast<char*>(std::aligned_alloc(kBlock, 65536)), ::free);
                            char* b = owner.get() + skew;
                            const long got = ::pread(fd, b, n, at);
                            return result(got) + first_and_last(b, got) +
                                   result(::lseek(fd, 0, SEEK_CUR));
                        }});
    };
    row("a block", kBlock, 0);
    row("inside", 1000, 5000);
    row("across", 10000, 4000);
    row("all", 65536, 0);
    row("the end", kBlock, kBlock * kBlocks);
    row("beyond", kBlock, kBlock * (kBlocks + 4));
    row("before", kBlock, -1);
    row("nothing", 0, 0);
    row("askew", kBlock, 0, 1);
}

void add_vectors(Rows& rows) {
    const auto row = [&](const char* name, std::function<std::string(int)> body) {
        rows.push_back({name, [=] {
                            const Fd fd = letters(0, false);
                            return body(fd);
                        }});
    };
    row("preadv", [](int fd) {
        char a[4000] = {}, b[3] = {}, c[5000] = {};
        const iovec iov[] = {{a, sizeof a}, {b, 2}, {nullptr, 0}, {c, sizeof c}};
        const std::string what = result(::preadv(fd, iov, 4, 4090));
        return what + a[0] + a[6] + b + c[4999];
    });
    row("preadv2 flags", [](int fd) {
        char a[16] = {};
        const iovec iov{a, 8};
        std::string what = result(::preadv2(fd, &iov, 1, 0, RWF_HIPRI));
        what +=
            result(::preadv2(fd, &iov, 1, 0, 0x4000000)) + result(::preadv2(fd, &iov, 1, -1, 0));
        return what + result(::preadv2(fd, &iov, 1, -1, 0));
    });
    row("preadv bad vectors", [](int fd) {
        char a[16];
        const iovec iov{a, 8}, bad{reinterpret_cast<void*>(16), 8};
        std::string what =
            result(::preadv(fd, &iov, opaque(-1), 0)) + result(::preadv(fd, &iov, opaque(5000), 0));
        return what + result(::preadv(fd, &iov, 0, 0)) + result(::preadv(fd, &bad, 1, 0));
    });
    row("pread of others", [](int fd) {
        char a[16];
        const Fd dir(::open("/etc", O_RDONLY | O_DIRECTORY)), zero(::open("/dev/zero", O_RDONLY));
        const Fd blind(::open("/dev/null", O_WRONLY));
        std::string what = result(::pread(dir, a, 8, 0)) + result(::pread(zero, a, 8, 5));
        what += result(::pread(blind, a, 8, 0)) + result(::pread(4000, a, 8, 0));
        return what + result(::pread(fd, opaque(reinterpret_cast<void*>(16)), 8, 0));
    });
    row("pwrite and sync", [](int fd) {
        char a[8] = {};
        std::string what = result(::pwrite(fd, "XYZ", 3, 100)) + result(::fdatasync(fd));
        what += result(::sync_file_range(fd, 0, 4096, SYNC_FILE_RANGE_WRITE));
        what += result(::pread(fd, a, 3, 100)) + a;
        return what + result(::pwrite(fd, "x", 1, -1)) + result(::pwrite(4000, "x", 1, 0));
    });
    row("copy_file_range of no file", [](int fd) {
        const Pair p = make(Ends::kPipe);
        return result(::copy_file_range(fd, nullptr, p.b, nullptr, 100, 0));
    });
}

void add_fifos(Rows& rows) {
    rows.push_back({"open a FIFO", [] {
                        const std::string name = "/tmp/baton-rows-" + std::to_string(::getpid()) +
                                                 "-" + std::to_string(::gettid());
                        ::mkfifo(name.c_str(), 0600);
                        Fd out;
                        std::string what;
                        {
                            Later other([&] { out = Fd(::open(name.c_str(), O_WRONLY)); });
                            const Fd in(::open(name.c_str(), O_RDONLY));
                            what = std::to_string(in >= 0);
                        }
                        ::unlink(name.c_str());
                        return what + std::to_string(out >= 0);
                    }});
}

} // namespace

void add_preads(Rows& rows) {
    add_reads(rows, "cached", 0, true);
    add_reads(rows, "uncached", 0, false);
    add_reads(rows, "direct", O_DIRECT, false);
    add_vectors(rows);
    add_fifos(rows);
}

} // namespace rows
