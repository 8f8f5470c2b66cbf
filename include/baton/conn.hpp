// SPDX-License-Identifier: Apache-2.0
//
// Stream sockets that park the goroutine, or the plain thread: TCP over IPv4 and IPv6, and Unix
// sockets.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "baton/address.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
class NetFd;
}

/// When a wait gives up; nullopt never.
using Deadline = std::optional<std::chrono::steady_clock::time_point>;

/// TCP keep-alive: after `idle` without a sign of the peer ask it every `interval`; after `count`
/// questions without an answer the connection fails with ETIMEDOUT. Whole seconds, at least one.
struct KeepAlive {
    std::chrono::seconds idle{15};
    std::chrono::seconds interval{15};
    int count = 9;
};

struct DialOptions {
    bool no_delay = true;                              ///< TCP_NODELAY: small writes go out at once
    std::optional<KeepAlive> keep_alive = KeepAlive{}; ///< nullopt: off
    /// How long one address is tried alone before the next one is tried beside it (RFC 8305).
    std::chrono::milliseconds head_start{250};
};

/// A connected stream socket. Movable; closes on destruction. Any number of goroutines may call it
/// at once: reads come one after another, and so do writes, each whole; a read and a write run
/// side by side. Every call may park, except where said. Any thread: a plain one sleeps where a
/// goroutine parks.
///
/// Each call has a throwing form (std::system_error) and one that fills a std::error_code. A wait
/// that is given up at an Until is std::errc::timed_out or operation_canceled, one at the
/// connection's own deadline timed_out, one cut by close() bad_file_descriptor. What can be done at
/// once is done, even if the Until is over; if the connection's deadline is, nothing is.
///
/// A read that fails has taken nothing. A write that fails may have sent a part: the forms with an
/// error_code return how much; that went out for good. After either the connection is usable if the
/// error was that a wait was given up.
class Conn {
public:
    Conn() noexcept;
    Conn(Conn&&) noexcept;
    Conn& operator=(Conn&&) noexcept;
    ~Conn();

    /// Connects to `address` on `network`: "tcp", "tcp4" or "tcp6" ("host:port", "[v6]:port"; an
    /// empty host is localhost), or "unix" (a path; a leading '@' is the abstract namespace).
    /// Names are looked up as resolve() says. Of several addresses each gets a head start before
    /// the next is tried as well; the first to connect wins and the rest are closed.
    static Conn dial(std::string_view network, std::string_view address, const Until& until = {},
                     const DialOptions& options = {});
    static Conn dial(std::string_view network, std::string_view address, const Until& until,
                     std::error_code& ec, const DialOptions& options = {});
    /// The same for addresses in the order they are to be tried.
    static Conn dial(std::span<const SocketAddress> addresses, const Until& until = {},
                     const DialOptions& options = {});
    static Conn dial(std::span<const SocketAddress> addresses, const Until& until,
                     std::error_code& ec, const DialOptions& options = {});
    /// Takes over a connected stream socket, and makes it non-blocking. With an error it stays the
    /// caller's. Never parks.
    static Conn adopt(int fd);
    static Conn adopt(int fd, std::error_code& ec);
    /// A pair of connected Unix sockets. Never parks.
    static std::pair<Conn, Conn> pair();
    static std::pair<Conn, Conn> pair(std::error_code& ec);

    /// Reads at most `buf.size()` bytes; 0 is the end of the stream.
    std::size_t read(std::span<std::byte> buf) { return read_in(buf, nullptr, nullptr); }
    std::size_t read(std::span<std::byte> buf, std::error_code& ec) {
        return read_in(buf, nullptr, &ec);
    }
    std::size_t read(std::span<std::byte> buf, const Until& until) {
        return read_in(buf, &until, nullptr);
    }
    std::size_t read(std::span<std::byte> buf, const Until& until, std::error_code& ec) {
        return read_in(buf, &until, &ec);
    }
    std::size_t read(void* p, std::size_t n) { return read({static_cast<std::byte*>(p), n}); }
    std::size_t read(void* p, std::size_t n, std::error_code& ec) {
        return read({static_cast<std::byte*>(p), n}, ec);
    }
    std::size_t read(void* p, std::size_t n, const Until& until) {
        return read({static_cast<std::byte*>(p), n}, until);
    }
    std::size_t read(void* p, std::size_t n, const Until& until, std::error_code& ec) {
        return read({static_cast<std::byte*>(p), n}, until, ec);
    }

    /// Writes all of `buf`; with an error, how much went out before it.
    std::size_t write(std::span<const std::byte> buf) { return write_in(buf, nullptr, nullptr); }
    std::size_t write(std::span<const std::byte> buf, std::error_code& ec) {
        return write_in(buf, nullptr, &ec);
    }
    std::size_t write(std::span<const std::byte> buf, const Until& until) {
        return write_in(buf, &until, nullptr);
    }
    std::size_t write(std::span<const std::byte> buf, const Until& until, std::error_code& ec) {
        return write_in(buf, &until, &ec);
    }
    std::size_t write(std::string_view s) { return write(std::as_bytes(std::span(s))); }
    std::size_t write(std::string_view s, std::error_code& ec) {
        return write(std::as_bytes(std::span(s)), ec);
    }
    std::size_t write(std::string_view s, const Until& until) {
        return write(std::as_bytes(std::span(s)), until);
    }
    std::size_t write(std::string_view s, const Until& until, std::error_code& ec) {
        return write(std::as_bytes(std::span(s)), until, ec);
    }

    /// Reads into several buffers in turn, in one system call: of the first 64.
    std::size_t readv(std::span<const std::span<std::byte>> bufs) {
        return readv_in(bufs, nullptr, nullptr);
    }
    std::size_t readv(std::span<const std::span<std::byte>> bufs, std::error_code& ec) {
        return readv_in(bufs, nullptr, &ec);
    }
    std::size_t readv(std::span<const std::span<std::byte>> bufs, const Until& until) {
        return readv_in(bufs, &until, nullptr);
    }
    std::size_t readv(std::span<const std::span<std::byte>> bufs, const Until& until,
                      std::error_code& ec) {
        return readv_in(bufs, &until, &ec);
    }
    /// Writes all of several buffers, 64 in each system call.
    std::size_t writev(std::span<const std::span<const std::byte>> bufs) {
        return writev_in(bufs, nullptr, nullptr);
    }
    std::size_t writev(std::span<const std::span<const std::byte>> bufs, std::error_code& ec) {
        return writev_in(bufs, nullptr, &ec);
    }
    std::size_t writev(std::span<const std::span<const std::byte>> bufs, const Until& until) {
        return writev_in(bufs, &until, nullptr);
    }
    std::size_t writev(std::span<const std::span<const std::byte>> bufs, const Until& until,
                       std::error_code& ec) {
        return writev_in(bufs, &until, &ec);
    }

    /// Writes all of `buf` without copying it into the kernel (MSG_ZEROCOPY), and waits until the
    /// kernel no longer needs it: until the peer has acknowledged it, that is. TCP only, else
    /// std::errc::operation_not_supported. After an error the kernel may still read `buf`, until
    /// the connection is closed and gone.
    ///
    /// Measure before use. On loopback, where the kernel copies when it delivers, writes of 4 KiB
    /// went out at a third of write's speed, of 16 KiB alike; of 64 to 256 KiB for half the CPU
    /// time, as little is under way at once and so stays in the cache; of 1 MiB at a quarter.
    std::size_t write_zero_copy(std::span<const std::byte> buf) {
        return zero_copy_in(buf, nullptr, nullptr);
    }
    std::size_t write_zero_copy(std::span<const std::byte> buf, std::error_code& ec) {
        return zero_copy_in(buf, nullptr, &ec);
    }
    std::size_t write_zero_copy(std::span<const std::byte> buf, const Until& until) {
        return zero_copy_in(buf, &until, nullptr);
    }
    std::size_t write_zero_copy(std::span<const std::byte> buf, const Until& until,
                                std::error_code& ec) {
        return zero_copy_in(buf, &until, &ec);
    }

    /// Sends `size` bytes of the regular file `from` within the kernel, as sendfile(2) does: at its
    /// position, or at *from_at if that is not null, which moves on. Fewer only where it ends, or
    /// with an error.
    std::size_t send_file(int from, std::int64_t* from_at, std::size_t size) {
        return send_file_in(from, from_at, size, nullptr, nullptr);
    }
    std::size_t send_file(int from, std::int64_t* from_at, std::size_t size, std::error_code& ec) {
        return send_file_in(from, from_at, size, nullptr, &ec);
    }
    std::size_t send_file(int from, std::int64_t* from_at, std::size_t size, const Until& until) {
        return send_file_in(from, from_at, size, &until, nullptr);
    }
    std::size_t send_file(int from, std::int64_t* from_at, std::size_t size, const Until& until,
                          std::error_code& ec) {
        return send_file_in(from, from_at, size, &until, &ec);
    }

    /// Sends `bytes`, at least one, and with the first of them copies of descriptors, 253 at most.
    /// Unix sockets only.
    std::size_t send_fds(std::span<const std::byte> bytes, std::span<const int> fds) {
        return send_fds_in(bytes, fds, nullptr, nullptr);
    }
    std::size_t send_fds(std::span<const std::byte> bytes, std::span<const int> fds,
                         std::error_code& ec) {
        return send_fds_in(bytes, fds, nullptr, &ec);
    }
    std::size_t send_fds(std::span<const std::byte> bytes, std::span<const int> fds,
                         const Until& until) {
        return send_fds_in(bytes, fds, &until, nullptr);
    }
    std::size_t send_fds(std::span<const std::byte> bytes, std::span<const int> fds,
                         const Until& until, std::error_code& ec) {
        return send_fds_in(bytes, fds, &until, &ec);
    }
    /// Reads, and adds to `fds` the descriptors that came along: the caller's to close, close-on-
    /// exec is set. One read never spans two messages with descriptors. Where the process has no
    /// room for them all those that are left are lost: std::errc::too_many_files_open, with the
    /// bytes and the others.
    std::size_t recv_fds(std::span<std::byte> buf, std::vector<int>& fds) {
        return recv_fds_in(buf, fds, nullptr, nullptr);
    }
    std::size_t recv_fds(std::span<std::byte> buf, std::vector<int>& fds, std::error_code& ec) {
        return recv_fds_in(buf, fds, nullptr, &ec);
    }
    std::size_t recv_fds(std::span<std::byte> buf, std::vector<int>& fds, const Until& until) {
        return recv_fds_in(buf, fds, &until, nullptr);
    }
    std::size_t recv_fds(std::span<std::byte> buf, std::vector<int>& fds, const Until& until,
                         std::error_code& ec) {
        return recv_fds_in(buf, fds, &until, &ec);
    }

    /// Deadlines for all later and present reads and writes; nullopt clears them. Never parks.
    void set_deadline(Deadline d);
    void set_read_deadline(Deadline d);
    void set_write_deadline(Deadline d);

    /// Half-close: the peer reads the end of the stream. Never parks.
    void shutdown_write();
    void shutdown_write(std::error_code& ec) noexcept;
    /// Half-close: reads from here on find the end of the stream, and who is in one too. Never
    /// parks.
    void shutdown_read();
    void shutdown_read(std::error_code& ec) noexcept;
    /// TCP only, both. Never park.
    void set_no_delay(bool on);
    void set_keep_alive(const std::optional<KeepAlive>& keep_alive);

    /// Closes and wakes whoever is parked on it. Never parks; a second close does nothing.
    void close() noexcept;
    /// Gives the descriptor to the caller, non-blocking as it is, and is empty then. Throws
    /// std::system_error, device_or_resource_busy, while another call is under way. Never parks.
    [[nodiscard]] int release();

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept;
    [[nodiscard]] std::string local_address() const;
    [[nodiscard]] std::string remote_address() const;

private:
    friend class Listener;
    explicit Conn(std::unique_ptr<detail::NetFd> fd) noexcept;
    std::size_t read_in(std::span<std::byte> buf, const Until* until, std::error_code* ec);
    std::size_t write_in(std::span<const std::byte> buf, const Until* until, std::error_code* ec);
    std::size_t readv_in(std::span<const std::span<std::byte>> bufs, const Until* until,
                         std::error_code* ec);
    std::size_t writev_in(std::span<const std::span<const std::byte>> bufs, const Until* until,
                          std::error_code* ec);
    std::size_t zero_copy_in(std::span<const std::byte> buf, const Until* until,
                             std::error_code* ec);
    std::size_t send_file_in(int from, std::int64_t* from_at, std::size_t size, const Until* until,
                             std::error_code* ec);
    std::size_t send_fds_in(std::span<const std::byte> bytes, std::span<const int> fds,
                            const Until* until, std::error_code* ec);
    std::size_t recv_fds_in(std::span<std::byte> buf, std::vector<int>& fds, const Until* until,
                            std::error_code* ec);
    std::unique_ptr<detail::NetFd> fd_;
};

} // namespace baton
#pragma GCC visibility pop
