// SPDX-License-Identifier: Apache-2.0
//
// A library that stands before libc, behind the hooks: calls that take their time, and count how
// many of them there are at once. And one that a program opens late.
#include <atomic>

#include <netdb.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace {

std::atomic<int> now{0}, most{0};

void take_time() {
    const int n = ++now;
    for (int seen = most; seen < n && !most.compare_exchange_weak(seen, n);) {
    }
    const timespec t{0, 20'000'000};
    ::syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, nullptr);
    now--;
}

} // namespace

extern "C" {

int slow_most() { return most; }
long slow_read(int fd, void* buf, unsigned long n) { return ::read(fd, buf, n); }

int getaddrinfo(const char*, const char*, const addrinfo*, addrinfo**) {
    take_time();
    return EAI_AGAIN;
}
int fsync(int) {
    take_time();
    return 0;
}
int statx(int, const char*, int, unsigned, struct statx*) noexcept {
    take_time();
    return 0;
}
}
