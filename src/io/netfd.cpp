// SPDX-License-Identifier: Apache-2.0
#include "io/netfd.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include <netinet/tcp.h>
#include <sys/stat.h>

#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;
using rt::PollMode;

/// The kernel caps one transfer just below 2 GiB; we stay at a round number, as the reference does.
constexpr std::size_t kTransferMax = 1 << 30;

std::int64_t deadline_ns(const Deadline& d) {
    if (!d) return 0;
    using std::chrono::nanoseconds;
    const auto ns = std::chrono::duration_cast<nanoseconds>(d->time_since_epoch()).count();
    return std::max<std::int64_t>(ns, 1);
}

/// Holds one side of a descriptor for a scope; the last one out closes it.
template <class Leave>
struct OnExit {
    Leave leave;
    ~OnExit() { leave(); }
};
template <class Leave>
OnExit(Leave) -> OnExit<Leave>;

} // namespace

OwnedFd::~OwnedFd() {
    if (fd_ >= 0) (void)raw_syscall(__NR_close, fd_);
}

int open_socket(int family) noexcept {
    const long fd = raw_syscall(__NR_socket, family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && family != AF_UNIX) {
        // On by default, as in the reference: a small write goes out at once. Connections inherit
        // it from the listener.
        const int on = 1;
        (void)raw_syscall(__NR_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return static_cast<int>(fd);
}

std::unique_ptr<NetFd> NetFd::adopt(OwnedFd& fd, int family, int* err) {
    try {
        rt::ensure_started(); // a plain thread's first call may be this one
    } catch (const std::system_error& e) {
        *err = e.code().value();
        return nullptr;
    }
    rt::PollDesc* pd = rt::poll_open(fd.get(), err);
    if (!pd) return nullptr;
    auto* net = new (std::nothrow) NetFd(fd.get(), family, pd);
    if (!net) {
        rt::poll_evict(pd);
        rt::poll_close(pd);
        *err = ENOMEM;
        return nullptr;
    }
    fd.release();
    return std::unique_ptr<NetFd>(net);
}

NetFd::~NetFd() {
    close();
    if (mu_.in_use())
        rt::fatal(
            "a connection or listener (descriptor %d) was destroyed while a goroutine is in a "
            "call on it: close it and wait for the goroutine first",
            sysfd_);
}

void NetFd::destroy() noexcept {
    rt::poll_close(pd_);
    (void)raw_syscall(__NR_close, sysfd_);
}

void NetFd::close() noexcept {
    if (!mu_.close()) return;
    rt::poll_evict(pd_);
    remove_path();
    if (mu_.unref()) destroy();
}

IoResult NetFd::read(std::byte* buf, std::size_t size) {
    if (size == 0) return {};
    if (!mu_.enter(FdMutex::Side::kRead)) return {0, EBADF};
    OnExit leave{[this] {
        if (mu_.leave(FdMutex::Side::kRead)) destroy();
    }};
    return read_locked(buf, std::min(size, kTransferMax));
}

// A read that got less than it asked for has emptied the socket, so the next one need not ask to be
// told EAGAIN: it waits at once. A system call saved for each request on a keep-alive connection.
//
// Edge-triggered, such a wait hangs if the edge it waits for has come and gone. It has not:
//
// (1) The notification is reset before the attempt, never between it and the wait. Else:
//
//         reader                          peer, netpoll
//         read(4096) = 10
//                                         20 more bytes; edge; word = ready
//         word = nil (reset)
//         waits                           no further edge: sleeps on 20 bytes
//
//     As it is, every edge that comes after the reset stays in the word until a wait takes it. An
//     edge that came before the reset announced what the attempt then found. (A wait that returns
//     0 has taken the notification: that is a reset too.)
//
// (2) One edge can announce data and the end of the stream together, and the end is not read along
//     with the data:
//
//         peer: 10 bytes and FIN; one edge for both; word = ready
//         reader: reset; read(4096) = 10; waits: the FIN's edge was that one
//
//     So after a hangup has been seen a short read means nothing. Either the edge that told of it
//     was noted before our reset, then poll_hangup says so after the attempt; or after it, then the
//     word is ready and the wait does not park. Errors, and urgent data, at whose mark a read stops
//     with more behind it, are events of the same kind (netpoll.cpp's kHangup).
//
// (3) Only TCP: a Unix socket also ends a read where a message with descriptors ends.
IoResult NetFd::read_locked(std::byte* buf, std::size_t size) {
    const bool wait_first = drained_;
    drained_ = false;
    int err =
        wait_first ? rt::poll_wait(pd_, PollMode::kRead) : rt::poll_reset(pd_, PollMode::kRead);
    while (err == 0) {
        const long n = raw_syscall(__NR_read, sysfd_, buf, size);
        if (n >= 0) {
            drained_ = n > 0 && static_cast<std::size_t>(n) < size && family_ != AF_UNIX &&
                       !rt::poll_hangup(pd_);
            return {static_cast<std::size_t>(n), 0};
        }
        if (n == -EAGAIN) {
            err = rt::poll_wait(pd_, PollMode::kRead);
        } else if (n != -EINTR) {
            err = static_cast<int>(-n);
        }
    }
    return {0, err};
}

IoResult NetFd::write(const std::byte* buf, std::size_t size) {
    if (!mu_.enter(FdMutex::Side::kWrite)) return {0, EBADF};
    OnExit leave{[this] {
        if (mu_.leave(FdMutex::Side::kWrite)) destroy();
    }};
    return write_locked(buf, size);
}

IoResult NetFd::write_locked(const std::byte* buf, std::size_t size) {
    std::size_t done = 0;
    int err = rt::poll_reset(pd_, PollMode::kWrite);
    while (err == 0 && done < size) {
        const std::size_t want = std::min(size - done, kTransferMax);
        const long n = raw_syscall(__NR_sendto, sysfd_, buf + done, want, MSG_NOSIGNAL, nullptr, 0);
        if (n >= 0) {
            done += static_cast<std::size_t>(n);
        } else if (n == -EAGAIN) {
            err = rt::poll_wait(pd_, PollMode::kWrite);
        } else if (n != -EINTR) {
            err = static_cast<int>(-n);
        }
    }
    return {done, err};
}

int NetFd::accept(OwnedFd* peer_fd, SockAddr* peer) {
    if (!mu_.enter(FdMutex::Side::kRead)) return EBADF;
    OnExit leave{[this] {
        if (mu_.leave(FdMutex::Side::kRead)) destroy();
    }};
    int err = rt::poll_reset(pd_, PollMode::kRead);
    while (err == 0) {
        socklen_t len = sizeof peer->un;
        const long fd =
            raw_syscall(__NR_accept4, sysfd_, &peer->sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            peer->len = len;
            peer_fd->hold(static_cast<int>(fd));
            return 0;
        }
        if (fd == -EAGAIN) {
            err = rt::poll_wait(pd_, PollMode::kRead);
        } else if (fd != -EINTR && fd != -ECONNABORTED) { // given up by the peer while it queued
            err = static_cast<int>(-fd);
        }
    }
    return err;
}

int NetFd::wait_connected(const Deadline& deadline) {
    if (!mu_.enter(FdMutex::Side::kWrite)) return EBADF;
    OnExit leave{[this] {
        if (mu_.leave(FdMutex::Side::kWrite)) destroy();
    }};
    if (deadline) rt::poll_set_deadline(pd_, deadline_ns(deadline), false, true);
    int err;
    for (;;) {
        err = rt::poll_wait(pd_, PollMode::kWrite);
        if (err != 0) break;
        socklen_t len = sizeof err;
        const long rc = raw_syscall(__NR_getsockopt, sysfd_, SOL_SOCKET, SO_ERROR, &err, &len);
        if (rc < 0) err = static_cast<int>(-rc);
        if (err != 0) break;
        // A notification too many is possible, and then there is no error and no peer.
        if (socket_address(__NR_getpeername, sysfd_).len != 0) break;
    }
    if (deadline) rt::poll_set_deadline(pd_, 0, false, true);
    return err;
}

int NetFd::set_deadline(const Deadline& d, bool read, bool write) {
    if (!mu_.ref()) return EBADF;
    rt::poll_set_deadline(pd_, deadline_ns(d), read, write);
    if (mu_.unref()) destroy();
    return 0;
}

int NetFd::shutdown_write() {
    if (!mu_.ref()) return EBADF;
    const long rc = raw_syscall(__NR_shutdown, sysfd_, SHUT_WR);
    if (mu_.unref()) destroy();
    return static_cast<int>(-rc);
}

SockAddr NetFd::local() {
    if (!mu_.ref()) return {};
    SockAddr a = socket_address(__NR_getsockname, sysfd_);
    if (mu_.unref()) destroy();
    return a;
}

void NetFd::set_peer(const SockAddr& peer) {
    if (peer.is_ip()) {
        std::memcpy(&ip_peer_, &peer.sa, std::min<std::size_t>(peer.len, sizeof ip_peer_));
    } else if (peer.family() == AF_UNIX) {
        path_ = peer.text();
    }
}

SockAddr NetFd::peer() const {
    if (family_ == AF_UNIX) {
        if (path_.empty()) return {};
        return parse_address("unix", path_, AddressUse::kDial).at[0];
    }
    SockAddr a;
    if (ip_peer_.sin6_family == 0) return a;
    a.len = ip_peer_.sin6_family == AF_INET ? sizeof a.in4 : sizeof a.in6;
    std::memcpy(&a.sa, &ip_peer_, a.len);
    return a;
}

void NetFd::own_path(std::string path) {
    struct stat st;
    path_ = std::move(path);
    if (::stat(path_.c_str(), &st) == 0) {
        path_ino_ = st.st_ino;
        path_dev_ = st.st_dev;
    }
}

void NetFd::remove_path() noexcept {
    struct stat st;
    if (path_ino_ != 0 && ::stat(path_.c_str(), &st) == 0 && st.st_ino == path_ino_ &&
        st.st_dev == path_dev_)
        (void)raw_syscall(__NR_unlink, path_.c_str());
}

void throw_net_error(const char* operation, const NetFd* fd, std::error_code ec) {
    std::string what = operation;
    if (fd) {
        what += ' ';
        what += fd->network();
        const std::string peer = fd->peer().text();
        if (!peer.empty()) what += ' ' + peer;
    }
    throw std::system_error(ec, what);
}

} // namespace baton::detail
