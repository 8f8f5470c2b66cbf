// SPDX-License-Identifier: Apache-2.0
//
// How connections come to be: waiting for one, and for one's own.
#include <algorithm>

#include "io/netfd.hpp"
#include "kernel/clock.hpp"
#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

constexpr std::int64_t kPauseMinNs = 5'000'000;
constexpr std::int64_t kPauseMaxNs = 1'000'000'000;

/// The connection stays in the queue, and no edge will tell when it can be had.
bool short_of_something(long rc) {
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOBUFS || rc == -ENOMEM;
}

} // namespace

/// Waits that long, whatever comes meanwhile. An errno when cut short.
int NetFd::pause(Side side, std::int64_t pause_ns, const Until* until) {
    using std::chrono::nanoseconds;
    const std::int64_t when_ns = kernel::nanotime() + pause_ns;
    const std::int64_t end_ns = until ? std::min(when_ns, until->when_ns()) : when_ns;
    const std::chrono::steady_clock::time_point end{nanoseconds(end_ns)};
    const Until both = until ? Until(end, until->token()) : Until(end);
    int err;
    do {
        err = wait(side, &both);
    } while (err == 0);
    return err == ETIMEDOUT && kernel::nanotime() >= when_ns ? 0 : err;
}

int NetFd::accept(OwnedFd* peer_fd, SocketAddress* peer, const Until* until) {
    std::int64_t pause_ns = 0;
    const long fd = on_side(Side::kRead, until, [&](int fd) -> long {
        for (;;) {
            socklen_t len = sizeof peer->un;
            const long rc =
                raw_syscall(__NR_accept4, fd, &peer->sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
            peer->len = len;
            if (rc == -ECONNABORTED) continue; // given up by the peer while it queued
            if (!short_of_something(rc)) return rc;
            pause_ns = std::clamp(2 * pause_ns, kPauseMinNs, kPauseMaxNs);
            const int err = pause(Side::kRead, pause_ns, until);
            if (err == ETIMEDOUT) return rc; // that tells more
            if (err != 0) return -err;
        }
    });
    if (fd < 0) return static_cast<int>(-fd);
    peer_fd->hold(static_cast<int>(fd));
    return 0;
}

int NetFd::wait_connected(const Until& until) {
    const Turn turn(*this, Side::kWrite, &until);
    if (turn.err != 0) return turn.err;
    for (;;) {
        int err = wait(Side::kWrite, &until);
        if (err != 0) return err;
        socklen_t len = sizeof err;
        const long rc = raw_syscall(__NR_getsockopt, sysfd(), SOL_SOCKET, SO_ERROR, &err, &len);
        if (rc < 0) return static_cast<int>(-rc);
        if (err != 0) return err;
        // A notification too many is possible, and then there is no error and no peer.
        if (socket_address(__NR_getpeername, sysfd()).len != 0) return 0;
    }
}

} // namespace baton::detail
