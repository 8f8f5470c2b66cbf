// SPDX-License-Identifier: Apache-2.0
//
// The same facts on any number of processors. No CAPTURE and no INFO around: a goroutine that parks
// may come back on another thread, and doctest keeps those per thread.
#pragma once

#include <chrono>
#include <cstdio>
#include <thread>

#include "baton/baton.hpp"

namespace procs_test {

/// Runs f(procs) as a goroutine, once on each number of processors.
template <class F>
void over_procs(F f) {
    for (const int procs : {1, 2, 4, 8}) {
        std::fprintf(stderr, "  on %d\n", procs); // for the log of a test that hangs
        baton::run([&] {
            baton::set_max_procs(procs);
            f(procs);
        });
    }
}

/// Waits until f() holds, on a plain thread; false if it does not in time.
template <class F>
bool eventually(F f) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!f()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

} // namespace procs_test
