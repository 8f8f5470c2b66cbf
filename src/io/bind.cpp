// SPDX-License-Identifier: Apache-2.0
#include "io/bind.hpp"

#include <cerrno>

#include "io/resolve.hpp"
#include "kernel/syscall.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

/// May another candidate do where this one failed? A machine without IPv6, mostly.
bool unsupported(int err) {
    return err == EAFNOSUPPORT || err == EADDRNOTAVAIL || err == EPROTONOSUPPORT;
}

bool is_wildcard(const SocketAddress& a) {
    return a.family() == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a.in6.sin6_addr);
}

struct Binding {
    int family; // that was asked for
    int type;
    bool reuse_port;
    const std::function<int(int, const SocketAddress&)>& ready;

    std::unique_ptr<NetFd> to(const SocketAddress& on, int* err) const;
};

std::unique_ptr<NetFd> Binding::to(const SocketAddress& on, int* err) const {
    // "All" includes IPv4, unless IPv6 alone was asked for.
    const bool v6only = family == AF_INET6 || !is_wildcard(on);
    OwnedFd fd(open_socket(on.family(), type, v6only));
    *err = fd.get() < 0 ? -fd.get() : 0;
    if (*err == 0 && on.is_ip() && type == SOCK_STREAM)
        (void)set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (*err == 0 && reuse_port) *err = set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1);
    if (*err == 0) *err = static_cast<int>(-raw_syscall(__NR_bind, fd.get(), &on.sa, on.len));
    if (*err == 0) *err = ready(fd.get(), on);
    if (*err != 0) return nullptr;
    std::unique_ptr<NetFd> net = ParkFd::adopt<NetFd>(fd, err, on.family(), type);
    if (net && on.family() == AF_UNIX && on.un.sun_path[0] != 0) net->own_path(on.text());
    return net;
}

} // namespace

std::unique_ptr<NetFd> bind_socket(std::string_view network, std::string_view address, int type,
                                   bool reuse_port, std::error_code& ec,
                                   const std::function<int(int, const SocketAddress&)>& ready) {
    const Network net = network_of(network);
    if (net.type != type) {
        ec = error_of(EINVAL);
        return nullptr;
    }
    const Binding binding{net.family, type, reuse_port, ready};
    std::unique_ptr<NetFd> bound;
    for (const SocketAddress& on : resolve_for(AddressUse::kListen, network, address, {}, ec)) {
        int err = 0;
        bound = binding.to(on, &err);
        ec = error_of(err);
        if (bound || !unsupported(err)) break;
    }
    return bound;
}

void throw_bind_error(const char* operation, std::string_view network, std::string_view address,
                      std::error_code ec) {
    std::string what = operation;
    what.append(" ").append(network).append(" ").append(address);
    const AddressList list = parse_address(network, address, AddressUse::kListen);
    if (list.hint) what.append(" (").append(list.hint).append(")");
    throw std::system_error(ec, what);
}

} // namespace baton::detail
