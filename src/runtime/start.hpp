// SPDX-License-Identifier: Apache-2.0
//
// How the runtime starts: what the environment says, and what a forked child begins with.
//
// Threads: any; a start is held by one at a time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace baton::rt {

enum class Traceback : std::uint8_t; // traceback.hpp
enum class Poller : std::uint8_t;    // netpoll.hpp

struct Config {
    int procs;              // BATON_MAXPROCS, or what the machine offers
    bool procs_fixed;       // the former
    std::size_t stack_size; // BATON_STACK
    int assist;             // BATON_ASSIST as int(Assist), -1 when unset
    std::uint32_t threads;  // BATON_MAXTHREADS
    bool crash_at_limit;
    bool preempt;               // BATON_PREEMPT
    Traceback traceback;        // BATON_TRACEBACK
    std::uint32_t file_threads; // BATON_FILE_THREADS
    Poller poller;              // BATON_POLL
};
Config read_config();
void set_default_stack(std::size_t bytes);
/// Keeps a start of the runtime out, and lets it in again.
void hold_start();
void release_start();
/// In a forked child: nothing has been started. Held.
void forget_start();
void set_initial_procs(int n);
int initial_procs();

/// Sees to the children of fork from now on. 0 or an errno.
int watch_forks();
/// In a child: did a goroutine fork it? Then it goes on as a plain thread.
bool forked_from_goroutine() noexcept;
/// As the last thread of a process that ends.
[[noreturn]] void goroutine_returned_in_child();

} // namespace baton::rt
