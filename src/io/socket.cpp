// SPDX-License-Identifier: Apache-2.0
//
// Making sockets, and their options.
#include <algorithm>

#include <fcntl.h>
#include <netinet/tcp.h>

#include "io/netfd.hpp"
#include "kernel/syscall.hpp"

namespace baton::detail {

using kernel::raw_syscall;

int set_option(int fd, int level, int name, int value) noexcept {
    return static_cast<int>(-raw_syscall(__NR_setsockopt, fd, level, name, &value, sizeof value));
}

int set_keep_alive(int fd, const std::optional<KeepAlive>& keep_alive) noexcept {
    if (!keep_alive) return set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
    const auto seconds = [](std::chrono::seconds s) {
        return static_cast<int>(std::clamp<std::int64_t>(s.count(), 1, 32767)); // the kernel's most
    };
    int err = set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds(keep_alive->idle));
    if (err == 0) err = set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds(keep_alive->interval));
    if (err == 0)
        err = set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, std::clamp(keep_alive->count, 1, 127));
    if (err == 0) err = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    return err;
}

int open_socket(int family, int type, bool v6only) noexcept {
    const long fd = raw_syscall(__NR_socket, family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && family == AF_INET6)
        (void)set_option(static_cast<int>(fd), IPPROTO_IPV6, IPV6_V6ONLY, v6only);
    return static_cast<int>(fd);
}

std::unique_ptr<NetFd> adopt_socket(int fd, int type, int* err) {
    int actual = 0;
    socklen_t len = sizeof actual;
    const long rc = raw_syscall(__NR_getsockopt, fd, SOL_SOCKET, SO_TYPE, &actual, &len);
    const long flags = raw_syscall(__NR_fcntl, fd, F_GETFL, 0);
    if (rc < 0 || flags < 0) {
        *err = static_cast<int>(rc < 0 ? -rc : -flags);
        return nullptr;
    }
    const int family = socket_address(__NR_getsockname, fd).family();
    if (actual != type || (family != AF_INET && family != AF_INET6 && family != AF_UNIX)) {
        *err = EINVAL;
        return nullptr;
    }
    if (!(flags & O_NONBLOCK)) (void)raw_syscall(__NR_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
    OwnedFd owned(fd);
    std::unique_ptr<NetFd> net = ParkFd::adopt<NetFd>(owned, err, family, type);
    if (net) {
        *err = 0;
        net->set_peer(socket_address(__NR_getpeername, fd));
    } else {
        owned.release();
    }
    return net;
}

} // namespace baton::detail
