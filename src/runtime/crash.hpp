// SPDX-License-Identifier: Apache-2.0
//
// The end of a process that fails: who tells of it, what it tells, and that it ends (crash.cpp).
//
// Threads: any, unless said otherwise.
#pragma once

#include <cstdint>

#include "arch/x86_64/walk.hpp"
#include "runtime/traceback.hpp"

namespace baton::rt {

/// BATON_TRACEBACK; kNone in a setuid program. Set once, before the runtime starts.
void set_traceback(Traceback level);
Traceback traceback_level() noexcept;

/// What ends a process whose last words are stuck.
struct CrashPatience {
    std::int64_t progress_ns; ///< who failed waits so long for sysmon to have printed more
    unsigned alarm_s;         ///< the kernel waits so long for that, and ends the process
};
/// For tests, which have less. Before anything fails.
void set_crash_patience(const CrashPatience& patience) noexcept;

/// To be called before the first word of a failure is printed. The first thread goes on; one that
/// fails later waits for the process to end, and the first one, if it fails again, ends it at once.
void begin_crash() noexcept;

/// What follows the first words.
struct CrashTrace {
    const arch::Registers* at = nullptr; ///< where it failed; null: in the caller
    bool thrown = false;                 ///< by an exception nobody catches
};
/// Prints, as BATON_TRACEBACK asks: the stack of the caller, the other goroutines. begin_crash was
/// called. Handlers of signals too, on any stack with some KiB of room.
void print_crash(const CrashTrace& trace) noexcept;

/// Prints all goroutines and the plain threads that wait, unless BATON_TRACEBACK is none. On
/// sysmon; begin_crash was called.
void print_goroutines() noexcept;

/// SIGQUIT came: sysmon prints all there is, and the process ends. In its handler.
void request_quit(std::uintptr_t pc, std::uint32_t m, int sigcode) noexcept;
/// Is there something for serve_crash to do? Whoever asks for it wakes sysmon then.
bool crash_requested() noexcept;
/// On sysmon: does what print_crash and request_quit wait for.
void serve_crash() noexcept;

/// At exit: a process that fails does not end otherwise meanwhile.
void wait_for_crash() noexcept;

} // namespace baton::rt
