// SPDX-License-Identifier: Apache-2.0
//
// Socket addresses and their texts. Nothing here parks or resolves names.
//
// Threads: any.
// Rejected: getaddrinfo. It blocks, for seconds at times, inside libraries of its own that hold
// locks and thread_locals; who needs names calls it inside baton::blocking and passes the number
// on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace baton::detail {

struct SockAddr {
    socklen_t len = 0; // 0: none
    union {
        sockaddr sa;
        sockaddr_in in4;
        sockaddr_in6 in6;
        sockaddr_un un;
    };
    SockAddr() : un{} {}

    int family() const { return len == 0 ? AF_UNSPEC : sa.sa_family; }
    bool is_ip() const { return family() == AF_INET || family() == AF_INET6; }
    /// 0 where there is none.
    int port() const;
    /// "127.0.0.1:80", "[::1]:80", a path, "@abstract", or "" for an unnamed socket.
    std::string text() const;
};

enum class AddressUse : std::uint8_t { kDial, kListen };

/// What an address text names: one or two candidates, to be tried in turn.
struct AddressList {
    SockAddr at[2];
    int n = 0;
    int error = 0;              // errno, n is 0 then
    const char* hint = nullptr; // what is wrong, beyond the errno's text
};

/// `network` is "tcp" or "unix". EADDRNOTAVAIL for names other than localhost, EINVAL for nonsense.
AddressList parse_address(std::string_view network, std::string_view address, AddressUse use);

/// getsockname or getpeername by number. len is 0 on failure.
SockAddr socket_address(long nr, int fd);

} // namespace baton::detail
