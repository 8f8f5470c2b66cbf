// SPDX-License-Identifier: Apache-2.0
//
// Datagram sockets that park the goroutine, or the plain thread: UDP and Unix.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

#include "baton/address.hpp"
#include "baton/conn.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

struct PacketOptions {
    bool reuse_port = false; ///< SO_REUSEPORT
    bool broadcast = false;  ///< SO_BROADCAST
};

/// One of a batch.
struct Packet {
    std::span<std::byte> data; ///< to send; or where to put what comes
    SocketAddress address;     ///< whereto, none on a connected socket; or wherefrom
    std::size_t size = 0;      ///< bytes received
    bool cut = false;          ///< it was longer than `data`
};

/// A datagram socket. Movable; closes on destruction. Goroutines, threads, deadlines and errors are
/// as with Conn; a call that fails has sent or received nothing. Of a datagram longer than the
/// buffer the rest is lost.
class PacketConn {
public:
    PacketConn() noexcept;
    PacketConn(PacketConn&&) noexcept;
    PacketConn& operator=(PacketConn&&) noexcept;
    ~PacketConn();

    /// Bound to `address`, to receive from all and send to any: "udp", "udp4" or "udp6" with
    /// "host:port" as Listener::listen takes it, or "unixgram" with a path (removed by close).
    static PacketConn bind(std::string_view network, std::string_view address,
                           const PacketOptions& options = {});
    static PacketConn bind(std::string_view network, std::string_view address, std::error_code& ec,
                           const PacketOptions& options = {});
    /// Connected to `address`, the first of a name's: sends to and receives from it alone.
    static PacketConn dial(std::string_view network, std::string_view address,
                           const Until& until = {}, const PacketOptions& options = {});
    static PacketConn dial(std::string_view network, std::string_view address, const Until& until,
                           std::error_code& ec, const PacketOptions& options = {});
    /// Takes over a datagram socket, as Conn::adopt.
    static PacketConn adopt(int fd);
    static PacketConn adopt(int fd, std::error_code& ec);

    /// The length of the datagram, or of what `buf` could hold of it. A connected socket may fail
    /// with what became of a datagram sent before (connection_refused).
    std::size_t recv(std::span<std::byte> buf) { return recv_in(buf, nullptr, nullptr, nullptr); }
    std::size_t recv(std::span<std::byte> buf, std::error_code& ec) {
        return recv_in(buf, nullptr, nullptr, &ec);
    }
    std::size_t recv(std::span<std::byte> buf, const Until& until) {
        return recv_in(buf, nullptr, &until, nullptr);
    }
    std::size_t recv(std::span<std::byte> buf, const Until& until, std::error_code& ec) {
        return recv_in(buf, nullptr, &until, &ec);
    }
    std::size_t recv_from(std::span<std::byte> buf, SocketAddress& from) {
        return recv_in(buf, &from, nullptr, nullptr);
    }
    std::size_t recv_from(std::span<std::byte> buf, SocketAddress& from, std::error_code& ec) {
        return recv_in(buf, &from, nullptr, &ec);
    }
    std::size_t recv_from(std::span<std::byte> buf, SocketAddress& from, const Until& until) {
        return recv_in(buf, &from, &until, nullptr);
    }
    std::size_t recv_from(std::span<std::byte> buf, SocketAddress& from, const Until& until,
                          std::error_code& ec) {
        return recv_in(buf, &from, &until, &ec);
    }
    /// Sends one datagram; parks while the socket's buffer, or a Unix receiver's queue, is full.
    std::size_t send(std::span<const std::byte> buf) {
        return send_in(buf, nullptr, nullptr, nullptr);
    }
    std::size_t send(std::span<const std::byte> buf, std::error_code& ec) {
        return send_in(buf, nullptr, nullptr, &ec);
    }
    std::size_t send(std::span<const std::byte> buf, const Until& until) {
        return send_in(buf, nullptr, &until, nullptr);
    }
    std::size_t send(std::span<const std::byte> buf, const Until& until, std::error_code& ec) {
        return send_in(buf, nullptr, &until, &ec);
    }
    std::size_t send_to(std::span<const std::byte> buf, const SocketAddress& to) {
        return send_in(buf, &to, nullptr, nullptr);
    }
    std::size_t send_to(std::span<const std::byte> buf, const SocketAddress& to,
                        std::error_code& ec) {
        return send_in(buf, &to, nullptr, &ec);
    }
    std::size_t send_to(std::span<const std::byte> buf, const SocketAddress& to,
                        const Until& until) {
        return send_in(buf, &to, &until, nullptr);
    }
    std::size_t send_to(std::span<const std::byte> buf, const SocketAddress& to, const Until& until,
                        std::error_code& ec) {
        return send_in(buf, &to, &until, &ec);
    }

    /// Parks for the first datagram, then takes as many as are there, 32 at most; returns how many
    /// (recvmmsg).
    std::size_t recv_batch(std::span<Packet> packets) {
        return recv_batch_in(packets, nullptr, nullptr);
    }
    std::size_t recv_batch(std::span<Packet> packets, std::error_code& ec) {
        return recv_batch_in(packets, nullptr, &ec);
    }
    std::size_t recv_batch(std::span<Packet> packets, const Until& until) {
        return recv_batch_in(packets, &until, nullptr);
    }
    std::size_t recv_batch(std::span<Packet> packets, const Until& until, std::error_code& ec) {
        return recv_batch_in(packets, &until, &ec);
    }
    /// Sends them all, 32 in each system call (sendmmsg); with an error, how many went out before.
    std::size_t send_batch(std::span<const Packet> packets) {
        return send_batch_in(packets, nullptr, nullptr);
    }
    std::size_t send_batch(std::span<const Packet> packets, std::error_code& ec) {
        return send_batch_in(packets, nullptr, &ec);
    }
    std::size_t send_batch(std::span<const Packet> packets, const Until& until) {
        return send_batch_in(packets, &until, nullptr);
    }
    std::size_t send_batch(std::span<const Packet> packets, const Until& until,
                           std::error_code& ec) {
        return send_batch_in(packets, &until, &ec);
    }

    void set_deadline(Deadline d);
    void close() noexcept;
    [[nodiscard]] int release();

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept;
    [[nodiscard]] SocketAddress local_address() const;
    [[nodiscard]] SocketAddress remote_address() const;

private:
    explicit PacketConn(std::unique_ptr<detail::NetFd> fd) noexcept;
    std::size_t recv_in(std::span<std::byte> buf, SocketAddress* from, const Until* until,
                        std::error_code* ec);
    std::size_t send_in(std::span<const std::byte> buf, const SocketAddress* to, const Until* until,
                        std::error_code* ec);
    std::size_t recv_batch_in(std::span<Packet> packets, const Until* until, std::error_code* ec);
    std::size_t send_batch_in(std::span<const Packet> packets, const Until* until,
                              std::error_code* ec);
    std::unique_ptr<detail::NetFd> fd_;
};

} // namespace baton
#pragma GCC visibility pop
