// SPDX-License-Identifier: Apache-2.0
//
// Socket addresses, and how names become some.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Where a socket is: an IPv4 or IPv6 address with a port, or a Unix path. As the kernel has it.
struct SocketAddress {
    socklen_t len = 0; ///< of the member in use; 0: none
    union {
        sockaddr sa;
        sockaddr_in in4;
        sockaddr_in6 in6;
        sockaddr_un un;
    };
    SocketAddress() noexcept : un{} {}

    /// From the text forms that Conn::dial takes, numeric ones and "localhost". Never parks.
    static SocketAddress parse(std::string_view network, std::string_view address);
    static SocketAddress parse(std::string_view network, std::string_view address,
                               std::error_code& ec);

    [[nodiscard]] int family() const noexcept { return len == 0 ? AF_UNSPEC : sa.sa_family; }
    [[nodiscard]] bool is_ip() const noexcept {
        return family() == AF_INET || family() == AF_INET6;
    }
    /// 0 where there is none.
    [[nodiscard]] int port() const noexcept;
    /// "127.0.0.1:80", "[::1]:80", a path, "@abstract", or "" for an unnamed socket.
    [[nodiscard]] std::string text() const;
    /// The same family, address and port, or path.
    [[nodiscard]] bool operator==(const SocketAddress& other) const noexcept;
};

/// The addresses of "host:port" on `network` ("tcp", "udp", either with a 4 or 6 behind it for one
/// family), in the order they should be tried: families in turn, IPv6 first. The port is a number.
///
/// Numbers and "localhost" are answered at once. Names go to getaddrinfo: on a goroutine of its own
/// that blocks, announced, 64 of them at most at a time. May park. Given up at `until`, which the
/// look-up itself outlives. Errors are those of resolve_category(), or of the system.
std::vector<SocketAddress> resolve(std::string_view network, std::string_view address,
                                   const Until& until = {});
std::vector<SocketAddress> resolve(std::string_view network, std::string_view address,
                                   const Until& until, std::error_code& ec);

/// Of getaddrinfo's errors: EAI_NONAME and its like.
[[nodiscard]] const std::error_category& resolve_category() noexcept;

} // namespace baton
#pragma GCC visibility pop
