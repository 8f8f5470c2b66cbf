// SPDX-License-Identifier: Apache-2.0
//
// Address texts to addresses, names looked up.
//
// Threads: any; may park.
#pragma once

#include <string_view>
#include <system_error>
#include <vector>

#include "baton/address.hpp"
#include "io/address.hpp"

namespace baton::detail {

/// resolve(), for either use. Empty with an error.
std::vector<SocketAddress> resolve_for(AddressUse use, std::string_view network,
                                       std::string_view address, const Until& until,
                                       std::error_code& ec);

/// The families in turn, IPv6 first, each in the order it had.
std::vector<SocketAddress> interleave(std::vector<SocketAddress> list);

} // namespace baton::detail
