// SPDX-License-Identifier: Apache-2.0
//
// What each of many tasks does with a lock for readers and writers, goroutines or threads.
#pragma once

#include <cstdint>
#include <mutex>
#include <shared_mutex>

namespace bench {

/// Locks it `each` times, one in `write_every` for writing: the turns of tasks 0, 1, ... to write
/// are spread over the period.
template <class Lock>
void lock_mix(Lock& lock, std::uint64_t each, std::uint64_t task, std::uint64_t write_every) {
    std::uint64_t until_write = task % write_every;
    for (std::uint64_t i = 0; i < each; ++i) {
        if (until_write-- != 0) {
            const std::shared_lock hold(lock);
        } else {
            until_write = write_every - 1;
            const std::unique_lock hold(lock);
        }
    }
}

} // namespace bench
