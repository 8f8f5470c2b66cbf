// SPDX-License-Identifier: Apache-2.0
#include "kernel/sleeper.hpp"

#include <charconv>
#include <cstring>
#include <ctime>
#include <string_view>

#include <fcntl.h>

#include "kernel/syscall.hpp"

namespace baton::kernel {

namespace {

// The bytes read of the thread's file, whose name begins with a slash; or -errno.
long read_file_of(std::uint32_t tid, std::string_view name, char* text, std::size_t size) {
    constexpr char kBefore[] = "/proc/self/task/";
    char path[sizeof kBefore + 10 + 10];
    std::memcpy(path, kBefore, sizeof kBefore - 1);
    char* end = std::to_chars(path + sizeof kBefore - 1, path + sizeof path, tid).ptr;
    std::memcpy(end, name.data(), name.size());
    end[name.size()] = '\0';
    const long fd = raw_syscall(__NR_openat, AT_FDCWD, &path[0], O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return fd;
    const long n = raw_syscall(__NR_read, fd, text, size);
    raw_syscall(__NR_close, fd);
    return n;
}

} // namespace

long sleeps_in(std::uint32_t tid) noexcept {
    char text[128];
    // "running", "NUMBER ...", or "-1 ..."
    const long n = read_file_of(tid, "/syscall", text, sizeof text);
    long nr = kAwake;
    if (n <= 0 || std::from_chars(text, text + n, nr).ec != std::errc{}) return kAwake;
    return nr < 0 ? kInFault : nr;
}

std::int64_t cpu_ns_of(std::uint32_t tid) noexcept {
    timespec time{};
    // The clock of a thread's CPU time: clock_getres(2).
    constexpr std::uint32_t kPerThread = 4, kScheduled = 2;
    const auto clock = static_cast<std::int32_t>(~tid << 3 | kPerThread | kScheduled);
    if (raw_syscall(__NR_clock_gettime, clock, &time) != 0) return 0;
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

Effort effort_of(std::uint32_t tid) noexcept {
    Effort effort{cpu_ns_of(tid), 0};
    char text[4096];
    const long n = read_file_of(tid, "/status", text, sizeof text);
    if (n <= 0) return effort;
    constexpr std::string_view kLine = "\nvoluntary_ctxt_switches:\t";
    const std::string_view status(text, static_cast<std::size_t>(n));
    const std::size_t at = status.find(kLine);
    if (at != std::string_view::npos)
        std::from_chars(text + at + kLine.size(), text + n, effort.sleeps);
    return effort;
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
