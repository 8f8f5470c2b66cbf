// SPDX-License-Identifier: Apache-2.0
//
// Messages: datagrams, one or many at a time, and descriptors that go along with bytes.
#include <algorithm>
#include <cstring>

#include <sys/uio.h>

#include "io/netfd.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

constexpr std::size_t kFdsMax = 253; // the kernel's SCM_MAX_FD
constexpr std::int64_t kPauseMinNs = 100'000;
constexpr std::int64_t kPauseMaxNs = 20'000'000;

IoResult result(long n) {
    return n < 0 ? IoResult{0, static_cast<int>(-n)} : IoResult{static_cast<std::size_t>(n), 0};
}

template <class Byte>
iovec part_of(std::span<Byte> bytes) {
    return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

void address(msghdr& message, const SocketAddress& to) {
    if (to.len == 0) return;
    message.msg_name = const_cast<sockaddr*>(&to.sa);
    message.msg_namelen = to.len;
}

} // namespace

IoResult NetFd::send_fds(std::span<const std::byte> bytes, std::span<const int> fds,
                         const Until* until) {
    if (family_ != AF_UNIX) return {0, EOPNOTSUPP};
    if (bytes.empty() || fds.size() > kFdsMax) return {0, EINVAL};
    alignas(cmsghdr) char control[CMSG_SPACE(kFdsMax * sizeof(int))];
    std::size_t done = 0;
    const long rc = on_side(Side::kWrite, until, [&](int fd) {
        while (done < bytes.size()) {
            iovec part = part_of(bytes.subspan(done));
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            if (done == 0 && !fds.empty()) {
                message.msg_control = control;
                message.msg_controllen = CMSG_SPACE(fds.size_bytes());
                cmsghdr* c = CMSG_FIRSTHDR(&message);
                *c = {};
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(fds.size_bytes());
                std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
            }
            const long n = raw_syscall(__NR_sendmsg, fd, &message, MSG_NOSIGNAL);
            if (n < 0) return n;
            done += static_cast<std::size_t>(n);
        }
        return 0L;
    });
    return {done, static_cast<int>(-rc)};
}

IoResult NetFd::recv_fds(std::span<std::byte> buf, std::vector<int>& fds, const Until* until) {
    if (family_ != AF_UNIX) return {0, EOPNOTSUPP};
    fds.reserve(fds.size() + kFdsMax); // what has come must not be lost for want of memory
    bool lost = false;
    IoResult r = result(on_side(Side::kRead, until, [&](int fd) {
        // The rest for credentials, where the socket was told to have them come along.
        alignas(cmsghdr) char control[CMSG_SPACE(kFdsMax * sizeof(int)) + 128];
        iovec part = part_of(buf);
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const long n = raw_syscall(__NR_recvmsg, fd, &message, MSG_CMSG_CLOEXEC);
        if (n < 0) return n;
        for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
            if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
            const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            const std::size_t at = fds.size();
            fds.resize(at + count);
            std::memcpy(&fds[at], CMSG_DATA(c), count * sizeof(int));
        }
        lost = (message.msg_flags & MSG_CTRUNC) != 0;
        return n;
    }));
    if (lost) r.err = EMFILE;
    return r;
}

/// What `send` answers. No event tells of room with a Unix receiver that the socket is not
/// connected to: that is looked for again and again, ever more rarely.
template <class Send>
long NetFd::send_to_any(const Until* until, Send send) {
    std::int64_t pause_ns = 0;
    for (;;) {
        const long rc = send();
        if (rc != -EAGAIN || family_ != AF_UNIX || peer().len != 0) return rc;
        pause_ns = std::clamp(2 * pause_ns, kPauseMinNs, kPauseMaxNs);
        if (const int err = pause(Side::kWrite, pause_ns, until)) return -err;
    }
}

IoResult NetFd::send(std::span<const std::byte> buf, const SocketAddress* to, const Until* until) {
    return result(on_side(Side::kWrite, until, [&](int fd) {
        return send_to_any(until, [&] {
            return raw_syscall(__NR_sendto, fd, buf.data(), buf.size(), MSG_NOSIGNAL,
                               to ? &to->sa : nullptr, to ? to->len : 0);
        });
    }));
}

IoResult NetFd::recv(std::span<std::byte> buf, SocketAddress* from, const Until* until) {
    return result(on_side(Side::kRead, until, [&](int fd) {
        socklen_t len = sizeof from->un;
        const long n = raw_syscall(__NR_recvfrom, fd, buf.data(), buf.size(), 0,
                                   from ? &from->sa : nullptr, from ? &len : nullptr);
        if (from && n >= 0) from->len = len;
        return n;
    }));
}

IoResult NetFd::send_batch(std::span<const Packet> packets, const Until* until) {
    std::size_t done = 0;
    const long rc = on_side(Side::kWrite, until, [&](int fd) {
        while (done < packets.size()) {
            mmsghdr messages[kBatchMax] = {};
            iovec parts[kBatchMax];
            const auto now = packets.subspan(done, std::min(packets.size() - done, kBatchMax));
            for (std::size_t i = 0; i < now.size(); i++) {
                parts[i] = part_of(now[i].data);
                messages[i].msg_hdr.msg_iov = &parts[i];
                messages[i].msg_hdr.msg_iovlen = 1;
                address(messages[i].msg_hdr, now[i].address);
            }
            const long n = send_to_any(until, [&] {
                return raw_syscall(__NR_sendmmsg, fd, messages, now.size(), MSG_NOSIGNAL);
            });
            if (n < 0) return n;
            done += static_cast<std::size_t>(n);
        }
        return 0L;
    });
    return {done, static_cast<int>(-rc)};
}

IoResult NetFd::recv_batch(std::span<Packet> packets, const Until* until) {
    const auto room = packets.first(std::min(packets.size(), kBatchMax));
    if (room.empty()) return {};
    return result(on_side(Side::kRead, until, [&](int fd) {
        mmsghdr messages[kBatchMax] = {};
        iovec parts[kBatchMax];
        for (std::size_t i = 0; i < room.size(); i++) {
            parts[i] = part_of(room[i].data);
            msghdr& message = messages[i].msg_hdr;
            message.msg_iov = &parts[i];
            message.msg_iovlen = 1;
            message.msg_name = &room[i].address.sa;
            message.msg_namelen = sizeof room[i].address.un;
        }
        const long n = raw_syscall(__NR_recvmmsg, fd, messages, room.size(), 0, nullptr);
        for (long i = 0; i < n; i++) {
            Packet& packet = room[static_cast<std::size_t>(i)];
            packet.size = messages[i].msg_len;
            packet.cut = (messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
            packet.address.len = messages[i].msg_hdr.msg_namelen;
        }
        return n;
    }));
}

} // namespace baton::detail
