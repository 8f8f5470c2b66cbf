// SPDX-License-Identifier: Apache-2.0
#include "kernel/cpus.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cmath>

#include "kernel/syscall.hpp"
#include "kernel/textfile.hpp"

namespace baton::kernel {
namespace {

constexpr int kWordBits = 64;

std::vector<int> bits_of(const std::vector<unsigned long>& mask, std::size_t bytes) {
    std::vector<int> set;
    const int bits = static_cast<int>(bytes) * CHAR_BIT;
    for (int cpu = 0; cpu < bits; ++cpu) {
        if ((mask[cpu / kWordBits] >> (cpu % kWordBits) & 1) != 0) set.push_back(cpu);
    }
    return set;
}

/// Bytes of the kernel's own mask, and the mask; 0 if it will not say. The buffer grows until
/// the kernel's mask fits: -EINVAL is how it says that it does not.
std::size_t read_affinity(std::vector<unsigned long>& mask, int tid = 0) {
    constexpr std::size_t kWordsMax = 1 << 14; // a million CPUs
    for (std::size_t words = 16; words <= kWordsMax; words *= 2) {
        mask.assign(words, 0);
        const long r = raw_syscall(__NR_sched_getaffinity, tid, words * sizeof(long), mask.data());
        if (r > 0) return static_cast<std::size_t>(r);
        if (r != -EINVAL) return 0;
    }
    return 0;
}

} // namespace

std::vector<int> allowed_cpus(int tid) {
    std::vector<unsigned long> mask;
    return bits_of(mask, read_affinity(mask, tid));
}

int possible_cpus_in(const std::string& text) noexcept {
    // The highest number is the last one: "0-3,8-11\n", or "0".
    std::size_t end = text.size();
    while (end > 0 && (text[end - 1] < '0' || text[end - 1] > '9')) --end;
    std::size_t start = end;
    while (start > 0 && text[start - 1] >= '0' && text[start - 1] <= '9') --start;
    int highest = -1;
    const auto [_, error] = std::from_chars(text.data() + start, text.data() + end, highest);
    return error == std::errc() && highest < INT_MAX ? highest + 1 : 0;
}

int possible_cpus() {
    const int listed = possible_cpus_in(read_text_file("/sys/devices/system/cpu/possible"));
    if (listed > 0) return listed;
    // Without sysfs: the size of the kernel's mask is a bound.
    std::vector<unsigned long> mask;
    return std::max(static_cast<int>(read_affinity(mask)) * CHAR_BIT, 1);
}

int pin_thread(int cpu, int tid) noexcept {
    // Large enough for any CONFIG_NR_CPUS there is; the kernel takes a mask longer than its own.
    unsigned long mask[8192 / kWordBits] = {};
    if (cpu < 0 || cpu >= static_cast<int>(sizeof mask) * CHAR_BIT) return -EINVAL;
    mask[cpu / kWordBits] = 1UL << (cpu % kWordBits);
    return static_cast<int>(raw_syscall(__NR_sched_setaffinity, tid, sizeof mask, mask));
}

int set_affinity(const std::vector<int>& cpus, int tid) noexcept {
    unsigned long mask[8192 / kWordBits] = {};
    for (const int cpu : cpus) {
        if (cpu < 0 || cpu >= static_cast<int>(sizeof mask) * CHAR_BIT) return -EINVAL;
        mask[cpu / kWordBits] |= 1UL << (cpu % kWordBits);
    }
    return static_cast<int>(raw_syscall(__NR_sched_setaffinity, tid, sizeof mask, mask));
}

int procs_for(int allowed, double quota) noexcept {
    const int cpus = std::max(allowed, 1);
    // Compared as doubles first: an infinite quota has no int.
    const double granted = std::max(std::ceil(quota), 2.0);
    return granted < cpus ? static_cast<int>(granted) : cpus;
}

int default_procs() {
    return procs_for(static_cast<int>(allowed_cpus().size()), cgroup_cpu_quota());
}

} // namespace baton::kernel
