// SPDX-License-Identifier: Apache-2.0
//
// Files to test with: a directory that goes when the test does, pages that say which they are.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "baton/file.hpp"

namespace files_test {

using baton::File;

/// A directory that goes with all that is in it.
struct Scratch {
    std::string dir = "/var/tmp/baton-file-XXXXXX";
    Scratch() { REQUIRE(::mkdtemp(dir.data()) != nullptr); }
    ~Scratch() { (void)std::system(("rm -rf " + dir).c_str()); }
    std::string operator/(const char* name) const { return dir + '/' + name; }
};

inline std::span<const std::byte> bytes(std::string_view s) { return std::as_bytes(std::span(s)); }
inline std::span<std::byte> room(std::string& s) { return std::as_writable_bytes(std::span(s)); }

inline std::string read_some(File& file, std::size_t n) {
    std::string s(n, '\0');
    s.resize(file.read(room(s)));
    return s;
}

inline constexpr std::size_t kPage = 4096;

/// `pages` pages, each of which begins with its number, past the page cache if that can be.
inline File numbered(const std::string& path, std::uint64_t pages, bool direct) {
    File file = File::open(path, O_RDWR | O_CREAT | O_TRUNC);
    std::string page(kPage, '\0');
    for (std::uint64_t i = 0; i < pages; i++) {
        std::memcpy(page.data(), &i, sizeof i);
        file.pwrite(bytes(page), static_cast<std::int64_t>(i * kPage));
    }
    file.fsync();
    if (!direct) return file;
    std::error_code ec;
    File past = File::open(path, O_RDONLY | O_DIRECT, 0, ec);
    return ec ? std::move(file) : std::move(past);
}

struct Page {
    Page() : at(static_cast<std::byte*>(std::aligned_alloc(kPage, kPage))) {}
    ~Page() { std::free(at); }
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
    std::span<std::byte> span() const { return {at, kPage}; }
    std::byte* at;
};

inline bool reads_page(File& file, std::uint64_t i) {
    const Page page;
    std::uint64_t number = ~i;
    if (file.pread(page.span(), static_cast<std::int64_t>(i * kPage)) != kPage) return false;
    std::memcpy(&number, page.at, sizeof number);
    return number == i;
}

/// A file past the page cache; none where the file system has no such thing.
inline File direct(const std::string& path) {
    std::error_code ec;
    File file = File::open(path, O_RDWR | O_CREAT | O_DIRECT, 0600, ec);
    if (ec) std::printf("skip: no direct files: %s\n", ec.message().c_str());
    return file;
}

inline bool is_full_of(const Page& page, char c) {
    const std::string all(kPage, c);
    return std::memcmp(page.at, all.data(), kPage) == 0;
}

/// What others read there: through the page cache.
inline bool holds(const std::string& path, std::int64_t page, char c) {
    const Page read;
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t n = ::pread(fd, read.at, kPage, page * static_cast<std::int64_t>(kPage));
    ::close(fd);
    return n == static_cast<ssize_t>(kPage) && is_full_of(read, c);
}

struct Pipe {
    File in;
    File out;
    Pipe() {
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        in = File(ends[0]);
        out = File(ends[1]);
    }
};

inline std::error_code code(std::errc e) { return std::make_error_code(e); }

} // namespace files_test
