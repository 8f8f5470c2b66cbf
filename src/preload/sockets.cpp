// SPDX-License-Identifier: Apache-2.0
//
// recv, send and accept: tried with MSG_DONTWAIT, then waited for. What is no socket is told so by
// the kernel.
#include "preload/fd.hpp"
#include "preload/msg.hpp"

namespace baton::preload {

namespace {

using Next = Wait::Next;

/// `attempt` does not wait, `block` does.
template <class Attempt, class Block>
long until_done(int fd, bool for_write, int flags, Attempt attempt, Block block) {
    Descriptor* d = descriptor_of(fd);
    long r = attempt();
    if (r != -EAGAIN) return r;
    const auto in_bracket = [&] {
        Bracket bracket;
        return block();
    };
    if (!d) return flags & MSG_DONTWAIT ? r : in_bracket();
    long err = 0;
    (void)kind_of(d, fd, &err); // which finds its timeouts
    Wait wait(d, fd, for_write, flags);
    while (r == -EAGAIN) {
        const Next next = wait();
        if (next == Next::kGiveUp) return -wait.error();
        if (next == Next::kBlock) return in_bracket();
        r = attempt();
    }
    return r;
}

bool is_stream(int fd) {
    int type = 0;
    socklen_t len = sizeof type;
    return raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
           type == SOCK_STREAM;
}

long recv_once(int fd, void* buf, std::size_t n, int flags, sockaddr* from, socklen_t* len) {
    return until_done(
        fd, false, flags,
        [&] { return raw_syscall(SYS_recvfrom, fd, buf, n, flags | MSG_DONTWAIT, from, len); },
        [&] { return raw_syscall(SYS_recvfrom, fd, buf, n, flags, from, len); });
}

/// MSG_WAITALL of a stream: until it is full, or something comes in between.
long recv_all(int fd, void* buf, std::size_t n, int flags, sockaddr* from, socklen_t* len) {
    std::size_t done = 0;
    while (done < n) {
        const long r = recv_once(fd, static_cast<char*>(buf) + done, n - done, flags & ~MSG_WAITALL,
                                 from, len);
        if (r <= 0) return done > 0 ? static_cast<long>(done) : r;
        done += static_cast<std::size_t>(r);
    }
    return static_cast<long>(done);
}

long receive(int fd, void* buf, std::size_t n, int flags, sockaddr* from, socklen_t* len) {
    if ((flags & (MSG_WAITALL | MSG_DONTWAIT)) == MSG_WAITALL) {
        if (flags & (MSG_PEEK | MSG_OOB)) {
            Bracket bracket;
            return raw_syscall(SYS_recvfrom, fd, buf, n, flags, from, len);
        }
        if (is_stream(fd)) return recv_all(fd, buf, n, flags, from, len);
    }
    return recv_once(fd, buf, n, flags, from, len);
}

/// A stream's is sent in full, unless an error or a timeout comes first.
long send_msg(int fd, const msghdr* given, int flags) {
    msghdr msg = *given;
    Rest rest(given->msg_iov, static_cast<int>(given->msg_iovlen));
    for (;;) {
        const long r = until_done(
            fd, true, flags,
            [&] { return raw_syscall(SYS_sendmsg, fd, &msg, flags | MSG_DONTWAIT); },
            [&] { return raw_syscall(SYS_sendmsg, fd, &msg, flags); });
        if (r < 0) return rest.done() > 0 ? rest.done() : r;
        if (!rest.advance(r) || r == 0 || Wait(nullptr, fd, true, flags).nonblocking())
            return rest.done();
        msg.msg_iov = const_cast<iovec*>(rest.iov());
        msg.msg_iovlen = static_cast<std::size_t>(rest.n());
        msg.msg_control = nullptr; // went with the first part
        msg.msg_controllen = 0;
    }
}

long accept_one(int fd, sockaddr* from, socklen_t* len, int flags) {
    return until_done(
        fd, false, 0,
        [&]() -> long {
            pollfd pfd{fd, POLLIN, 0};
            if (raw_syscall(SYS_poll, &pfd, 1, 0) == 0) return -EAGAIN;
            Bracket bracket; // others may be faster
            return raw_syscall(SYS_accept4, fd, from, len, flags);
        },
        [&] { return raw_syscall(SYS_accept4, fd, from, len, flags); });
}

} // namespace

ssize_t g_recv(int fd, void* buf, size_t n, int flags) {
    return finish(receive(fd, buf, n, flags, nullptr, nullptr));
}

ssize_t g___recv_chk(int fd, void* buf, size_t n, size_t room, int flags) {
    return n > room ? real___recv_chk()(fd, buf, n, room, flags) : g_recv(fd, buf, n, flags);
}

ssize_t g_recvfrom(int fd, void* buf, size_t n, int flags, sockaddr* from, socklen_t* len) {
    return finish(receive(fd, buf, n, flags, from, len));
}

ssize_t g___recvfrom_chk(int fd, void* buf, size_t n, size_t room, int flags, sockaddr* from,
                         socklen_t* len) {
    return n > room ? real___recvfrom_chk()(fd, buf, n, room, flags, from, len)
                    : g_recvfrom(fd, buf, n, flags, from, len);
}

ssize_t g_recvmsg(int fd, msghdr* msg, int flags) {
    if (flags & MSG_WAITALL) return blocking(real_recvmsg(), fd, msg, flags);
    return finish(until_done(
        fd, false, flags, [&] { return raw_syscall(SYS_recvmsg, fd, msg, flags | MSG_DONTWAIT); },
        [&] { return raw_syscall(SYS_recvmsg, fd, msg, flags); }));
}

int g_recvmmsg(int fd, mmsghdr* msgs, unsigned n, int flags, timespec* timeout) {
    // A timeout is looked at after each message only: the kernel's rules, which are odd.
    if (timeout || n == 0 || (flags & MSG_WAITALL))
        return blocking(real_recvmmsg(), fd, msgs, n, flags, timeout);
    const int base = flags & ~MSG_WAITFORONE;
    unsigned done = 0;
    do {
        const long r = until_done(
            fd, false, flags,
            [&] {
                return raw_syscall(SYS_recvmmsg, fd, msgs + done, n - done, base | MSG_DONTWAIT,
                                   nullptr);
            },
            [&] { return raw_syscall(SYS_recvmmsg, fd, msgs + done, 1, base, nullptr); });
        if (r <= 0) return done > 0 ? static_cast<int>(done) : static_cast<int>(finish(r));
        done += static_cast<unsigned>(r);
    } while (done < n && !(flags & (MSG_WAITFORONE | MSG_DONTWAIT)));
    return static_cast<int>(done);
}

ssize_t g_send(int fd, const void* buf, size_t n, int flags) {
    return g_sendto(fd, buf, n, flags, nullptr, 0);
}

ssize_t g_sendto(int fd, const void* buf, size_t n, int flags, const sockaddr* to, socklen_t len) {
    const long r = raw_syscall(SYS_sendto, fd, buf, n, flags | MSG_DONTWAIT, to, len);
    if (r == static_cast<long>(n) || (r < 0 && r != -EAGAIN)) return finish(r);
    if (flags & MSG_DONTWAIT) return finish(r);
    // Part of it: was that all there is to it, as of a message?
    const auto done = static_cast<std::size_t>(r > 0 ? r : 0);
    if (done > 0 && Wait(nullptr, fd, true, flags).nonblocking()) return r;
    iovec iov{static_cast<char*>(const_cast<void*>(buf)) + done, n - done};
    msghdr msg{};
    msg.msg_name = const_cast<sockaddr*>(to);
    msg.msg_namelen = len;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    const long more = send_msg(fd, &msg, flags);
    if (more < 0) return done > 0 ? static_cast<ssize_t>(done) : finish(more);
    return static_cast<ssize_t>(done) + more;
}

ssize_t g_sendmsg(int fd, const msghdr* msg, int flags) {
    if ((flags & MSG_DONTWAIT) || msg->msg_iovlen > kIovMost)
        return blocking(real_sendmsg(), fd, msg, flags);
    return finish(send_msg(fd, msg, flags));
}

int g_sendmmsg(int fd, mmsghdr* msgs, unsigned n, int flags) {
    if (n == 0 || (flags & MSG_DONTWAIT)) return blocking(real_sendmmsg(), fd, msgs, n, flags);
    for (unsigned i = 0; i < n; i++) {
        if (msgs[i].msg_hdr.msg_iovlen > kIovMost)
            return blocking(real_sendmmsg(), fd, msgs, n, flags);
        const long r = send_msg(fd, &msgs[i].msg_hdr, flags);
        if (r < 0) return i > 0 ? static_cast<int>(i) : static_cast<int>(finish(r));
        msgs[i].msg_len = static_cast<unsigned>(r);
    }
    return static_cast<int>(n);
}

int g_accept(int fd, sockaddr* from, socklen_t* len) {
    return static_cast<int>(finish(accept_one(fd, from, len, 0)));
}

int g_accept4(int fd, sockaddr* from, socklen_t* len, int flags) {
    return static_cast<int>(finish(accept_one(fd, from, len, flags)));
}

int t_setsockopt(int fd, int level, int name, const void* value, socklen_t len, const void*) {
    // relaxed: for this thread's own calls, and for those its program tells of this one.
    if (level == SOL_SOCKET &&
        (name == SO_RCVTIMEO || name == SO_SNDTIMEO || name == 66 || name == 67))
        timeouts_used.store(true, std::memory_order_relaxed);
    return real_setsockopt()(fd, level, name, value, len);
}

} // namespace baton::preload
