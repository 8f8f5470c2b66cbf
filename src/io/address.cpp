// SPDX-License-Identifier: Apache-2.0
#include "io/address.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>

#include <arpa/inet.h>
#include <net/if.h>

#include "kernel/syscall.hpp"

namespace baton::detail {

namespace {

AddressList failure(int error, const char* hint) {
    AddressList list;
    list.error = error;
    list.hint = hint;
    return list;
}

void add4(AddressList& list, const Network& net, in_addr_t host, std::uint16_t port) {
    if (net.family == AF_INET6) return;
    SocketAddress& a = list.at[list.n++];
    a.len = sizeof a.in4;
    a.in4.sin_family = AF_INET;
    a.in4.sin_port = htons(port);
    a.in4.sin_addr.s_addr = host;
}

void add6(AddressList& list, const Network& net, const in6_addr& host, std::uint16_t port,
          std::uint32_t scope) {
    if (net.family == AF_INET) return;
    SocketAddress& a = list.at[list.n++];
    a.len = sizeof a.in6;
    a.in6.sin6_family = AF_INET6;
    a.in6.sin6_port = htons(port);
    a.in6.sin6_addr = host;
    a.in6.sin6_scope_id = scope;
}

/// "eth0" or "2", of fe80::1%eth0; 0 for no such interface.
std::uint32_t scope_of(const char* zone) {
    std::uint32_t number = 0;
    const char* end = zone + std::strlen(zone);
    if (std::from_chars(zone, end, number).ptr == end && zone != end) return number;
    return ::if_nametoindex(zone);
}

AddressList of_family(AddressList list) {
    if (list.n == 0) list = failure(EAFNOSUPPORT, "the address is of the other family");
    return list;
}

AddressList parse_host(const Network& net, std::string_view host, std::uint16_t port,
                       AddressUse use) {
    AddressList list;
    if (host.empty() && use == AddressUse::kListen) {
        // IPv6's takes IPv4 as well: open_socket clears IPV6_V6ONLY.
        add6(list, net, in6addr_any, port, 0);
        add4(list, net, htonl(INADDR_ANY), port);
        return list;
    }
    if (host.empty() || host == "localhost") {
        add4(list, net, htonl(INADDR_LOOPBACK), port);
        add6(list, net, in6addr_loopback, port, 0);
        return list;
    }
    char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
    if (host.size() < sizeof text) {
        text[host.copy(text, sizeof text)] = 0;
        in_addr v4;
        if (::inet_pton(AF_INET, text, &v4) == 1) {
            add4(list, net, v4.s_addr, port);
            return of_family(list);
        }
        std::uint32_t scope = 0;
        if (char* zone = std::strchr(text, '%')) {
            *zone++ = 0;
            scope = scope_of(zone);
            if (scope == 0) return failure(ENODEV, "no network interface of that name");
        }
        in6_addr v6;
        if (::inet_pton(AF_INET6, text, &v6) == 1) {
            add6(list, net, v6, port, scope);
            return of_family(list);
        }
    }
    list.name = host;
    list.port = port;
    return list;
}

AddressList parse_ip(const Network& net, std::string_view address, AddressUse use) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string_view::npos) return failure(EINVAL, "no port: write host:port");
    std::string_view host = address.substr(0, colon);
    const std::string_view digits = address.substr(colon + 1);
    const char* end = digits.data() + digits.size();
    std::uint16_t port = 0;
    const auto [ptr, ec] = std::from_chars(digits.data(), end, port);
    if (digits.empty() || ptr != end || ec != std::errc{})
        return failure(EINVAL, "the port must be a number from 0 to 65535");
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    } else if (host.find_first_of("[]:") != std::string_view::npos) {
        return failure(EINVAL, "an IPv6 address with a port is written [address]:port");
    }
    return parse_host(net, host, port, use);
}

AddressList parse_unix(std::string_view path) {
    AddressList list;
    SocketAddress& a = list.at[0];
    const bool abstract = path.starts_with('@');
    // A path needs its closing zero; an abstract name is bounded by the length alone.
    const std::size_t room = sizeof a.un.sun_path - (abstract ? 0 : 1);
    if (path.empty()) return failure(EINVAL, "the path is empty");
    if (path.size() > room) return failure(ENAMETOOLONG, "at most 107 bytes");
    if (!abstract && path.find('\0') != std::string_view::npos)
        return failure(EINVAL, "the path contains a zero byte");
    a.un.sun_family = AF_UNIX;
    path.copy(a.un.sun_path, room);
    if (abstract) a.un.sun_path[0] = 0;
    a.len =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
    list.n = 1;
    return list;
}

std::string unix_text(const SocketAddress& a) {
    constexpr std::size_t kHead = offsetof(sockaddr_un, sun_path);
    if (a.len <= kHead) return {};
    const std::size_t n = std::min<std::size_t>(a.len, sizeof a.un) - kHead;
    if (a.un.sun_path[0] == 0) return "@" + std::string(a.un.sun_path + 1, n - 1);
    return std::string(a.un.sun_path, ::strnlen(a.un.sun_path, n));
}

std::string ip6_text(const sockaddr_in6& in6) {
    char text[INET6_ADDRSTRLEN];
    // What came over IPv4 to a socket that takes both is shown as what it is.
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
        return ::inet_ntop(AF_INET, in6.sin6_addr.s6_addr + 12, text, sizeof text);
    std::string out = "[";
    out += ::inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    if (in6.sin6_scope_id != 0) {
        char name[IF_NAMESIZE];
        out += '%';
        out += ::if_indextoname(in6.sin6_scope_id, name) ? std::string(name)
                                                         : std::to_string(in6.sin6_scope_id);
    }
    return out + ']';
}

} // namespace

Network network_of(std::string_view network) {
    if (network == "tcp") return {AF_UNSPEC, SOCK_STREAM};
    if (network == "tcp4") return {AF_INET, SOCK_STREAM};
    if (network == "tcp6") return {AF_INET6, SOCK_STREAM};
    if (network == "udp") return {AF_UNSPEC, SOCK_DGRAM};
    if (network == "udp4") return {AF_INET, SOCK_DGRAM};
    if (network == "udp6") return {AF_INET6, SOCK_DGRAM};
    if (network == "unix") return {AF_UNIX, SOCK_STREAM};
    if (network == "unixgram") return {AF_UNIX, SOCK_DGRAM};
    return {AF_UNSPEC, 0};
}

AddressList parse_address(std::string_view network, std::string_view address, AddressUse use) {
    const Network net = network_of(network);
    if (net.type == 0)
        return failure(EINVAL, "the network must be \"tcp\", \"udp\", either with a 4 or 6 behind "
                               "it, \"unix\" or \"unixgram\"");
    return net.family == AF_UNIX ? parse_unix(address) : parse_ip(net, address, use);
}

SocketAddress socket_address(long nr, int fd) {
    SocketAddress a;
    socklen_t len = sizeof a.un;
    if (kernel::raw_syscall(nr, fd, &a.sa, &len) == 0) a.len = len;
    return a;
}

} // namespace baton::detail

namespace baton {

int SocketAddress::port() const noexcept {
    if (family() == AF_INET) return ntohs(in4.sin_port);
    if (family() == AF_INET6) return ntohs(in6.sin6_port);
    return 0;
}

std::string SocketAddress::text() const {
    char text[INET_ADDRSTRLEN];
    switch (family()) {
    case AF_INET:
        return std::string(::inet_ntop(AF_INET, &in4.sin_addr, text, sizeof text)) + ':' +
               std::to_string(port());
    case AF_INET6:
        return detail::ip6_text(in6) + ':' + std::to_string(port());
    case AF_UNIX:
        return detail::unix_text(*this);
    default:
        return {};
    }
}

bool SocketAddress::operator==(const SocketAddress& other) const noexcept {
    if (family() != other.family()) return false;
    switch (family()) {
    case AF_UNSPEC:
        return true;
    case AF_INET:
        return in4.sin_port == other.in4.sin_port &&
               in4.sin_addr.s_addr == other.in4.sin_addr.s_addr;
    case AF_INET6:
        return in6.sin6_port == other.in6.sin6_port &&
               in6.sin6_scope_id == other.in6.sin6_scope_id &&
               std::memcmp(&in6.sin6_addr, &other.in6.sin6_addr, sizeof in6.sin6_addr) == 0;
    default:
        return detail::unix_text(*this) == detail::unix_text(other);
    }
}

SocketAddress SocketAddress::parse(std::string_view network, std::string_view address,
                                   std::error_code& ec) {
    const auto list = detail::parse_address(network, address, detail::AddressUse::kDial);
    const int err = list.name.empty() ? list.error : EINVAL;
    ec = {err, std::generic_category()};
    return list.n > 0 ? list.at[0] : SocketAddress();
}

SocketAddress SocketAddress::parse(std::string_view network, std::string_view address) {
    std::error_code ec;
    SocketAddress a = parse(network, address, ec);
    if (ec) throw std::system_error(ec, std::string(address));
    return a;
}

} // namespace baton
