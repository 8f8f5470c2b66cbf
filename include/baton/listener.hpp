// SPDX-License-Identifier: Apache-2.0
//
// Listening sockets.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "baton/conn.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

struct ListenOptions {
    bool reuse_port = false; ///< SO_REUSEPORT: several listeners on one port
    int backlog = 0;         ///< 0: as many as net.core.somaxconn allows
    bool no_delay = true;    ///< of the accepted: small writes go out at once
    std::optional<KeepAlive> keep_alive = KeepAlive{}; ///< of the accepted; nullopt: off
};

/// A listening socket. Movable; closes on destruction. Any number of goroutines may accept: they
/// take turns. Errors are told as by Conn.
class Listener {
public:
    Listener() noexcept;
    Listener(Listener&&) noexcept;
    Listener& operator=(Listener&&) noexcept;
    ~Listener();

    /// Listens on `address` as Conn::dial names it; port 0 picks one. On "tcp" an empty host or
    /// [::] means all addresses of both families, by one socket where the system has IPv6; "tcp4"
    /// and "tcp6" mean one family. A name stands for its first address.
    static Listener listen(std::string_view network, std::string_view address,
                           const ListenOptions& options = {});
    static Listener listen(std::string_view network, std::string_view address, std::error_code& ec,
                           const ListenOptions& options = {});
    /// Takes over a listening socket, and makes it non-blocking. With an error it stays the
    /// caller's. Never parks.
    static Listener adopt(int fd);
    static Listener adopt(int fd, std::error_code& ec);

    /// Parks until a connection comes; one that was reset before is skipped. While the system is
    /// short of what one needs (EMFILE, ENFILE, ENOBUFS, ENOMEM) the next attempt waits for 5 ms,
    /// then twice as long each time, up to a second; only if it is given up meanwhile at a
    /// deadline, that error is returned.
    Conn accept() { return accept_in(nullptr, nullptr); }
    Conn accept(std::error_code& ec) { return accept_in(nullptr, &ec); }
    Conn accept(const Until& until) { return accept_in(&until, nullptr); }
    Conn accept(const Until& until, std::error_code& ec) { return accept_in(&until, &ec); }

    void set_deadline(Deadline d);
    void close() noexcept;
    /// As Conn::release. A Unix socket's file stays.
    [[nodiscard]] int release();

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] std::string address() const; ///< "127.0.0.1:8080", "[::1]:80" or the path
    [[nodiscard]] int port() const noexcept;   ///< 0 for Unix sockets

private:
    explicit Listener(std::unique_ptr<detail::NetFd> fd) noexcept;
    Conn accept_in(const Until* until, std::error_code* ec);
    std::unique_ptr<detail::NetFd> fd_;
};

} // namespace baton
#pragma GCC visibility pop
