// SPDX-License-Identifier: Apache-2.0
#include "io/netfd.hpp"

#include <algorithm>
#include <cstring>

#include <linux/errqueue.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "kernel/syscall.hpp"
#include "runtime/limit.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

/// The kernel caps one transfer just below 2 GiB; we stay at a round number, as the reference does.
constexpr std::size_t kTransferMax = 1 << 30;

std::int64_t deadline_ns(const Deadline& d) {
    if (!d) return 0;
    using std::chrono::nanoseconds;
    const auto ns = std::chrono::duration_cast<nanoseconds>(d->time_since_epoch()).count();
    return std::max<std::int64_t>(ns, 1);
}

bool is_over(const Until* until) { return until && rt::over(*until) != WaitEnd::kDone; }

IoResult result(long n) {
    return n < 0 ? IoResult{0, static_cast<int>(-n)} : IoResult{static_cast<std::size_t>(n), 0};
}

/// Of several buffers, what is not yet done, as the kernel wants it.
template <class Byte>
class Parts {
public:
    explicit Parts(std::span<const std::span<Byte>> bufs) : bufs_(bufs) { skip(); }
    bool empty() const { return bufs_.empty(); }
    /// How many of iov() are filled with what is next.
    std::size_t fill() {
        total_ = 0;
        std::size_t n = 0;
        for (const std::span<Byte>& buf : bufs_.first(std::min(bufs_.size(), kPartsMax))) {
            const auto rest = n == 0 ? buf.subspan(offset_) : buf;
            const std::size_t size = std::min(rest.size(), kTransferMax - total_);
            iov_[n++] = {const_cast<std::byte*>(rest.data()), size};
            total_ += size;
            if (total_ == kTransferMax) break;
        }
        return n;
    }
    const iovec* iov() const { return iov_; }
    std::size_t total() const { return total_; }
    void advance(std::size_t n) {
        offset_ += n;
        skip();
    }

private:
    void skip() {
        while (!bufs_.empty() && offset_ >= bufs_.front().size()) {
            offset_ -= bufs_.front().size();
            bufs_ = bufs_.subspan(1);
        }
    }
    std::span<const std::span<Byte>> bufs_;
    std::size_t offset_ = 0; // into the first
    std::size_t total_ = 0;
    iovec iov_[kPartsMax];
};

} // namespace

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
//     0 has taken the notification: that is a reset too. One that is given up takes none.)
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
//     with more behind it, are events of the same kind (kPollHangup in pollengine.hpp).
//
// (3) Only TCP: a Unix socket also ends a read where a message with descriptors ends.
//
// (4) Not if the wait would be given up at once: what can be done is done first.
template <class Attempt>
long NetFd::receive(std::size_t want, const Until* until, Attempt attempt) {
    const Turn turn(*this, Side::kRead, until);
    if (turn.err != 0) return -turn.err;
    const int fd = sysfd(); // now, as after a wait it has left the cache
    const bool wait_first = drained_ && !is_over(until);
    int err = wait_first ? wait(Side::kRead, until) : rt::poll_reset(desc(), rt::PollMode::kRead);
    if (err != 0) return -err; // and it is as drained as before
    drained_ = false;
    for (;;) {
        const long n = attempt(fd);
        if (n >= 0) {
            drained_ = n > 0 && static_cast<std::size_t>(n) < want && family_ != AF_UNIX &&
                       !rt::poll_hangup(desc());
            return n;
        }
        if (n == -EAGAIN) {
            if (err = wait(Side::kRead, until); err != 0) return -err;
        } else if (n != -EINTR) {
            return n;
        }
    }
}

IoResult NetFd::read(std::byte* buf, std::size_t size, const Until* until) {
    if (size == 0) return {};
    const std::size_t want = std::min(size, kTransferMax);
    return result(
        receive(want, until, [=](int fd) { return raw_syscall(__NR_read, fd, buf, want); }));
}

IoResult NetFd::readv(std::span<const std::span<std::byte>> bufs, const Until* until) {
    Parts<std::byte> parts(bufs);
    if (parts.empty()) return {};
    const std::size_t n = parts.fill();
    return result(receive(parts.total(), until,
                          [&](int fd) { return raw_syscall(__NR_readv, fd, parts.iov(), n); }));
}

IoResult NetFd::write(const std::byte* buf, std::size_t size, const Until* until) {
    std::size_t done = 0;
    const long rc = on_side(Side::kWrite, until, [&](int fd) {
        while (done < size) {
            const std::size_t want = std::min(size - done, kTransferMax);
            const long n = raw_syscall(__NR_sendto, fd, buf + done, want, MSG_NOSIGNAL, nullptr, 0);
            if (n < 0) return n;
            done += static_cast<std::size_t>(n);
        }
        return 0L;
    });
    return {done, static_cast<int>(-rc)};
}

IoResult NetFd::writev(std::span<const std::span<const std::byte>> bufs, const Until* until) {
    Parts<const std::byte> parts(bufs);
    std::size_t done = 0;
    const long rc = on_side(Side::kWrite, until, [&](int fd) {
        while (!parts.empty()) {
            msghdr message{};
            message.msg_iovlen = parts.fill();
            message.msg_iov = const_cast<iovec*>(parts.iov());
            const long n = raw_syscall(__NR_sendmsg, fd, &message, MSG_NOSIGNAL);
            if (n < 0) return n;
            done += static_cast<std::size_t>(n);
            parts.advance(static_cast<std::size_t>(n));
        }
        return 0L;
    });
    return {done, static_cast<int>(-rc)};
}

// ---- without copying ----

/// Takes the notices of the error queue in. 0, or -EAGAIN when there was none.
int NetFd::reap_zero_copies() {
    int rc = -EAGAIN;
    for (;;) {
        alignas(cmsghdr) char control[128];
        msghdr message{};
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        if (raw_syscall(__NR_recvmsg, sysfd(), &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return rc;
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
            sock_extended_err notice;
            std::memcpy(&notice, CMSG_DATA(c), sizeof notice);
            // One notice tells of the sends from number ee_info to number ee_data.
            if (notice.ee_origin != SO_EE_ORIGIN_ZEROCOPY) continue;
            zero_copies_ -= notice.ee_data - notice.ee_info + 1;
            rc = 0;
        }
    }
}

IoResult NetFd::write_zero_copy(const std::byte* buf, std::size_t size, const Until* until) {
    std::size_t done = 0;
    if (type_ != SOCK_STREAM || family_ == AF_UNIX) return {0, EOPNOTSUPP};
    const long rc = on_side(Side::kWrite, until, [&](int fd) -> long {
        if (!zero_copy_) {
            if (const int err = set_option(fd, SOL_SOCKET, SO_ZEROCOPY, 1)) return -err;
            zero_copy_ = true;
        }
        while (done < size) {
            const std::size_t want = std::min(size - done, kTransferMax);
            const long n = raw_syscall(__NR_sendto, fd, buf + done, want,
                                       MSG_NOSIGNAL | MSG_ZEROCOPY, nullptr, 0);
            // ENOBUFS: as many notices are outstanding as net.core.optmem_max allows.
            if (n == -ENOBUFS && zero_copies_ > 0) {
                if (const int err = reap_zero_copies()) return err;
                continue;
            }
            if (n < 0) return n;
            done += static_cast<std::size_t>(n);
            zero_copies_++;
        }
        while (zero_copies_ > 0) {
            if (const int err = reap_zero_copies()) return err;
        }
        return 0;
    });
    return {done, static_cast<int>(-rc)};
}

// ---- the rest ----

int NetFd::set_deadline(const Deadline& d, bool read, bool write) {
    return ParkFd::set_deadline(deadline_ns(d), read, write);
}

int NetFd::shutdown(int how) {
    return static_cast<int>(-call([how](int fd) { return raw_syscall(__NR_shutdown, fd, how); }));
}

void NetFd::close() noexcept {
    if (!begin_close()) return;
    remove_path();
    end_close();
}

SocketAddress NetFd::local() {
    SocketAddress a;
    call([&a](int fd) {
        a = socket_address(__NR_getsockname, fd);
        return 0L;
    });
    return a;
}

void NetFd::set_peer(const SocketAddress& peer) {
    if (peer.is_ip()) {
        std::memcpy(&ip_peer_, &peer.sa, std::min<std::size_t>(peer.len, sizeof ip_peer_));
    } else if (peer.family() == AF_UNIX) {
        if (std::string text = peer.text(); !text.empty())
            path_ = std::make_unique<Path>(Path{std::move(text)});
    }
}

SocketAddress NetFd::peer() const {
    if (family_ == AF_UNIX) {
        if (!path_ || path_->ino != 0) return {};
        return parse_address("unix", path_->text, AddressUse::kDial).at[0];
    }
    SocketAddress a;
    if (ip_peer_.sin6_family == 0) return a;
    a.len = ip_peer_.sin6_family == AF_INET ? sizeof a.in4 : sizeof a.in6;
    std::memcpy(&a.sa, &ip_peer_, a.len);
    return a;
}

const char* NetFd::network() const {
    if (type_ == SOCK_STREAM) return family_ == AF_UNIX ? "unix" : "tcp";
    return family_ == AF_UNIX ? "unixgram" : "udp";
}

void NetFd::own_path(std::string path) {
    struct stat st;
    if (::stat(path.c_str(), &st) == 0)
        path_ = std::make_unique<Path>(Path{std::move(path), st.st_ino, st.st_dev});
}

void NetFd::remove_path() noexcept {
    struct stat st;
    if (path_ && path_->ino != 0 && ::stat(path_->text.c_str(), &st) == 0 &&
        st.st_ino == path_->ino && st.st_dev == path_->dev)
        (void)raw_syscall(__NR_unlink, path_->text.c_str());
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

std::size_t result_of(const char* operation, const NetFd* fd, const IoResult& r,
                      std::error_code* ec) {
    if (ec) {
        *ec = error_of(r.err);
    } else if (r.err != 0) [[unlikely]] {
        throw_net_error(operation, fd, error_of(r.err));
    }
    return r.n;
}

} // namespace baton::detail
