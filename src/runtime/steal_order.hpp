// SPDX-License-Identifier: Apache-2.0
//
// The order in which a thief visits the Ps: another one each time, each P once.
#pragma once

#include <cstdint>
#include <numeric>

namespace baton::rt {

/// Calls visit(i) for the numbers below n, each once, in an order that `random` picks, until it
/// returns true. Did it? The stride is coprime to n, so that it comes by all of them.
template <class Visit>
bool in_random_order(std::uint32_t n, std::uint32_t random, Visit visit) {
    std::uint32_t stride = random % n + 1;
    while (std::gcd(stride, n) != 1) stride++;
    std::uint32_t at = (random >> 16) % n;
    for (std::uint32_t i = 0; i < n; i++, at = (at + stride) % n) {
        if (visit(at)) return true;
    }
    return false;
}

} // namespace baton::rt
