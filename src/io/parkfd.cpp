// SPDX-License-Identifier: Apache-2.0
#include "io/parkfd.hpp"

#include <algorithm>

#include <poll.h>

#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

/// The kernel caps one transfer just below 2 GiB; we stay at a round number, as the reference does.
constexpr std::size_t kTransferMax = 1 << 30;

} // namespace

OwnedFd::~OwnedFd() {
    if (fd_ >= 0) (void)raw_syscall(__NR_close, fd_);
}

rt::PollDesc* ParkFd::open(int fd, int* err) {
    try {
        rt::ensure_started(); // a plain thread's first call may be this one
    } catch (const std::system_error& e) {
        *err = e.code().value();
        return nullptr;
    }
    return rt::poll_open(fd, err);
}

void ParkFd::abandon(rt::PollDesc* pd) {
    rt::poll_evict(pd);
    rt::poll_close(pd);
}

ParkFd::~ParkFd() {
    close();
    if (mu_.in_use())
        rt::fatal("a connection, listener or other descriptor (number %d) was destroyed while a "
                  "goroutine is in a call on it: close it and wait for the goroutine first",
                  sysfd_);
}

void ParkFd::destroy() noexcept {
    rt::poll_close(pd_);
    (void)raw_syscall(__NR_close, sysfd_);
}

bool ParkFd::begin_close() noexcept {
    if (!mu_.close()) return false;
    rt::poll_evict(pd_);
    return true;
}

void ParkFd::end_close() noexcept {
    if (mu_.unref()) destroy();
}

void ParkFd::close() noexcept {
    if (begin_close()) end_close();
}

int ParkFd::release(int* fd) noexcept {
    if (const int err = mu_.retire()) return err;
    abandon(pd_);
    *fd = sysfd_;
    return 0;
}

int ParkFd::set_deadline(std::int64_t when_ns, bool read, bool write) {
    return static_cast<int>(-call([&](int) {
        rt::poll_set_deadline(pd_, when_ns, read, write);
        return 0L;
    }));
}

// Asked first: the edge that told of it may have been consumed by an earlier call.
int ParkFd::wait_ready(Side side, const Until* until) {
    const short events = side == Side::kRead ? POLLIN : POLLOUT;
    return static_cast<int>(-on_side(side, until, [events](int fd) {
        pollfd p{fd, events, 0};
        const timespec now{};
        const long n = raw_syscall(__NR_ppoll, &p, 1, &now, nullptr, 0);
        return n == 0 ? -EAGAIN : std::min(n, 0L);
    }));
}

IoResult ParkFd::read(std::byte* buf, std::size_t size, const Until* until) {
    const std::size_t want = std::min(size, kTransferMax);
    const long n =
        on_side(Side::kRead, until, [&](int fd) { return raw_syscall(__NR_read, fd, buf, want); });
    return n < 0 ? IoResult{0, static_cast<int>(-n)} : IoResult{static_cast<std::size_t>(n), 0};
}

IoResult ParkFd::write(const std::byte* buf, std::size_t size, const Until* until) {
    IoResult done;
    const long rc = on_side(Side::kWrite, until, [&](int fd) {
        do {
            const std::size_t want = std::min(size - done.n, kTransferMax);
            const long n = raw_syscall(__NR_write, fd, buf + done.n, want);
            if (n < 0) return n;
            done.n += static_cast<std::size_t>(n);
        } while (done.n < size);
        return 0L;
    });
    done.err = static_cast<int>(-rc);
    return done;
}

} // namespace baton::detail
