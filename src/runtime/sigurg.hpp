// SPDX-License-Identifier: Apache-2.0
//
// Who handles SIGURG: the runtime, in front of the program (sigurg.cpp).
//
// Threads: the one that starts the runtime, sysmon, who stops the world, who asks for a stack.
#pragma once

#include <array>
#include <csignal>
#include <utility>

namespace baton::rt {

using UrgHandler = void (*)(int sig, siginfo_t* info, void* context);

/// As many handlers of the program's, one in place of the other, are kept apart.
constexpr int kUrgLevels = 8;
/// A handler of its own for each level: of<level>().
template <class Of>
constexpr std::array<UrgHandler, kUrgLevels> each_urg_level(Of of) {
    return [&of]<int... kLevel>(std::integer_sequence<int, kLevel...>) {
        return std::array<UrgHandler, kUrgLevels>{of.template operator()<kLevel>()...};
    }
    (std::make_integer_sequence<int, kUrgLevels>());
}

/// Takes SIGURG, at start or in a process that ends.
bool take_urg();
/// Is it ours? If the program has put a handler in our place, ours goes in front of that again.
bool keep_urg();

} // namespace baton::rt
