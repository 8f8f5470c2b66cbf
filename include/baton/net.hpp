// SPDX-License-Identifier: Apache-2.0
//
// Stream sockets that park the goroutine, or the plain thread: TCP over IPv4 and IPv6, and Unix
// sockets.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace [[gnu::visibility("default")]] baton {

namespace detail {
class NetFd;
}

/// When a wait gives up; nullopt never.
using Deadline = std::optional<std::chrono::steady_clock::time_point>;

/// A connected stream socket. Movable; closes on destruction. One goroutine may read while another
/// writes. Every call may park, except where said. Any thread: a plain one sleeps where a goroutine
/// parks.
/// Each call has a throwing form (std::system_error) and one that fills a std::error_code.
/// A passed deadline is std::errc::timed_out; a wait cut by close() std::errc::bad_file_descriptor.
class Conn {
public:
    Conn() noexcept;
    Conn(Conn&&) noexcept;
    Conn& operator=(Conn&&) noexcept;
    ~Conn();

    /// Connects to `address` on `network`: "tcp" ("host:port", "[v6]:port", numeric addresses or
    /// "localhost"), or "unix" (a path; a leading '@' is the abstract namespace).
    static Conn dial(std::string_view network, std::string_view address, Deadline deadline = {});
    static Conn dial(std::string_view network, std::string_view address, Deadline deadline,
                     std::error_code& ec);

    /// Reads at most `buf.size()` bytes; 0 is the end of the stream.
    std::size_t read(std::span<std::byte> buf);
    std::size_t read(std::span<std::byte> buf, std::error_code& ec);
    /// Writes all of `buf`; with an error, how much went out before it.
    std::size_t write(std::span<const std::byte> buf);
    std::size_t write(std::span<const std::byte> buf, std::error_code& ec);

    std::size_t read(void* p, std::size_t n) { return read({static_cast<std::byte*>(p), n}); }
    std::size_t write(std::string_view s) { return write(std::as_bytes(std::span(s))); }

    /// Deadlines for all later and present reads and writes; nullopt clears them. Never parks.
    void set_deadline(Deadline d);
    void set_read_deadline(Deadline d);
    void set_write_deadline(Deadline d);

    /// Half-close: the peer reads the end of the stream. Never parks.
    void shutdown_write();
    /// Closes and wakes whoever is parked on it. Never parks; a second close does nothing.
    void close() noexcept;

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept;
    [[nodiscard]] std::string local_address() const;
    [[nodiscard]] std::string remote_address() const;

private:
    friend class Listener;
    explicit Conn(std::unique_ptr<detail::NetFd> fd) noexcept;
    std::unique_ptr<detail::NetFd> fd_;
};

/// A listening socket. Movable; closes on destruction. Several goroutines may accept.
class Listener {
public:
    Listener() noexcept;
    Listener(Listener&&) noexcept;
    Listener& operator=(Listener&&) noexcept;
    ~Listener();

    /// Listens on `address` as Conn::dial names it; port 0 picks one, an empty host means all.
    static Listener listen(std::string_view network, std::string_view address);
    static Listener listen(std::string_view network, std::string_view address, std::error_code& ec);

    /// Parks until a connection comes. EMFILE and the like are returned, not retried.
    Conn accept();
    Conn accept(std::error_code& ec);
    void set_deadline(Deadline d);
    void close() noexcept;

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] std::string address() const; ///< "127.0.0.1:8080", "[::1]:80" or the path
    [[nodiscard]] int port() const noexcept;   ///< 0 for Unix sockets

private:
    explicit Listener(std::unique_ptr<detail::NetFd> fd) noexcept;
    std::unique_ptr<detail::NetFd> fd_;
};

} // namespace baton
