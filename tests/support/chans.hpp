// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "baton/chan.hpp"

namespace chans_test {

/// A channel that is none: on a moved-from one all operations wait for ever.
inline baton::Chan<int> nil() {
    baton::Chan<int> c;
    [[maybe_unused]] const baton::Chan<int> gone = std::move(c);
    return c; // NOLINT(bugprone-use-after-move): moved from, which is nil
}

} // namespace chans_test
