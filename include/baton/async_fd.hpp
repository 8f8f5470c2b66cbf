// SPDX-License-Identifier: Apache-2.0
//
// Any other descriptor that can be polled, and that parks the goroutine, or the plain thread:
// pipes, terminals, eventfd, timerfd, signalfd, pidfd, inotify, and libraries' own.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/types.h>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
class ParkFd;
}

/// A descriptor that can be polled; regular files and directories cannot. Movable; closes on
/// destruction. Goroutines, threads and errors are as with Conn: reads come one after another, and
/// so do writes, the waits among them.
class AsyncFd {
public:
    AsyncFd() noexcept;
    AsyncFd(AsyncFd&&) noexcept;
    AsyncFd& operator=(AsyncFd&&) noexcept;
    ~AsyncFd();

    /// Takes over `fd`, and makes it non-blocking: with it whoever shares its file description, as
    /// other processes share a terminal. With an error it stays the caller's; operation_not_
    /// permitted is for what cannot be polled. Never parks.
    static AsyncFd adopt(int fd);
    static AsyncFd adopt(int fd, std::error_code& ec);
    /// The two ends of a pipe: to read from, to write to. Never parks.
    static std::pair<AsyncFd, AsyncFd> pipe();
    static std::pair<AsyncFd, AsyncFd> pipe(std::error_code& ec);

    /// One read(2), when there is something: at most `buf.size()` bytes, 0 at the end.
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

    /// Writes all of `buf`; with an error, how much went out before it. To a pipe that nobody
    /// reads, SIGPIPE is raised as by write(2).
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

    /// Parks until poll(2) would call it readable (an end or an error counts), for calls of one's
    /// own on fd(). It may be no longer by then if others read as well.
    void wait_readable(const Until& until = {}) { wait_in(true, until, nullptr); }
    void wait_readable(const Until& until, std::error_code& ec) { wait_in(true, until, &ec); }
    void wait_writable(const Until& until = {}) { wait_in(false, until, nullptr); }
    void wait_writable(const Until& until, std::error_code& ec) { wait_in(false, until, &ec); }

    /// Closes and wakes whoever is parked on it. Never parks; a second close does nothing.
    void close() noexcept;
    /// Gives the descriptor to the caller, non-blocking as it is, and is empty then. Throws
    /// std::system_error, device_or_resource_busy, while another call is under way. Never parks.
    [[nodiscard]] int release();

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept { return fd() >= 0; }

private:
    std::size_t read_in(std::span<std::byte> buf, const Until* until, std::error_code* ec);
    std::size_t write_in(std::span<const std::byte> buf, const Until* until, std::error_code* ec);
    void wait_in(bool read, const Until& until, std::error_code* ec);
    std::unique_ptr<detail::ParkFd> fd_;
};

/// Parks until child `pid` of this process has ended and reaps it; returns its status as waitpid
/// fills it in, for WIFEXITED and the like. no_child_process if it is none, or is reaped elsewhere.
/// Given up at `until`, it goes on and is not reaped.
int wait_child(pid_t pid, const Until& until = {});
int wait_child(pid_t pid, const Until& until, std::error_code& ec);

} // namespace baton
#pragma GCC visibility pop
