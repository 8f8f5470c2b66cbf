// SPDX-License-Identifier: Apache-2.0
#include "baton/async_fd.hpp"

#include <cerrno>
#include <string>

#include <fcntl.h>
#include <sys/wait.h>

#include "io/parkfd.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::IoResult;
using detail::ParkFd;
using kernel::raw_syscall;

namespace {

std::size_t result_of(const char* operation, const IoResult& r, std::error_code* ec) {
    if (ec) {
        *ec = error_of(r.err);
    } else if (r.err != 0) {
        throw std::system_error(error_of(r.err), operation);
    }
    return r.n;
}

/// Non-blocking already. On failure null and *err, and it is closed.
std::unique_ptr<ParkFd> park(int fd, int* err) {
    detail::OwnedFd owned(fd);
    return ParkFd::adopt<ParkFd>(owned, err);
}

} // namespace

AsyncFd::AsyncFd() noexcept = default;
AsyncFd::AsyncFd(AsyncFd&&) noexcept = default;
AsyncFd& AsyncFd::operator=(AsyncFd&&) noexcept = default;
AsyncFd::~AsyncFd() = default;

AsyncFd AsyncFd::adopt(int fd, std::error_code& ec) {
    AsyncFd made;
    const long flags = raw_syscall(__NR_fcntl, fd, F_GETFL, 0);
    int err = flags < 0 ? static_cast<int>(-flags) : 0;
    if (err == 0) {
        detail::OwnedFd owned(fd);
        made.fd_ = ParkFd::adopt<ParkFd>(owned, &err);
        if (!made.fd_) owned.release();
    }
    if (made.fd_ && !(flags & O_NONBLOCK))
        (void)raw_syscall(__NR_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
    ec = error_of(err);
    return made;
}

AsyncFd AsyncFd::adopt(int fd) {
    std::error_code ec;
    AsyncFd made = adopt(fd, ec);
    if (ec) throw std::system_error(ec, "AsyncFd::adopt");
    return made;
}

std::pair<AsyncFd, AsyncFd> AsyncFd::pipe(std::error_code& ec) {
    std::pair<AsyncFd, AsyncFd> ends;
    int fds[2];
    int err = static_cast<int>(-raw_syscall(__NR_pipe2, fds, O_CLOEXEC | O_NONBLOCK));
    if (err == 0) {
        int write_err = 0;
        ends.first.fd_ = park(fds[0], &err);
        ends.second.fd_ = park(fds[1], &write_err);
        if (err == 0) err = write_err;
        if (err != 0) ends = {};
    }
    ec = error_of(err);
    return ends;
}

std::pair<AsyncFd, AsyncFd> AsyncFd::pipe() {
    std::error_code ec;
    auto ends = pipe(ec);
    if (ec) throw std::system_error(ec, "AsyncFd::pipe");
    return ends;
}

std::size_t AsyncFd::read_in(std::span<std::byte> buf, const Until* until, std::error_code* ec) {
    rt::must_park("AsyncFd::read");
    return result_of("read", fd_ ? fd_->read(buf.data(), buf.size(), until) : IoResult{0, EBADF},
                     ec);
}

std::size_t AsyncFd::write_in(std::span<const std::byte> buf, const Until* until,
                              std::error_code* ec) {
    rt::must_park("AsyncFd::write");
    return result_of("write", fd_ ? fd_->write(buf.data(), buf.size(), until) : IoResult{0, EBADF},
                     ec);
}

void AsyncFd::wait_in(bool read, const Until& until, std::error_code* ec) {
    rt::must_park(read ? "AsyncFd::wait_readable" : "AsyncFd::wait_writable");
    const ParkFd::Side side = read ? ParkFd::Side::kRead : ParkFd::Side::kWrite;
    const int err = fd_ ? fd_->wait_ready(side, &until) : EBADF;
    (void)result_of(read ? "wait_readable" : "wait_writable", {0, err}, ec);
}

void AsyncFd::close() noexcept {
    if (fd_) fd_->close();
}

int AsyncFd::release() {
    int fd = -1;
    const int err = fd_ ? fd_->release(&fd) : EBADF;
    if (err != 0) throw std::system_error(error_of(err), "AsyncFd::release");
    fd_.reset();
    return fd;
}

int AsyncFd::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

int wait_child(pid_t pid, const Until& until, std::error_code& ec) {
    rt::must_park("wait_child");
    int status = 0;
    const long pidfd = raw_syscall(__NR_pidfd_open, pid, 0);
    if (pidfd < 0) {
        ec = error_of(pidfd == -ESRCH ? ECHILD : static_cast<int>(-pidfd));
        return status;
    }
    int err = 0;
    const std::unique_ptr<ParkFd> fd = park(static_cast<int>(pidfd), &err);
    // Looked at first: the end of a process that is no child of ours would be told of as well.
    const auto reap = [&] { return raw_syscall(__NR_wait4, pid, &status, WNOHANG, nullptr); };
    long rc = fd ? reap() : 0;
    if (fd && rc == 0) {
        err = fd->wait_ready(ParkFd::Side::kRead, &until);
        if (err == 0) rc = reap();
        if (err == 0 && rc == 0) err = ECHILD; // another has reaped it
    }
    ec = error_of(rc < 0 ? static_cast<int>(-rc) : err);
    return status;
}

int wait_child(pid_t pid, const Until& until) {
    std::error_code ec;
    const int status = wait_child(pid, until, ec);
    if (ec) throw std::system_error(ec, "wait_child");
    return status;
}

} // namespace baton
