// SPDX-License-Identifier: Apache-2.0
//
// blocked=N: so many goroutines have blocked in the kernel before, all at once. So there are idle
// threads, as in any server; in a fresh process there are none, and what two goroutines do with
// each other stays on one processor most of the time.
#pragma once

#include <chrono>
#include <string>
#include <thread>

#include "baton/baton.hpp"
#include "key_values.hpp"

namespace bench {

inline void block_once(const KeyValues& args) {
    baton::run([tasks = std::stol(args.text("blocked", "0"))] {
        baton::WaitGroup all;
        for (long t = 0; t < tasks; ++t)
            all.go([] {
                baton::blocking([] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
            });
        all.wait();
    });
}

} // namespace bench
