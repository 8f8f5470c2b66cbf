// SPDX-License-Identifier: Apache-2.0
#include "kernel/sleeper.hpp"

#include <charconv>
#include <cstring>

#include <fcntl.h>

#include "kernel/syscall.hpp"

namespace baton::kernel {

namespace {

// "running", "NUMBER ...", or "-1 ..."; the bytes read, or -errno.
long read_syscall_file(std::uint32_t tid, char* text, std::size_t size) {
    constexpr char kBefore[] = "/proc/self/task/";
    constexpr char kAfter[] = "/syscall";
    char path[sizeof kBefore + 10 + sizeof kAfter];
    std::memcpy(path, kBefore, sizeof kBefore - 1);
    char* end = std::to_chars(path + sizeof kBefore - 1, path + sizeof path, tid).ptr;
    std::memcpy(end, kAfter, sizeof kAfter);
    const long fd = raw_syscall(__NR_openat, AT_FDCWD, &path[0], O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    const long n = raw_syscall(__NR_read, fd, text, size);
    raw_syscall(__NR_close, fd);
    return n;
}

} // namespace

long sleeps_in(std::uint32_t tid) noexcept {
    char text[128];
    const long n = read_syscall_file(tid, text, sizeof text);
    long nr = kAwake;
    if (n <= 0 || std::from_chars(text, text + n, nr).ec != std::errc{}) return kAwake;
    return nr < 0 ? kInFault : nr;
}

const char* why_no_sleepers() noexcept {
    // "PID/task/TID"
    char self[64];
    const long n =
        raw_syscall(__NR_readlinkat, AT_FDCWD, "/proc/thread-self", &self[0], sizeof self - 1);
    if (n <= 0) return "no /proc/thread-self";
    self[n] = '\0';
    const char* slash = std::strrchr(self, '/');
    const long tid = raw_syscall(__NR_gettid);
    long shown = 0;
    if (!slash || std::from_chars(slash + 1, self + n, shown).ec != std::errc{} || shown != tid)
        return "/proc is of another pid namespace";
    // Of the calling thread it tells the very call that asks.
    if (sleeps_in(static_cast<std::uint32_t>(tid)) != __NR_read)
        return "/proc/self/task/TID/syscall may not be read";
    return nullptr;
}

} // namespace baton::kernel
