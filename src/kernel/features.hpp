// SPDX-License-Identifier: Apache-2.0
//
// What this kernel offers, each found by really trying it once; no version numbers, which say
// nothing about seccomp filters, missing configuration or backports.
//
// BATON_DISABLE=name,name in the environment switches features off: every fallback can be run,
// and is, by the tests, on a kernel that has everything.
//
// Threads: any thread. The first call probes: some 25 system calls, 0.3 ms, most of that for the
// ring, the program and the page which are made and dropped. No business of a signal handler or
// of a thread that is being measured: the runtime makes it at start.
//
// Invariants:
//   I1  a probe leaves nothing behind but the membarrier registration of the process
//   I2  what features() says never changes in the life of the process
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace baton::kernel {

/// True: tried, works here, and not switched off.
struct Features {
    bool fsgsbase;        ///< rdfsbase, wrgsbase and so on from user space
    bool rseq;            ///< the thread's rseq area: the C library's, or one of ours
    bool membarrier_rseq; ///< membarrier that restarts sequences on one CPU; registered
    bool futex2;          ///< futex_wait and futex_wake
    bool futex_waitv;     ///< wait on several words
    bool guard_pages;     ///< MADV_GUARD_INSTALL
    bool epoll_pwait2;    ///< epoll with nanosecond timeouts
    bool io_uring;        ///< a ring with all that the runtime asks of one
    bool bpf;             ///< the kernel's types are readable and we may load a tracing program
    bool sched_idle;      ///< SCHED_IDLE may be asked for
    bool sleepers;        ///< /proc tells which of our threads sleep
};

/// What features() found; probed at the first call.
[[nodiscard]] const Features& features() noexcept;

/// One feature as people are told of it.
struct FeatureInfo {
    const char* name;   ///< the name BATON_DISABLE takes
    bool usable;        ///< as in Features
    std::string detail; ///< which variant, or why not; one short phrase, may be empty
};

/// All of them, in the order of Features.
[[nodiscard]] std::vector<FeatureInfo> feature_list();

/// Does BATON_DISABLE name it?
[[nodiscard]] bool switched_off(std::string_view name);

} // namespace baton::kernel
