// SPDX-License-Identifier: Apache-2.0
//
// Many goroutines that wait in a call of libc's, and how many threads they hold meanwhile.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <vector>

#include <unistd.h>

#include "baton/baton.hpp"
#include "support/child.hpp"

namespace many {

using namespace std::chrono_literals;

inline constexpr int kMany = 200;
inline constexpr std::uint64_t kFew = 24; // threads in use, spare ones aside

/// `wait(i)` on many goroutines, until `release()` lets them go.
template <class Wait, class Release>
void hold(Wait wait, Release release) {
    baton::WaitGroup wg;
    for (int i = 0; i < kMany; i++) wg.go([&, i] { wait(i); });
    baton::sleep_for(50ms);
    const baton::Stats s = baton::stats();
    const auto busy = s.threads - s.threads_idle;
    std::printf("busy threads: %llu\n", static_cast<unsigned long long>(busy));
    if (busy <= kFew) child_process::reached();
    release();
    wg.wait();
}

struct Pipes {
    std::vector<int> fds;
    explicit Pipes(int n) : fds(static_cast<std::size_t>(n) * 2) {
        for (int i = 0; i < n; i++) REQUIRE(::pipe(&fds[static_cast<std::size_t>(i) * 2]) == 0);
    }
    int in(int i) const { return fds[static_cast<std::size_t>(i) * 2]; }
    int out(int i) const { return fds[static_cast<std::size_t>(i) * 2 + 1]; }
};

/// `wait(fd, i)`, each of which is let go by a byte in its pipe.
template <class F>
void many_wait(F wait) {
    baton::run([&] {
        Pipes pipes(kMany);
        hold([&](int i) { wait(pipes.in(i), i); },
             [&] {
                 for (int i = 0; i < kMany; i++) (void)!::write(pipes.out(i), "x", 1);
             });
    });
}

} // namespace many
