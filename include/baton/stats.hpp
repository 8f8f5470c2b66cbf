// SPDX-License-Identifier: Apache-2.0
//
// What the runtime knows about itself: kernel features, the handoff tier, counters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace baton {

/// One thing the kernel may offer, as found by trying it once.
struct KernelFeature {
    std::string name;   ///< "rseq", "futex2", "bpf", ...
    bool usable;        ///< found and not switched off
    std::string detail; ///< why not, or which variant is used
};
/// Every kernel feature the runtime can use; probed once, at the first call or at start.
/// BATON_DISABLE=name,name switches features off.
[[nodiscard]] std::vector<KernelFeature> kernel_features();

/// How blocked threads are noticed, best first.
enum class Assist { kProbe, kUnderstudy, kSysmon };
/// The tier in force. Starts the runtime if need be.
[[nodiscard]] Assist assist_tier();
[[nodiscard]] const char* to_string(Assist tier) noexcept;

/// Counters since the start of the process; a snapshot, not atomic as a whole.
struct Stats {
    std::uint64_t goroutines;      ///< alive now
    std::uint64_t threads;         ///< Ms alive now, idle ones included
    std::uint64_t threads_idle;    ///< of those, parked
    std::uint64_t threads_peak;    ///< most Ms at any time
    std::uint64_t threads_limit;   ///< how many there may be: set_max_threads
    std::uint64_t threads_refused; ///< how often one more was wanted, and the limit or the kernel
                                   ///< did not allow it: work waits
    std::uint64_t file_requests;   ///< given to the kernel's rings and not done yet, now
    std::uint64_t file_calls;      ///< calls on files that may block their threads, now
    std::uint64_t file_threads;    ///< how many of those may wait for a disk: BATON_FILE_THREADS
    std::uint64_t handoffs;        ///< Ps taken from blocked threads and run by others
    std::uint64_t handoffs_understudy;
    std::uint64_t handoffs_scan;
    std::uint64_t handoffs_ringbuf;
    std::uint64_t handoffs_sysmon;
    std::uint64_t understudy_arms;
    std::uint64_t understudy_dozes;
    /// Block to next goroutine on that P, nanoseconds; probe tier only (0 samples elsewhere).
    std::uint64_t handoff_samples;
    std::uint64_t handoff_p50_ns;
    std::uint64_t handoff_p99_ns;
};
[[nodiscard]] Stats stats();

} // namespace baton
#pragma GCC visibility pop
