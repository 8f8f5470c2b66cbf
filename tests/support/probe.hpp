// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the probe share: loading it, its records, and threads as the kernel sees them.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <sched.h>
#include <unistd.h>

#include "assist/probe.hpp"

namespace probe_test {

using baton::assist::Probe;

inline std::unique_ptr<Probe> load_or_skip() {
    std::string why;
    auto probe = Probe::load(why);
    // While one program goes from a tracepoint, perhaps the last test's, the kernel now and then
    // does not run another there. The runtime makes do with that; the tests want each switch.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (probe) return probe;
    const bool must = ::geteuid() == 0 && ::access("/sys/kernel/btf/vmlinux", R_OK) == 0;
    if (must) {
        FAIL("the probe does not load: " << why);
    } else {
        MESSAGE("SKIPPED: " << why);
    }
    return nullptr;
}

// acquire and release: what the program or the other side wrote before it is seen with it.
template <class T>
T read_shared(T& field) {
    return std::atomic_ref<T>(field).load(std::memory_order_acquire);
}
template <class T>
void write_shared(T& field, T value) {
    std::atomic_ref<T>(field).store(value, std::memory_order_release);
}

inline void pin_thread(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(::sched_setaffinity(0, sizeof set, &set) == 0);
}

/// Asleep, by the kernel's word, and not just on its way there.
inline bool sleeps(long tid) {
    for (int round = 0, asleep = 0; round < 2000; ++round) {
        std::ifstream stat("/proc/self/task/" + std::to_string(tid) + "/stat");
        std::string text;
        std::getline(stat, text);
        const std::size_t paren = text.rfind(") ");
        asleep = paren != std::string::npos && std::strchr("SD", text[paren + 2]) ? asleep + 1 : 0;
        if (asleep == 3) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
}

} // namespace probe_test
