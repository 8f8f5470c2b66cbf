// SPDX-License-Identifier: Apache-2.0
//
// What functions and lines the addresses of a stack are, by libdw: of the program and of all it has
// loaded, dlopen included; with the functions that were inlined there, and with debug information
// from separate files. Where there is none, the symbol and how far into it, or the file and how far
// into that, which addr2line takes.
//
// Threads: one at a time per Symbolizer. Allocates, reads files, and wants some 100 KiB of stack:
// so never on a goroutine's own, nor while the world is stopped.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct Dwfl;
struct Dwfl_Module;

namespace baton::rt {

/// A function on a stack, or inlined there.
struct Frame {
    /// Whose it is, which decides if it is shown.
    enum class Of : std::uint8_t {
        kProgram,
        kRuntime,  ///< baton's insides
        kPlumbing, ///< the standard library's ways to call a callable
        kThrow,    ///< what is between a throw and its terminate
        kGo,       ///< baton::go and baton::run: where a goroutine is made
    };
    std::string function; ///< demangled, or the address
    std::string detail;   ///< follows the name: that it is inlined, or how far into it, or nothing
    std::string where;    ///< file and line, or how far into the file
    Of of = Of::kProgram;
};

class Symbolizer {
public:
    Symbolizer();
    ~Symbolizer();
    Symbolizer(const Symbolizer&) = delete;
    Symbolizer& operator=(const Symbolizer&) = delete;

    /// What is at `pc`: the innermost of the functions inlined there first, the one they are
    /// inlined in last. Never empty.
    const std::vector<Frame>& at(std::uintptr_t pc);

private:
    std::vector<Frame> describe(std::uintptr_t pc);

    Dwfl* dwfl_ = nullptr;
    std::map<std::uintptr_t, std::vector<Frame>> known_;
};

} // namespace baton::rt
