// SPDX-License-Identifier: Apache-2.0
#include "kernel/textfile.hpp"

#include <cerrno>

#include <fcntl.h>

#include "kernel/syscall.hpp"

namespace baton::kernel {

std::string read_text_file(const std::string& path) {
    constexpr std::size_t kBytesMax = 1 << 20;
    std::string text;
    const long fd = raw_syscall(__NR_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return text;
    char buffer[4096];
    while (text.size() < kBytesMax) {
        const long n = raw_syscall(__NR_read, fd, buffer, sizeof buffer);
        if (n == -EINTR) continue;
        if (n <= 0) break;
        text.append(buffer, static_cast<std::size_t>(n));
    }
    raw_syscall(__NR_close, fd);
    return text;
}

} // namespace baton::kernel
