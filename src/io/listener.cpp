// SPDX-License-Identifier: Apache-2.0
//
// Listener: binding, and accepting.
#include <cerrno>
#include <climits>

#include "io/netfd.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::NetFd;
using detail::SockAddr;
using kernel::raw_syscall;

namespace {

std::unique_ptr<NetFd> listen_one(const SockAddr& on, int* err) {
    detail::OwnedFd fd(detail::open_socket(on.family()));
    if (fd.get() < 0) {
        *err = -fd.get();
        return nullptr;
    }
    const int yes = 1;
    const int no = 0;
    if (on.is_ip())
        (void)raw_syscall(__NR_setsockopt, fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (on.family() == AF_INET6) // "all" includes IPv4; for one address it makes no difference
        (void)raw_syscall(__NR_setsockopt, fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    long rc = raw_syscall(__NR_bind, fd.get(), &on.sa, on.len);
    // The kernel cuts the backlog to net.core.somaxconn, whatever that is by now.
    if (rc == 0) rc = raw_syscall(__NR_listen, fd.get(), INT_MAX);
    if (rc < 0) {
        *err = static_cast<int>(-rc);
        return nullptr;
    }
    std::unique_ptr<NetFd> net = NetFd::adopt(fd, on.family(), err);
    if (net && on.family() == AF_UNIX && on.un.sun_path[0] != 0) net->own_path(on.text());
    return net;
}

/// May another candidate do where this one failed? A machine without IPv6, mostly.
bool unsupported(int err) {
    return err == EAFNOSUPPORT || err == EADDRNOTAVAIL || err == EPROTONOSUPPORT;
}

} // namespace

Listener::Listener() noexcept = default;
Listener::Listener(Listener&&) noexcept = default;
Listener& Listener::operator=(Listener&&) noexcept = default;
Listener::~Listener() = default;
Listener::Listener(std::unique_ptr<NetFd> fd) noexcept : fd_(std::move(fd)) {}

Listener Listener::listen(std::string_view network, std::string_view address, std::error_code& ec) {
    rt::must_park("Listener::listen");
    const auto list = detail::parse_address(network, address, detail::AddressUse::kListen);
    int err = list.error;
    std::unique_ptr<NetFd> net;
    for (int i = 0; i < list.n && !net; i++) {
        err = 0;
        net = listen_one(list.at[i], &err);
        if (!net && !unsupported(err)) break;
    }
    ec = error_of(err);
    return Listener(std::move(net));
}

Listener Listener::listen(std::string_view network, std::string_view address) {
    std::error_code ec;
    Listener listener = listen(network, address, ec);
    if (!ec) return listener;
    std::string what = "listen " + std::string(network) + ' ' + std::string(address);
    const auto list = detail::parse_address(network, address, detail::AddressUse::kListen);
    if (list.hint) what += std::string(" (") + list.hint + ')';
    throw std::system_error(ec, what);
}

Conn Listener::accept(std::error_code& ec) {
    rt::must_park("Listener::accept");
    detail::OwnedFd fd(-1);
    SockAddr peer;
    int err = fd_ ? fd_->accept(&fd, &peer) : EBADF;
    std::unique_ptr<NetFd> net;
    if (err == 0) net = NetFd::adopt(fd, fd_->family(), &err);
    if (net) net->set_peer(peer);
    ec = error_of(err);
    return Conn(std::move(net));
}

Conn Listener::accept() {
    std::error_code ec;
    Conn conn = accept(ec);
    if (ec) throw std::system_error(ec, "accept " + address());
    return conn;
}

void Listener::set_deadline(Deadline d) {
    rt::must_park("Listener::set_deadline");
    const int err = fd_ ? fd_->set_deadline(d, true, false) : EBADF;
    if (err != 0) throw std::system_error(error_of(err), "set_deadline of a listener");
}

void Listener::close() noexcept {
    if (fd_) fd_->close();
}

int Listener::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

std::string Listener::address() const { return fd_ ? fd_->local().text() : std::string(); }

int Listener::port() const noexcept { return fd_ ? fd_->local().port() : 0; }

} // namespace baton
