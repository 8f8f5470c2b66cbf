// SPDX-License-Identifier: Apache-2.0
//
// The CPUs we may run on, how many of them we are given, and how many Ps follow from that.
//
// Threads: any thread. All of it reads files or asks the kernel: for start-up and sysmon's
// slow rounds.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace baton::kernel {

/// CPUs in a thread's affinity mask that are online, ascending; of the calling thread without a
/// tid. Empty only if the kernel will not say.
[[nodiscard]] std::vector<int> allowed_cpus(int tid = 0);

/// One more than the highest CPU number this machine can ever have: the size of a per-CPU table.
[[nodiscard]] int possible_cpus();

/// The same, from the text of /sys/devices/system/cpu/possible ("0-3,8"); 0 if it is not that.
[[nodiscard]] int possible_cpus_in(const std::string& text) noexcept;

/// Pins the calling thread. 0 or -errno.
[[nodiscard]] int pin_thread(int cpu, int tid = 0) noexcept;

/// Lets the calling thread run on these CPUs. 0 or -errno.
[[nodiscard]] int set_affinity(const std::vector<int>& cpus, int tid = 0) noexcept;

/// CPU bandwidth in CPUs, the least of what the cgroups from ours to the root allow, in either
/// version's hierarchy (both can be mounted); infinity when nothing limits us.
[[nodiscard]] double cgroup_cpu_quota();

/// The same with every path taken below `root`: root + "/proc/self/cgroup" and so on.
[[nodiscard]] double cgroup_cpu_quota_under(const std::string& root);

/// The same to be read again and again: where the limits lie is looked up only when the process
/// has moved to another cgroup. For one thread.
class CpuQuota {
public:
    explicit CpuQuota(std::string root = "") : root_(std::move(root)) {}
    [[nodiscard]] double read();

private:
    struct Level {
        std::string directory;
        bool v2;
    };
    void find_levels();

    std::string root_;
    std::string memberships_; // /proc/self/cgroup as it was
    std::vector<Level> levels_;
};

/// How many Ps that makes: as many as allowed CPUs, or as the quota rounded up when that is
/// fewer, but a quota never makes it less than 2: with one P a collector, a timer or a netpoll
/// pass has nothing to run beside (the reference runtime's rule). At least 1.
[[nodiscard]] int procs_for(int allowed, double quota) noexcept;

/// procs_for, of this process.
[[nodiscard]] int default_procs();

} // namespace baton::kernel
