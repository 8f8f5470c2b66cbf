// SPDX-License-Identifier: Apache-2.0
//
// Conn; how it is dialled stands in dial.cpp.
#include <cerrno>

#include <netinet/tcp.h>

#include "io/netfd.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::IoResult;
using detail::NetFd;
using kernel::raw_syscall;

namespace {

/// What `f` answers on the descriptor, or EBADF where there is none.
template <class F>
std::size_t on(const char* what, const char* operation, NetFd* fd, std::error_code* ec, F f) {
    rt::must_park(what);
    return detail::result_of(operation, fd, fd ? f(*fd) : IoResult{0, EBADF}, ec);
}

template <class F>
void must(const char* operation, NetFd* fd, F f) {
    const int err = fd ? f(*fd) : EBADF;
    if (err != 0) detail::throw_net_error(operation, fd, error_of(err));
}

void set_deadline_of(NetFd* fd, const Deadline& d, bool read, bool write) {
    rt::must_park("Conn::set_deadline");
    must("set_deadline", fd, [&](NetFd& f) { return f.set_deadline(d, read, write); });
}

} // namespace

Conn::Conn() noexcept = default;
Conn::Conn(Conn&&) noexcept = default;
Conn& Conn::operator=(Conn&&) noexcept = default;
Conn::~Conn() = default;
Conn::Conn(std::unique_ptr<NetFd> fd) noexcept : fd_(std::move(fd)) {}

Conn Conn::adopt(int fd, std::error_code& ec) {
    int err = 0;
    Conn conn(detail::adopt_socket(fd, SOCK_STREAM, &err));
    ec = error_of(err);
    return conn;
}

Conn Conn::adopt(int fd) {
    std::error_code ec;
    Conn conn = adopt(fd, ec);
    if (ec) throw std::system_error(ec, "Conn::adopt");
    return conn;
}

std::pair<Conn, Conn> Conn::pair(std::error_code& ec) {
    int fds[2];
    constexpr int kType = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int err = static_cast<int>(-raw_syscall(__NR_socketpair, AF_UNIX, kType, 0, fds));
    std::pair<Conn, Conn> both;
    if (err == 0) {
        detail::OwnedFd first(fds[0]);
        detail::OwnedFd second(fds[1]);
        both.first.fd_ = detail::ParkFd::adopt<NetFd>(first, &err, AF_UNIX, SOCK_STREAM);
        if (both.first.fd_)
            both.second.fd_ = detail::ParkFd::adopt<NetFd>(second, &err, AF_UNIX, SOCK_STREAM);
        if (!both.second.fd_) both.first = Conn();
    }
    ec = error_of(err);
    return both;
}

std::pair<Conn, Conn> Conn::pair() {
    std::error_code ec;
    auto both = pair(ec);
    if (ec) throw std::system_error(ec, "Conn::pair");
    return both;
}

std::size_t Conn::read_in(std::span<std::byte> buf, const Until* until, std::error_code* ec) {
    return on("Conn::read", "read", fd_.get(), ec,
              [&](NetFd& fd) { return fd.read(buf.data(), buf.size(), until); });
}

std::size_t Conn::write_in(std::span<const std::byte> buf, const Until* until,
                           std::error_code* ec) {
    return on("Conn::write", "write", fd_.get(), ec,
              [&](NetFd& fd) { return fd.write(buf.data(), buf.size(), until); });
}

std::size_t Conn::readv_in(std::span<const std::span<std::byte>> bufs, const Until* until,
                           std::error_code* ec) {
    return on("Conn::readv", "readv", fd_.get(), ec,
              [&](NetFd& fd) { return fd.readv(bufs, until); });
}

std::size_t Conn::writev_in(std::span<const std::span<const std::byte>> bufs, const Until* until,
                            std::error_code* ec) {
    return on("Conn::writev", "writev", fd_.get(), ec,
              [&](NetFd& fd) { return fd.writev(bufs, until); });
}

std::size_t Conn::zero_copy_in(std::span<const std::byte> buf, const Until* until,
                               std::error_code* ec) {
    return on("Conn::write_zero_copy", "write_zero_copy", fd_.get(), ec,
              [&](NetFd& fd) { return fd.write_zero_copy(buf.data(), buf.size(), until); });
}

std::size_t Conn::send_file_in(int from, std::int64_t* from_at, std::size_t size,
                               const Until* until, std::error_code* ec) {
    return on("Conn::send_file", "send_file", fd_.get(), ec,
              [&](NetFd& fd) { return fd.send_file(from, from_at, size, until); });
}

std::size_t Conn::send_fds_in(std::span<const std::byte> bytes, std::span<const int> fds,
                              const Until* until, std::error_code* ec) {
    return on("Conn::send_fds", "send_fds", fd_.get(), ec,
              [&](NetFd& fd) { return fd.send_fds(bytes, fds, until); });
}

std::size_t Conn::recv_fds_in(std::span<std::byte> buf, std::vector<int>& fds, const Until* until,
                              std::error_code* ec) {
    return on("Conn::recv_fds", "recv_fds", fd_.get(), ec,
              [&](NetFd& fd) { return fd.recv_fds(buf, fds, until); });
}

void Conn::set_deadline(Deadline d) { set_deadline_of(fd_.get(), d, true, true); }

void Conn::set_read_deadline(Deadline d) { set_deadline_of(fd_.get(), d, true, false); }

void Conn::set_write_deadline(Deadline d) { set_deadline_of(fd_.get(), d, false, true); }

void Conn::shutdown_write() {
    must("shutdown_write", fd_.get(), [](NetFd& f) { return f.shutdown(SHUT_WR); });
}

void Conn::shutdown_write(std::error_code& ec) noexcept {
    ec = error_of(fd_ ? fd_->shutdown(SHUT_WR) : EBADF);
}

void Conn::shutdown_read() {
    must("shutdown_read", fd_.get(), [](NetFd& f) { return f.shutdown(SHUT_RD); });
}

void Conn::shutdown_read(std::error_code& ec) noexcept {
    ec = error_of(fd_ ? fd_->shutdown(SHUT_RD) : EBADF);
}

void Conn::set_no_delay(bool on) {
    must("set_no_delay", fd_.get(), [on](NetFd& f) {
        return static_cast<int>(
            f.call([on](int fd) { return detail::set_option(fd, IPPROTO_TCP, TCP_NODELAY, on); }));
    });
}

void Conn::set_keep_alive(const std::optional<KeepAlive>& keep_alive) {
    must("set_keep_alive", fd_.get(), [&](NetFd& f) {
        return static_cast<int>(
            f.call([&](int fd) { return detail::set_keep_alive(fd, keep_alive); }));
    });
}

void Conn::close() noexcept {
    if (fd_) fd_->close();
}

int Conn::release() {
    int fd = -1;
    must("release", fd_.get(), [&fd](NetFd& f) { return f.release(&fd); });
    fd_.reset();
    return fd;
}

int Conn::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

Conn::operator bool() const noexcept { return fd() >= 0; }

std::string Conn::local_address() const { return fd_ ? fd_->local().text() : std::string(); }

std::string Conn::remote_address() const { return fd_ ? fd_->peer().text() : std::string(); }

} // namespace baton
