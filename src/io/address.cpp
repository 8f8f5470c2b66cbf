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

void add4(AddressList& list, in_addr_t host, std::uint16_t port) {
    SockAddr& a = list.at[list.n++];
    a.len = sizeof a.in4;
    a.in4.sin_family = AF_INET;
    a.in4.sin_port = htons(port);
    a.in4.sin_addr.s_addr = host;
}

void add6(AddressList& list, const in6_addr& host, std::uint16_t port, std::uint32_t scope) {
    SockAddr& a = list.at[list.n++];
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

AddressList parse_host(std::string_view host, std::uint16_t port, AddressUse use) {
    AddressList list;
    if (host.empty() && use == AddressUse::kListen) {
        add6(list, in6addr_any, port, 0); // takes IPv4 as well: listener.cpp clears IPV6_V6ONLY
        add4(list, htonl(INADDR_ANY), port);
        return list;
    }
    if (host.empty() || host == "localhost") {
        add4(list, htonl(INADDR_LOOPBACK), port);
        add6(list, in6addr_loopback, port, 0);
        return list;
    }
    char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
    if (host.size() >= sizeof text) return failure(EINVAL, "the host is too long");
    text[host.copy(text, sizeof text)] = 0;
    in_addr v4;
    if (::inet_pton(AF_INET, text, &v4) == 1) {
        add4(list, v4.s_addr, port);
        return list;
    }
    std::uint32_t scope = 0;
    if (char* zone = std::strchr(text, '%')) {
        *zone++ = 0;
        scope = scope_of(zone);
        if (scope == 0) return failure(ENODEV, "no network interface of that name");
    }
    in6_addr v6;
    if (::inet_pton(AF_INET6, text, &v6) == 1) {
        add6(list, v6, port, scope);
        return list;
    }
    return failure(EADDRNOTAVAIL,
                   "names are not resolved: give a numeric address or \"localhost\"");
}

AddressList parse_tcp(std::string_view address, AddressUse use) {
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
    return parse_host(host, port, use);
}

AddressList parse_unix(std::string_view path) {
    AddressList list;
    SockAddr& a = list.at[0];
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

std::string unix_text(const SockAddr& a) {
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

int SockAddr::port() const {
    if (family() == AF_INET) return ntohs(in4.sin_port);
    if (family() == AF_INET6) return ntohs(in6.sin6_port);
    return 0;
}

std::string SockAddr::text() const {
    char text[INET_ADDRSTRLEN];
    switch (family()) {
    case AF_INET:
        return std::string(::inet_ntop(AF_INET, &in4.sin_addr, text, sizeof text)) + ':' +
               std::to_string(port());
    case AF_INET6:
        return ip6_text(in6) + ':' + std::to_string(port());
    case AF_UNIX:
        return unix_text(*this);
    default:
        return {};
    }
}

AddressList parse_address(std::string_view network, std::string_view address, AddressUse use) {
    if (network == "tcp") return parse_tcp(address, use);
    if (network == "unix") return parse_unix(address);
    return failure(EINVAL, "the network must be \"tcp\" or \"unix\"");
}

SockAddr socket_address(long nr, int fd) {
    SockAddr a;
    socklen_t len = sizeof a.un;
    if (kernel::raw_syscall(nr, fd, &a.sa, &len) == 0) a.len = len;
    return a;
}

} // namespace baton::detail
