// SPDX-License-Identifier: Apache-2.0
//
// The text of goroutines and stacks, as the reference prints them:
//
//     goroutine 7 [chan receive, 5 minutes, locked to thread]:
//     serve(baton::Conn&)
//             /src/server.cpp:31 +0x2c
//     created by main in goroutine 1
//             /src/server.cpp:57 +0x81
//
// Threads: the header any, handlers included; the rest allocates (symbolize.hpp).
#pragma once

#include <cstddef>
#include <string>

#include "runtime/snapshot.hpp"
#include "runtime/symbolize.hpp"

namespace baton::rt {

/// BATON_TRACEBACK: whose stacks a process that fails prints, and how it ends.
enum class Traceback : std::uint8_t {
    kNone,
    kSingle, ///< of the goroutine that failed
    kAll,    ///< of the others too
    kSystem, ///< with the runtime's own frames
    kCrash,  ///< the same, and SIGABRT instead of exit code 2
};

/// What is shown of a stack.
struct Show {
    bool runtime = false; ///< the runtime's own frames too
    bool thrown = false;  ///< what is inside the throw is not
};

/// "goroutine 7 [running]:" and a new line; its length. What does not fit is lost.
std::size_t header(const GoroutineSnap& g, bool runtime, char* text, std::size_t size);
/// The frames, two lines each.
std::string frames(const StackSnap& stack, Show show, Symbolizer& symbols);
/// Two lines for where it was made; none for one that the runtime made.
std::string created_by(const GoroutineSnap& g, Symbolizer& symbols);

/// All of a snapshot, an empty line before each. `write` is called for each goroutine.
void write_goroutines(const Snapshot& goroutines, Show show, Symbolizer& symbols,
                      void (*write)(const std::string& text, void* arg), void* arg);
/// The plain threads that wait, likewise.
void write_threads(void (*write)(const std::string& text, void* arg), void* arg);

} // namespace baton::rt
