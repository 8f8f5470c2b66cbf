// SPDX-License-Identifier: Apache-2.0
//
// NetFd: a non-blocking socket on the netpoller; what Conn and Listener are made of (the
// reference's internal/poll.FD).
//
// Threads: any; everything but close and the questions may park.
// Invariants: I1 no system call is made on the descriptor once it may be closed (FdMutex I1).
// Results are errno values, 0 for success: nothing here reads errno, as a G changes threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>

#include "baton/net.hpp"
#include "io/address.hpp"
#include "io/fdmutex.hpp"
#include "runtime/netpoll.hpp"

namespace baton::detail {

/// How much was done, and the errno that ended it.
struct IoResult {
    std::size_t n = 0;
    int err = 0;
};

/// A descriptor that is closed unless released.
class OwnedFd {
public:
    explicit OwnedFd(int fd) : fd_(fd) {}
    OwnedFd(const OwnedFd&) = delete;
    OwnedFd& operator=(const OwnedFd&) = delete;
    ~OwnedFd();
    int get() const { return fd_; }
    int release() {
        const int fd = fd_;
        fd_ = -1;
        return fd;
    }
    /// For one that holds nothing yet.
    void hold(int fd) { fd_ = fd; }

private:
    int fd_;
};

class NetFd {
public:
    /// Registers a non-blocking socket with the netpoller. On failure null and *err.
    static std::unique_ptr<NetFd> adopt(OwnedFd& fd, int family, int* err);
    NetFd(const NetFd&) = delete;
    NetFd& operator=(const NetFd&) = delete;
    ~NetFd();

    IoResult read(std::byte* buf, std::size_t size);
    IoResult write(const std::byte* buf, std::size_t size);
    /// The next connection, in *peer_fd.
    int accept(OwnedFd* peer_fd, SockAddr* peer);
    /// After a connect that answered EINPROGRESS.
    int wait_connected(const Deadline& deadline);

    int set_deadline(const Deadline& d, bool read, bool write);
    int shutdown_write();
    void close() noexcept;

    /// -1 once closed.
    int fd() const noexcept { return mu_.closed() ? -1 : sysfd_; }
    SockAddr local();
    SockAddr peer() const;
    void set_peer(const SockAddr& peer);
    const char* network() const { return family_ == AF_UNIX ? "unix" : "tcp"; }
    int family() const { return family_; }

    /// The Unix socket file that close removes, unless another has taken its place.
    void own_path(std::string path);

private:
    NetFd(int fd, int family, rt::PollDesc* pd) : sysfd_(fd), family_(family), pd_(pd) {}
    void destroy() noexcept;
    void remove_path() noexcept;
    IoResult read_locked(std::byte* buf, std::size_t size);
    IoResult write_locked(const std::byte* buf, std::size_t size);

    FdMutex mu_;
    const int sysfd_;
    const int family_;
    rt::PollDesc* const pd_;
    // The last read left nothing behind: the next one waits first. The reader's.
    bool drained_ = false;
    sockaddr_in6 ip_peer_{}; // or a sockaddr_in; family 0: none
    std::string path_;       // Unix: the listener's file, or the peer's name
    std::uint64_t path_ino_ = 0;
    std::uint64_t path_dev_ = 0;
};

/// The error_code of an errno value; none for 0.
inline std::error_code error_of(int err) { return {err, std::generic_category()}; }
/// Throws std::system_error: "read tcp 127.0.0.1:80: Connection reset by peer".
[[noreturn]] void throw_net_error(const char* operation, const NetFd* fd, std::error_code ec);

/// A TCP socket of the runtime's kind, or a Unix one. -errno on failure.
int open_socket(int family) noexcept;

} // namespace baton::detail
