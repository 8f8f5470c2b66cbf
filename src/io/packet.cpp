// SPDX-License-Identifier: Apache-2.0
//
// PacketConn.
#include <cerrno>

#include "io/bind.hpp"
#include "io/netfd.hpp"
#include "io/resolve.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::IoResult;
using detail::NetFd;
using kernel::raw_syscall;

namespace {

template <class F>
std::size_t on(const char* what, const char* operation, NetFd* fd, std::error_code* ec, F f) {
    rt::must_park(what);
    return detail::result_of(operation, fd, fd ? f(*fd) : IoResult{0, EBADF}, ec);
}

int set_options(int fd, const PacketOptions& options) {
    return options.broadcast ? detail::set_option(fd, SOL_SOCKET, SO_BROADCAST, 1) : 0;
}

/// A connect of a datagram socket waits for nothing.
std::unique_ptr<NetFd> connect_one(const SocketAddress& to, const PacketOptions& options,
                                   int* err) {
    detail::OwnedFd fd(detail::open_socket(to.family(), SOCK_DGRAM, false));
    *err = fd.get() < 0 ? -fd.get() : set_options(fd.get(), options);
    if (*err == 0 && options.reuse_port)
        *err = detail::set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
    // A Unix receiver answers to where it finds the sender.
    if (*err == 0 && to.family() == AF_UNIX) {
        sockaddr_un self{};
        self.sun_family = AF_UNIX;
        *err = static_cast<int>(-raw_syscall(__NR_bind, fd.get(), &self, sizeof(sa_family_t)));
    }
    if (*err == 0) *err = static_cast<int>(-raw_syscall(__NR_connect, fd.get(), &to.sa, to.len));
    if (*err != 0) return nullptr;
    auto net = detail::ParkFd::adopt<NetFd>(fd, err, to.family(), SOCK_DGRAM);
    if (net) net->set_peer(to);
    return net;
}

} // namespace

PacketConn::PacketConn() noexcept = default;
PacketConn::PacketConn(PacketConn&&) noexcept = default;
PacketConn& PacketConn::operator=(PacketConn&&) noexcept = default;
PacketConn::~PacketConn() = default;
PacketConn::PacketConn(std::unique_ptr<NetFd> fd) noexcept : fd_(std::move(fd)) {}

PacketConn PacketConn::bind(std::string_view network, std::string_view address, std::error_code& ec,
                            const PacketOptions& options) {
    rt::must_park("PacketConn::bind");
    return PacketConn(detail::bind_socket(
        network, address, SOCK_DGRAM, options.reuse_port, ec,
        [&](int fd, const SocketAddress&) { return set_options(fd, options); }));
}

PacketConn PacketConn::bind(std::string_view network, std::string_view address,
                            const PacketOptions& options) {
    std::error_code ec;
    PacketConn conn = bind(network, address, ec, options);
    if (ec) detail::throw_bind_error("bind", network, address, ec);
    return conn;
}

PacketConn PacketConn::dial(std::string_view network, std::string_view address, const Until& until,
                            std::error_code& ec, const PacketOptions& options) {
    rt::must_park("PacketConn::dial");
    std::unique_ptr<NetFd> net;
    if (detail::network_of(network).type != SOCK_DGRAM) {
        ec = error_of(EINVAL);
        return {};
    }
    for (const SocketAddress& to :
         detail::resolve_for(detail::AddressUse::kDial, network, address, until, ec)) {
        int err = 0;
        net = connect_one(to, options, &err);
        ec = error_of(err);
        if (net) break;
    }
    return PacketConn(std::move(net));
}

PacketConn PacketConn::dial(std::string_view network, std::string_view address, const Until& until,
                            const PacketOptions& options) {
    std::error_code ec;
    PacketConn conn = dial(network, address, until, ec, options);
    if (ec) detail::throw_bind_error("dial", network, address, ec);
    return conn;
}

PacketConn PacketConn::adopt(int fd, std::error_code& ec) {
    int err = 0;
    PacketConn conn(detail::adopt_socket(fd, SOCK_DGRAM, &err));
    ec = error_of(err);
    return conn;
}

PacketConn PacketConn::adopt(int fd) {
    std::error_code ec;
    PacketConn conn = adopt(fd, ec);
    if (ec) throw std::system_error(ec, "PacketConn::adopt");
    return conn;
}

std::size_t PacketConn::recv_in(std::span<std::byte> buf, SocketAddress* from, const Until* until,
                                std::error_code* ec) {
    return on("PacketConn::recv", "recv", fd_.get(), ec,
              [&](NetFd& fd) { return fd.recv(buf, from, until); });
}

std::size_t PacketConn::send_in(std::span<const std::byte> buf, const SocketAddress* to,
                                const Until* until, std::error_code* ec) {
    return on("PacketConn::send", "send", fd_.get(), ec,
              [&](NetFd& fd) { return fd.send(buf, to, until); });
}

std::size_t PacketConn::recv_batch_in(std::span<Packet> packets, const Until* until,
                                      std::error_code* ec) {
    return on("PacketConn::recv_batch", "recv_batch", fd_.get(), ec,
              [&](NetFd& fd) { return fd.recv_batch(packets, until); });
}

std::size_t PacketConn::send_batch_in(std::span<const Packet> packets, const Until* until,
                                      std::error_code* ec) {
    return on("PacketConn::send_batch", "send_batch", fd_.get(), ec,
              [&](NetFd& fd) { return fd.send_batch(packets, until); });
}

void PacketConn::set_deadline(Deadline d) {
    rt::must_park("PacketConn::set_deadline");
    const int err = fd_ ? fd_->set_deadline(d, true, true) : EBADF;
    if (err != 0) detail::throw_net_error("set_deadline", fd_.get(), error_of(err));
}

void PacketConn::close() noexcept {
    if (fd_) fd_->close();
}

int PacketConn::release() {
    int fd = -1;
    const int err = fd_ ? fd_->release(&fd) : EBADF;
    if (err != 0) detail::throw_net_error("release", fd_.get(), error_of(err));
    fd_.reset();
    return fd;
}

int PacketConn::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

PacketConn::operator bool() const noexcept { return fd() >= 0; }

SocketAddress PacketConn::local_address() const { return fd_ ? fd_->local() : SocketAddress(); }

SocketAddress PacketConn::remote_address() const { return fd_ ? fd_->peer() : SocketAddress(); }

} // namespace baton
