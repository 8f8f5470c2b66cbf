// SPDX-License-Identifier: Apache-2.0
//
// Goroutines and plain threads that want one object, in every way there is, and give up at random:
// at a deadline that passes about when they would get it, at a stop. Whoever waits for a wake-up
// that was lost hangs; at the end the object must be as new.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stop_token>
#include <system_error>
#include <thread>
#include <vector>

#include "baton/baton.hpp"
#include "kernel/build.hpp"

namespace lock_stress {

/// xorshift: each goroutine its own.
class Random {
public:
    explicit Random(int seed) : x_(0x9e3779b97f4a7c15ULL * static_cast<std::uint64_t>(seed + 1)) {}
    /// 0 to n - 1.
    std::uint32_t below(std::uint32_t n) {
        x_ ^= x_ << 13;
        x_ ^= x_ >> 7;
        x_ ^= x_ << 17;
        return static_cast<std::uint32_t>((x_ >> 33) % n);
    }
    /// A limit that may have passed, or passes soon, or a stop that comes about then, or both.
    baton::Until limit(const std::stop_token& token) {
        const std::chrono::microseconds soon(below(200));
        switch (below(4)) {
        case 0:
            return soon;
        case 1:
            return token;
        case 2:
            return baton::Until(); // never
        default:
            return {soon, token};
        }
    }

private:
    std::uint64_t x_;
};

#if defined(BATON_TSAN) || defined(BATON_ASAN)
inline constexpr int kRounds = 4;
#else
inline constexpr int kRounds = 60;
#endif
inline constexpr int kGs = 64;
inline constexpr int kThreads = 2;

/// Calls work(random, token) `times` times in each of many goroutines and some plain threads, while
/// another requests a stop of the token; and all that again, with another token.
template <class Work>
void run(int times, Work work) {
    for (int round = 0; round < kRounds; round++) {
        std::stop_source source;
        baton::WaitGroup wg;
        const auto loop = [&, token = source.get_token()](int seed) {
            Random random(seed);
            for (int i = 0; i < times; i++) work(random, token);
        };
        for (int g = 0; g < kGs; g++) wg.go(loop, round * 1000 + g);
        std::vector<std::jthread> threads;
        for (int t = 0; t < kThreads; t++) threads.emplace_back(loop, round * 1000 + kGs + t);
        if (round % 4 != 0) baton::sleep_for(std::chrono::microseconds(100 * round));
        source.request_stop();
        wg.wait();
        baton::blocking([&] { threads.clear(); });
    }
}

/// Does it have the bytes of one that was never used?
template <class T>
bool as_new(const T& it) {
    const T fresh;
    return std::memcmp(static_cast<const void*>(&it), &fresh, sizeof it) == 0;
}

} // namespace lock_stress
