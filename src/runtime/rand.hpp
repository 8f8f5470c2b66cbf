// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that need only be cheap: what to steal from first, which case of a select.
//
// Threads: fastrand on that M; cheaprandn on any.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/runtime.hpp"

namespace baton::rt {

inline std::uint32_t fastrand(M* m) {
    // xorshift64.
    m->rng ^= m->rng << 13;
    m->rng ^= m->rng >> 7;
    m->rng ^= m->rng << 17;
    return static_cast<std::uint32_t>(m->rng >> 32);
}

/// For threads that are no M.
inline std::uint32_t plain_rand() {
    static constinit std::atomic<std::uint64_t> count{0};
    // relaxed: it need only go on. The multiplications mix its bits (splitmix64).
    std::uint64_t x = count.fetch_add(0x9e3779b97f4a7c15, std::memory_order_relaxed);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return static_cast<std::uint32_t>(x >> 32);
}

/// A number below n, each as likely but for n / 2^32.
inline std::uint32_t cheaprandn(std::uint32_t n) {
    M* m = getm_or_null();
    const std::uint64_t random = m ? fastrand(m) : plain_rand();
    return static_cast<std::uint32_t>(random * n >> 32);
}

} // namespace baton::rt
