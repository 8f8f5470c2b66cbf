// SPDX-License-Identifier: Apache-2.0
//
// Has somebody queued yet? For tests in whose story that comes next; a sleep would only make it
// likely.
#pragma once

#include <atomic>
#include <chrono>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/time.hpp"
#include "runtime/sema.hpp"

namespace waiters_test {

/// At the word of an object, which is its first member, for `what`.
inline bool has_waiter(const void* object, baton::rt::WaitReason what) {
    const baton::rt::Entry entry;
    return !baton::rt::SemaQueue(object, what).empty();
}

inline void await_waiter(const void* object, baton::rt::WaitReason what) {
    while (!has_waiter(object, what)) baton::yield();
}

/// Leaves a goroutine behind that waits for ever to receive.
inline void leave_one_waiting() {
    std::atomic<bool> there{false};
    baton::go([&] {
        there.store(true);
        (void)baton::Chan<int>().recv();
    });
    while (!there.load()) baton::yield();
    baton::sleep_for(std::chrono::milliseconds(20)); // until it waits
}

} // namespace waiters_test
