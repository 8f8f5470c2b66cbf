// SPDX-License-Identifier: Apache-2.0
//
// Sockets with an address of their own: listeners and unconnected datagram sockets.
//
// Threads: any; may park.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <system_error>

#include "baton/address.hpp"
#include "io/netfd.hpp"

namespace baton::detail {

/// A socket of `type` bound to `address`; `ready` is called before it is registered with the
/// netpoller, and answers an errno. Null with an error.
std::unique_ptr<NetFd> bind_socket(std::string_view network, std::string_view address, int type,
                                   bool reuse_port, std::error_code& ec,
                                   const std::function<int(int, const SocketAddress&)>& ready);
/// "listen tcp 127.0.0.1:80: Address already in use"
[[noreturn]] void throw_bind_error(const char* operation, std::string_view network,
                                   std::string_view address, std::error_code ec);

} // namespace baton::detail
