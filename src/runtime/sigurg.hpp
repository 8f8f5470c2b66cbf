// SPDX-License-Identifier: Apache-2.0
//
// Who handles SIGURG: the runtime, in front of the program (sigurg.cpp).
//
// Threads: the one that starts the runtime, sysmon, who stops the world, who asks for a stack.
#pragma once

namespace baton::rt {

/// As many handlers of the program's, one in place of the other, are kept apart.
constexpr int kUrgLevels = 8;

/// Takes SIGURG, at start or in a process that ends.
bool take_urg();
/// Is it ours? If the program has put a handler in our place, ours goes in front of that again.
bool keep_urg();

} // namespace baton::rt
