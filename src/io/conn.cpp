// SPDX-License-Identifier: Apache-2.0
//
// Conn, and how it is dialled.
#include <cerrno>

#include <fcntl.h>
#include <sys/time.h>

#include "baton/run.hpp"
#include "io/netfd.hpp"
#include "kernel/clock.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::NetFd;
using detail::SockAddr;
using kernel::raw_syscall;

namespace {

constexpr int kSelfConnectRetries = 3;

/// A Unix socket whose listener's queue is full answers EAGAIN, and no event will ever tell when
/// there is room: only a blocking connect waits for it. So that is what we make, announced.
int connect_blocking(int fd, const SockAddr& to, const Deadline& deadline) {
    long flags = raw_syscall(__NR_fcntl, fd, F_GETFL, 0);
    if (flags < 0) return static_cast<int>(-flags);
    long rc;
    do {
        if (deadline) {
            const auto left = *deadline - std::chrono::steady_clock::now();
            const auto us = std::chrono::ceil<std::chrono::microseconds>(left).count();
            if (us <= 0) return ETIMEDOUT;
            const timeval tv{us / 1'000'000, us % 1'000'000};
            (void)raw_syscall(__NR_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
        }
        (void)raw_syscall(__NR_fcntl, fd, F_SETFL, flags & ~O_NONBLOCK);
        rc = blocking([&] { return raw_syscall(__NR_connect, fd, &to.sa, to.len); });
        (void)raw_syscall(__NR_fcntl, fd, F_SETFL, flags);
    } while (rc == -EINTR);
    const timeval never{};
    (void)raw_syscall(__NR_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &never, sizeof never);
    return rc == -EAGAIN ? ETIMEDOUT : static_cast<int>(-rc);
}

/// A dial to a free local port in the ephemeral range may be given that very port and connect to
/// itself. Nobody wants that.
bool self_connected(int fd) {
    const SockAddr here = detail::socket_address(__NR_getsockname, fd);
    const SockAddr there = detail::socket_address(__NR_getpeername, fd);
    return here.is_ip() && here.port() == there.port() && here.text() == there.text();
}

std::unique_ptr<NetFd> dial_one(const SockAddr& to, const Deadline& deadline, int* err) {
    detail::OwnedFd fd(detail::open_socket(to.family()));
    if (fd.get() < 0) {
        *err = -fd.get();
        return nullptr;
    }
    long rc = raw_syscall(__NR_connect, fd.get(), &to.sa, to.len);
    if (rc == -EAGAIN && to.family() == AF_UNIX) rc = -connect_blocking(fd.get(), to, deadline);
    // Interrupted or not, it goes on without us.
    const bool pending = rc == -EINPROGRESS || rc == -EINTR;
    if (rc < 0 && !pending) {
        *err = static_cast<int>(-rc);
        return nullptr;
    }
    // Registered only now: an unconnected TCP socket counts as hung up.
    std::unique_ptr<NetFd> net = NetFd::adopt(fd, to.family(), err);
    if (net && pending) *err = net->wait_connected(deadline);
    if (*err != 0) return nullptr;
    net->set_peer(to);
    return net;
}

std::unique_ptr<NetFd> dial_any(const detail::AddressList& list, const Deadline& deadline,
                                int* err) {
    for (int i = 0; i < list.n; i++) {
        for (int attempt = 0; attempt < kSelfConnectRetries; attempt++) {
            if (deadline && std::chrono::steady_clock::now() >= *deadline) {
                *err = ETIMEDOUT;
                return nullptr;
            }
            *err = 0;
            std::unique_ptr<NetFd> net = dial_one(list.at[i], deadline, err);
            if (!net) break;
            if (!self_connected(net->fd())) return net;
            *err = ECONNREFUSED;
        }
    }
    return nullptr;
}

} // namespace

Conn::Conn() noexcept = default;
Conn::Conn(Conn&&) noexcept = default;
Conn& Conn::operator=(Conn&&) noexcept = default;
Conn::~Conn() = default;
Conn::Conn(std::unique_ptr<NetFd> fd) noexcept : fd_(std::move(fd)) {}

Conn Conn::dial(std::string_view network, std::string_view address, Deadline deadline,
                std::error_code& ec) {
    rt::must_park("Conn::dial");
    const auto list = detail::parse_address(network, address, detail::AddressUse::kDial);
    int err = list.error;
    std::unique_ptr<NetFd> net;
    if (err == 0) net = dial_any(list, deadline, &err);
    ec = error_of(err);
    return Conn(std::move(net));
}

Conn Conn::dial(std::string_view network, std::string_view address, Deadline deadline) {
    std::error_code ec;
    Conn conn = dial(network, address, deadline, ec);
    if (!ec) return conn;
    std::string what = "dial " + std::string(network) + ' ' + std::string(address);
    const auto list = detail::parse_address(network, address, detail::AddressUse::kDial);
    if (list.hint) what += std::string(" (") + list.hint + ')';
    throw std::system_error(ec, what);
}

std::size_t Conn::read(std::span<std::byte> buf, std::error_code& ec) {
    rt::must_park("Conn::read");
    const detail::IoResult r = fd_ ? fd_->read(buf.data(), buf.size()) : detail::IoResult{0, EBADF};
    ec = error_of(r.err);
    return r.n;
}

std::size_t Conn::read(std::span<std::byte> buf) {
    std::error_code ec;
    const std::size_t n = read(buf, ec);
    if (ec) detail::throw_net_error("read", fd_.get(), ec);
    return n;
}

std::size_t Conn::write(std::span<const std::byte> buf, std::error_code& ec) {
    rt::must_park("Conn::write");
    const detail::IoResult r =
        fd_ ? fd_->write(buf.data(), buf.size()) : detail::IoResult{0, EBADF};
    ec = error_of(r.err);
    return r.n;
}

std::size_t Conn::write(std::span<const std::byte> buf) {
    std::error_code ec;
    const std::size_t n = write(buf, ec);
    if (ec) detail::throw_net_error("write", fd_.get(), ec);
    return n;
}

namespace {

void set_deadline_of(NetFd* fd, const Deadline& d, bool read, bool write) {
    rt::must_park("Conn::set_deadline");
    const int err = fd ? fd->set_deadline(d, read, write) : EBADF;
    if (err != 0) detail::throw_net_error("set_deadline", fd, error_of(err));
}

} // namespace

void Conn::set_deadline(Deadline d) { set_deadline_of(fd_.get(), d, true, true); }

void Conn::set_read_deadline(Deadline d) { set_deadline_of(fd_.get(), d, true, false); }

void Conn::set_write_deadline(Deadline d) { set_deadline_of(fd_.get(), d, false, true); }

void Conn::shutdown_write() {
    const int err = fd_ ? fd_->shutdown_write() : EBADF;
    if (err != 0) detail::throw_net_error("shutdown_write", fd_.get(), error_of(err));
}

void Conn::close() noexcept {
    if (fd_) fd_->close();
}

int Conn::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

Conn::operator bool() const noexcept { return fd() >= 0; }

std::string Conn::local_address() const { return fd_ ? fd_->local().text() : std::string(); }

std::string Conn::remote_address() const { return fd_ ? fd_->peer().text() : std::string(); }

} // namespace baton
