// SPDX-License-Identifier: Apache-2.0
//
// Sockets: streams, listeners, datagrams, addresses.
#pragma once

#include "baton/address.hpp"
#include "baton/conn.hpp"
#include "baton/listener.hpp"
#include "baton/packet.hpp"
