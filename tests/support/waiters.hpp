// SPDX-License-Identifier: Apache-2.0
//
// Has somebody queued yet? For tests in whose story that comes next; a sleep would only make it
// likely.
#pragma once

#include "baton/go.hpp"
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

} // namespace waiters_test
