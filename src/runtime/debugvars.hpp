// SPDX-License-Identifier: Apache-2.0
//
// What the environment asks the runtime to tell: BATON_TRACEBACK and BATON_DEBUG. A wrong value
// costs one line.
//
// Threads: who starts the runtime.
#pragma once

#include "runtime/traceback.hpp"

namespace baton::rt {

/// BATON_DEBUG: name=number, comma-separated.
struct DebugVars {
    bool leak = false; ///< leak=1: goroutines that wait for ever are reported at exit
};

Traceback read_traceback();
DebugVars read_debug();

} // namespace baton::rt
