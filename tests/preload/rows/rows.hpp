// SPDX-License-Identifier: Apache-2.0
//
// Rows of the conformance table: each makes some calls and says what came of them, in a text that
// is the same on a thread, on a goroutine with hooks and on one without.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace rows {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

struct Row {
    std::string name;
    std::function<std::string()> body;
};
using Rows = std::vector<Row>;

/// errno, whose address a compiler may keep where a goroutine changes threads.
[[gnu::noinline]] inline int error() {
    int* e = &errno;
    asm volatile("" : "+r"(e));
    return *e;
}

/// A call's result, and errno if it failed.
inline std::string result(long r) {
    if (r >= 0) return std::to_string(r);
    const int e = error();
    return "-1 " + std::string(strerrorname_np(e));
}

/// Does something on a thread of its own, a while later; waits for it at the end of its scope.
class Later {
public:
    template <class F>
    explicit Later(F f, std::chrono::milliseconds d = 10ms)
        : thread_([f, d] {
              std::this_thread::sleep_for(d);
              f();
          }) {}
    ~Later() { thread_.join(); }
    Later(const Later&) = delete;
    Later& operator=(const Later&) = delete;

private:
    std::thread thread_;
};

/// " in time" if at least `least` has passed since `start`, and not absurdly more.
inline std::string timing(Clock::time_point start, std::chrono::milliseconds least) {
    const auto passed = Clock::now() - start;
    // The kernel's timeouts are in ticks of up to 10 ms, of which the first may be a part.
    if (passed + 10ms < least) return " too early";
    return passed > least + 5s ? " far too late" : " in time";
}

class Fd {
public:
    explicit Fd(int fd = -1) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() { reset(); }
    void reset() {
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }
    operator int() const { return fd_; }

private:
    int fd_;
};

/// Two ends: what is written to b is read from a.
struct Pair {
    Fd a, b;
};
enum class Ends { kUnix, kTcp, kUdp, kDgram, kSeqpacket, kPipe, kPty, kCount };
const char* name_of(Ends ends);
Pair make(Ends ends);
inline bool is_socket(Ends e) { return e < Ends::kPipe; }
inline bool is_stream(Ends e) { return e == Ends::kUnix || e == Ends::kTcp; }

inline void nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }
inline void timeout(int fd, int option, std::chrono::milliseconds d) {
    const timeval t{d.count() / 1000, d.count() % 1000 * 1000};
    ::setsockopt(fd, SOL_SOCKET, option, &t, sizeof t);
}
/// A TCP listener on loopback, and how to reach it.
struct Listening {
    Fd fd;
    sockaddr_storage at{};
    socklen_t len = sizeof at;
};
Listening listening();

void add_reads(Rows& rows);
void add_writes(Rows& rows);
void add_waits(Rows& rows);
void add_sleeps(Rows& rows);
void add_files(Rows& rows);
void add_locks(Rows& rows);
void add_semaphores(Rows& rows);
void add_dials(Rows& rows);
void add_threads(Rows& rows);
void add_streams(Rows& rows);
void add_preads(Rows& rows);
void add_paths(Rows& rows);
void add_syscalls(Rows& rows);
void add_forms(Rows& rows);
void add_stdio_forms(Rows& rows);
void add_rest(Rows& rows);

} // namespace rows
