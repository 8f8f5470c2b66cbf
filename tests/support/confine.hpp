// SPDX-License-Identifier: Apache-2.0
//
// What a process may be denied: root, capabilities, resources, mounts. For children. (System calls:
// seccomp.hpp.)
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>

#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace confine {

inline bool root_or_skip() {
    if (::geteuid() == 0) return true;
    std::printf("skip: only root can become a user with limits and capabilities of its own\n");
    return false;
}

inline constexpr unsigned long long kBpf = 1ULL << CAP_BPF, kPerfmon = 1ULL << CAP_PERFMON;

/// Becomes a user nobody else is at this time, with these capabilities (a mask of CAP_x bits).
inline bool drop_root(unsigned long long capabilities = 0) {
    const uid_t uid = 60'000'000 + static_cast<uid_t>(::getpid());
    ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (::setgid(uid) != 0 || ::setuid(uid) != 0) return false;
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2] = {};
    for (int i = 0; i < 2; i++) {
        sets[i].effective = static_cast<__u32>(capabilities >> (32 * i));
        sets[i].permitted = sets[i].effective;
    }
    return ::syscall(SYS_capset, &header, &sets[0]) == 0;
}

inline void limit(int what, rlim_t soft) {
    rlimit now{};
    REQUIRE(::getrlimit(static_cast<__rlimit_resource>(what), &now) == 0);
    now.rlim_cur = std::min(soft, now.rlim_max);
    REQUIRE(::setrlimit(static_cast<__rlimit_resource>(what), &now) == 0);
}

/// What is mounted from here on nobody else sees. False where that is not allowed.
inline bool own_mounts() {
    return ::unshare(CLONE_NEWNS) == 0 &&
           ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

} // namespace confine
