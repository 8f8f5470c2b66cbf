// SPDX-License-Identifier: Apache-2.0
//
// Listener: binding, and accepting.
#include <cerrno>
#include <climits>

#include <netinet/tcp.h>

#include "io/bind.hpp"
#include "io/netfd.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::NetFd;
using kernel::raw_syscall;

namespace {

/// What connections inherit, and how many may queue.
int start_listening(int fd, const SocketAddress& on, const ListenOptions& options) {
    if (on.is_ip()) {
        if (options.no_delay) (void)detail::set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if (options.keep_alive) (void)detail::set_keep_alive(fd, options.keep_alive);
    }
    // The kernel cuts the backlog to net.core.somaxconn, whatever that is by now.
    const int backlog = options.backlog > 0 ? options.backlog : INT_MAX;
    return static_cast<int>(-raw_syscall(__NR_listen, fd, backlog));
}

} // namespace

Listener::Listener() noexcept = default;
Listener::Listener(Listener&&) noexcept = default;
Listener& Listener::operator=(Listener&&) noexcept = default;
Listener::~Listener() = default;
Listener::Listener(std::unique_ptr<NetFd> fd) noexcept : fd_(std::move(fd)) {}

Listener Listener::listen(std::string_view network, std::string_view address, std::error_code& ec,
                          const ListenOptions& options) {
    rt::must_park("Listener::listen");
    return Listener(detail::bind_socket(
        network, address, SOCK_STREAM, options.reuse_port, ec,
        [&](int fd, const SocketAddress& on) { return start_listening(fd, on, options); }));
}

Listener Listener::listen(std::string_view network, std::string_view address,
                          const ListenOptions& options) {
    std::error_code ec;
    Listener listener = listen(network, address, ec, options);
    if (ec) detail::throw_bind_error("listen", network, address, ec);
    return listener;
}

Listener Listener::adopt(int fd, std::error_code& ec) {
    int err = 0;
    Listener listener(detail::adopt_socket(fd, SOCK_STREAM, &err));
    ec = error_of(err);
    return listener;
}

Listener Listener::adopt(int fd) {
    std::error_code ec;
    Listener listener = adopt(fd, ec);
    if (ec) throw std::system_error(ec, "Listener::adopt");
    return listener;
}

Conn Listener::accept_in(const Until* until, std::error_code* ec) {
    rt::must_park("Listener::accept");
    detail::OwnedFd fd(-1);
    SocketAddress peer;
    int err = fd_ ? fd_->accept(&fd, &peer, until) : EBADF;
    std::unique_ptr<NetFd> net;
    if (err == 0) net = detail::ParkFd::adopt<NetFd>(fd, &err, fd_->family(), SOCK_STREAM);
    if (net) net->set_peer(peer);
    if (ec) {
        *ec = error_of(err);
    } else if (err != 0) {
        throw std::system_error(error_of(err), "accept " + address());
    }
    return Conn(std::move(net));
}

void Listener::set_deadline(Deadline d) {
    rt::must_park("Listener::set_deadline");
    const int err = fd_ ? fd_->set_deadline(d, true, false) : EBADF;
    if (err != 0) throw std::system_error(error_of(err), "set_deadline of a listener");
}

void Listener::close() noexcept {
    if (fd_) fd_->close();
}

int Listener::release() {
    int fd = -1;
    const int err = fd_ ? fd_->release(&fd) : EBADF;
    if (err != 0) throw std::system_error(error_of(err), "release of a listener");
    fd_.reset();
    return fd;
}

int Listener::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

std::string Listener::address() const { return fd_ ? fd_->local().text() : std::string(); }

int Listener::port() const noexcept { return fd_ ? fd_->local().port() : 0; }

} // namespace baton
