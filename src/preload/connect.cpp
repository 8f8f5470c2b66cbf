// SPDX-License-Identifier: Apache-2.0
//
// connect. Nothing but O_NONBLOCK, which is the program's and other processes', makes an attempt
// that does not wait; but a ring does, and waits for the rest as well. So a TCP socket's goes to
// one. The rest are announced: they hardly ever wait (a Unix listener whose queue is full).
//
// Rejected: the ring for Unix sockets. The kernel has nothing that tells of room in a queue, so
// each that waits there holds a thread of the ring's, of which there are 33; the others wait behind
// them, be it for another listener that has room (one of two runs with 200 hung). And who does not
// wait takes 6 us in place of 3.
//
// A connection that is under way already (EALREADY: an attempt of before that timed out) is waited
// for by its becoming writable.
#include <netinet/in.h>

#include "preload/fd.hpp"

namespace baton::preload {

namespace {

using Next = Wait::Next;

bool is_tcp(int fd) {
    int protocol = 0;
    socklen_t len = sizeof protocol;
    return raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 &&
           protocol == IPPROTO_TCP;
}

long by_ring(Descriptor* d, const Wait& wait, int fd, const sockaddr* to, socklen_t len) {
    // seq_cst, all: with evict. It has seen this, or the descriptor is closed here.
    d->in_ring.fetch_add(1, std::memory_order_seq_cst);
    const long r = wait.is_closed() ? -EBADF : rt->ring_connect(fd, to, len, wait.deadline());
    d->in_ring.fetch_sub(1, std::memory_order_seq_cst);
    if (wait.is_closed()) return -EBADF;
    // It goes on in the kernel.
    if (r == -ETIMEDOUT && now_ns() >= wait.deadline()) return -EINPROGRESS;
    return r;
}

/// The connection is under way.
long finish_connect(Wait& wait, int fd, const sockaddr* to, socklen_t len) {
    while (!is_ready(fd, POLLOUT)) {
        const Next next = wait();
        if (next == Next::kGiveUp) return wait.error() == EBADF ? -EBADF : -EALREADY;
        if (next == Next::kBlock) break;
    }
    Bracket bracket;
    return raw_syscall(SYS_connect, fd, to, len);
}

} // namespace

int g_connect(int fd, const sockaddr* to, socklen_t len) {
    long err = 0;
    Descriptor* d = is_tcp(fd) ? descriptor_of(fd) : nullptr;
    if (!d || kind_of(d, fd, &err) != Kind::kSocket) return blocking(real_connect(), fd, to, len);
    Wait wait(d, fd, true);
    if (!wait.may_wait()) return blocking(real_connect(), fd, to, len);
    const long r = by_ring(d, wait, fd, to, len);
    if (r == BATON_NO_RING) return blocking(real_connect(), fd, to, len);
    if (r == -EALREADY || r == BATON_GIVEN_UP)
        return static_cast<int>(finish(finish_connect(wait, fd, to, len)));
    return static_cast<int>(finish(r));
}

} // namespace baton::preload
