// SPDX-License-Identifier: Apache-2.0
#include "kernel/textfile.hpp"

#include <cerrno>

#include <fcntl.h>

#include "kernel/syscall.hpp"

namespace baton::kernel {

namespace {

long open_text(const char* path) {
    return raw_syscall(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

// 0 at the end, and where it cannot be read.
std::size_t read_some(long fd, std::span<char> buffer) {
    for (;;) {
        const long n = raw_syscall(__NR_read, fd, buffer.data(), buffer.size());
        if (n != -EINTR) return n > 0 ? static_cast<std::size_t>(n) : 0;
    }
}

} // namespace

std::string read_text_file(const std::string& path) {
    constexpr std::size_t kBytesMax = 1 << 20;
    std::string text;
    const long fd = open_text(path.c_str());
    if (fd < 0) return text;
    char buffer[4096];
    while (text.size() < kBytesMax) {
        const std::size_t n = read_some(fd, buffer);
        if (n == 0) break;
        text.append(buffer, n);
    }
    raw_syscall(__NR_close, fd);
    return text;
}

std::string_view read_text_file(const char* path, std::span<char> buffer) noexcept {
    const long fd = open_text(path);
    if (fd < 0) return {};
    std::size_t have = 0;
    while (have < buffer.size()) {
        const std::size_t n = read_some(fd, buffer.subspan(have));
        if (n == 0) break;
        have += n;
    }
    raw_syscall(__NR_close, fd);
    return {buffer.data(), have};
}

} // namespace baton::kernel
