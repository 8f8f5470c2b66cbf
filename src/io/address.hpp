// SPDX-License-Identifier: Apache-2.0
//
// What address texts name, as far as that can be told without asking anybody. Nothing here parks.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "baton/address.hpp"

namespace baton::detail {

enum class AddressUse : std::uint8_t { kDial, kListen };

/// What an address text names: one or two candidates, to be tried in turn; or a name to look up.
struct AddressList {
    SocketAddress at[2];
    int n = 0;
    int error = 0;              // errno, n is 0 then
    const char* hint = nullptr; // what is wrong, beyond the errno's text
    std::string_view name;      // of a host, if there is one; n is 0 then
    std::uint16_t port = 0;     // with the name
};

/// What a network's name stands for: type 0 if it is none.
struct Network {
    int family; // AF_UNSPEC: either of IP's
    int type;
};
Network network_of(std::string_view network);

/// EINVAL for nonsense. The name, if any, lies in `address`.
AddressList parse_address(std::string_view network, std::string_view address, AddressUse use);

/// getsockname or getpeername by number. len is 0 on failure.
SocketAddress socket_address(long nr, int fd);

} // namespace baton::detail
