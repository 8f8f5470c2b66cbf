// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include <sched.h>

#include "kernel/cpus.hpp"

using namespace baton::kernel;

namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

/// A directory that plays the root of the file system, for one test.
class FakeRoot {
public:
    FakeRoot() {
        char name[] = "/tmp/baton-cpus-XXXXXX";
        REQUIRE(mkdtemp(name) != nullptr);
        path_ = name;
    }
    ~FakeRoot() { std::filesystem::remove_all(path_); }
    FakeRoot(const FakeRoot&) = delete;
    FakeRoot& operator=(const FakeRoot&) = delete;

    void file(const std::string& name, const std::string& text) const {
        const std::filesystem::path whole = path_ + name;
        std::filesystem::create_directories(whole.parent_path());
        std::ofstream(whole) << text;
    }
    void v1(const std::string& directory, const char* quota, const char* period) const {
        file(directory + "/cpu.cfs_quota_us", std::string(quota) + "\n");
        file(directory + "/cpu.cfs_period_us", std::string(period) + "\n");
    }
    double quota() const { return cgroup_cpu_quota_under(path_); }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

constexpr const char* kV2Mount =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr const char* kV1Mount =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "32 31 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct\n";

} // namespace

TEST_CASE("kernel cpus: allowed CPUs are those of the affinity mask, and pinning narrows them") {
    const std::vector<int> allowed = allowed_cpus();
    REQUIRE(!allowed.empty());
    CHECK(std::is_sorted(allowed.begin(), allowed.end()));
    CHECK(allowed.back() < possible_cpus());
    std::thread([&] {
        for (const int cpu : allowed) {
            REQUIRE(pin_thread(cpu) == 0);
            CHECK(sched_getcpu() == cpu);
            CHECK(allowed_cpus() == std::vector<int>{cpu});
        }
        CHECK(set_affinity(allowed) == 0);
        CHECK(allowed_cpus() == allowed);
    }).join();
    CHECK(allowed_cpus() == allowed);
}

TEST_CASE("kernel cpus: a CPU that cannot be is -EINVAL") {
    CHECK(pin_thread(-1) == -EINVAL);
    CHECK(pin_thread(possible_cpus()) == -EINVAL);
    CHECK(pin_thread(1 << 20) == -EINVAL);
    CHECK(set_affinity({}) == -EINVAL);
    CHECK(set_affinity({0, -3}) == -EINVAL);
}

TEST_CASE("kernel cpus: the list of possible CPUs is read by its last number") {
    CHECK(possible_cpus_in("0\n") == 1);
    CHECK(possible_cpus_in("0-1\n") == 2);
    CHECK(possible_cpus_in("0-3,8-127") == 128);
    CHECK(possible_cpus_in("") == 0);
    CHECK(possible_cpus_in("none\n") == 0);
    CHECK(possible_cpus_in("0-99999999999999") == 0);
}

TEST_CASE("kernel cpus: Ps follow from CPUs and quota, and a quota leaves two") {
    CHECK(procs_for(8, kNoLimit) == 8);
    CHECK(procs_for(8, 100.0) == 8);
    CHECK(procs_for(8, 3.0) == 3);
    CHECK(procs_for(8, 3.1) == 4);
    CHECK(procs_for(8, 1.0) == 2);
    CHECK(procs_for(8, 0.1) == 2);
    CHECK(procs_for(2, 0.5) == 2);
    CHECK(procs_for(1, 0.5) == 1);
    CHECK(procs_for(1, kNoLimit) == 1);
    CHECK(procs_for(0, kNoLimit) == 1);
    CHECK(default_procs() >= 1);
    CHECK(default_procs() <= static_cast<int>(allowed_cpus().size()));
    CHECK(cgroup_cpu_quota() > 0);
}

TEST_CASE("kernel quota: nothing mounted, or nothing set, is no limit") {
    const FakeRoot root;
    CHECK(root.quota() == kNoLimit);
    root.file("/proc/self/cgroup", "0::/\n");
    CHECK(root.quota() == kNoLimit);
    root.file("/proc/self/mountinfo", kV2Mount);
    CHECK(root.quota() == kNoLimit);
}

TEST_CASE("kernel quota: version 2, cpu.max") {
    const FakeRoot root;
    root.file("/proc/self/cgroup", "0::/app.slice/web\n");
    root.file("/proc/self/mountinfo", kV2Mount);
    root.file("/sys/fs/cgroup/app.slice/web/cpu.max", "150000 100000\n");
    CHECK(root.quota() == doctest::Approx(1.5));
    root.file("/sys/fs/cgroup/app.slice/web/cpu.max", "max 100000\n");
    CHECK(root.quota() == kNoLimit);
    root.file("/sys/fs/cgroup/app.slice/web/cpu.max", "rubbish\n");
    CHECK(root.quota() == kNoLimit);
    root.file("/sys/fs/cgroup/app.slice/web/cpu.max", "5000 0\n");
    CHECK(root.quota() == kNoLimit);
}

TEST_CASE("kernel quota: the least limit of all levels counts") {
    const FakeRoot root;
    root.file("/proc/self/cgroup", "0::/a/b/c\n");
    root.file("/proc/self/mountinfo", kV2Mount);
    root.file("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    root.file("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
    root.file("/sys/fs/cgroup/a/cpu.max", "50000 20000\n");
    CHECK(root.quota() == doctest::Approx(2.5));
    root.file("/sys/fs/cgroup/cpu.max", "100000 100000\n"); // a container sees its own as root
    CHECK(root.quota() == doctest::Approx(1.0));
}

TEST_CASE("kernel quota: version 1, cfs_quota_us, in the hierarchy that has cpu") {
    const FakeRoot root;
    root.file("/proc/self/cgroup", "5:cpuset:/other\n4:cpu,cpuacct:/jobs/one\n0::/\n");
    root.file("/proc/self/mountinfo", kV1Mount);
    const std::string mount = "/sys/fs/cgroup/cpu,cpuacct";
    root.v1("/sys/fs/cgroup/cpuset/other", "100000", "100000"); // not a cpu hierarchy
    root.v1(mount + "/jobs/one", "-1", "100000");
    CHECK(root.quota() == kNoLimit);
    root.v1(mount + "/jobs/one", "300000", "100000");
    CHECK(root.quota() == doctest::Approx(3));
    root.v1(mount + "/jobs", "250000", "100000");
    CHECK(root.quota() == doctest::Approx(2.5));
}

TEST_CASE("kernel quota: with both versions mounted the limit is found in either") {
    const FakeRoot root;
    root.file("/proc/self/cgroup", "4:cpu:/one\n0::/two\n");
    root.file("/proc/self/mountinfo", "33 31 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
                                      "34 31 0:31 / /cg/unified rw - cgroup2 cgroup2 rw\n");
    root.v1("/cg/cpu/one", "400000", "100000");
    CHECK(root.quota() == doctest::Approx(4));
    root.file("/cg/unified/two/cpu.max", "200000 100000\n");
    CHECK(root.quota() == doctest::Approx(2));
}

TEST_CASE("kernel quota: a mount shows only a part, or nothing, of our path") {
    const FakeRoot root;
    root.file("/proc/self/cgroup", "4:cpu:/docker/abc/inner\n");
    root.file("/proc/self/mountinfo",
              "32 31 0:29 /docker/abcd /cg/wrong rw - cgroup cgroup rw,cpu\n"
              "33 31 0:30 /docker/abc /cg/cpu rw - cgroup cgroup rw,cpu\n");
    root.v1("/cg/wrong", "100000", "100000");
    root.v1("/cg/cpu/inner", "300000", "100000");
    root.v1("/cg/cpu", "200000", "100000");
    CHECK(root.quota() == doctest::Approx(2));
    // Outside of the cgroup namespace's root: the mount is all there is to see.
    root.file("/proc/self/cgroup", "4:cpu:/../elsewhere\n");
    root.file("/proc/self/mountinfo", "33 31 0:30 / /cg/cpu rw - cgroup cgroup rw,cpu\n");
    CHECK(root.quota() == doctest::Approx(2));
}

TEST_CASE("kernel quota: paths with spaces and colons") {
    const FakeRoot root;
    root.file("/proc/self/cgroup", "0::/a:b\n");
    root.file("/proc/self/mountinfo", "30 23 0:26 / /cg\\040two rw - cgroup2 cgroup2 rw\n");
    root.file("/cg two/a:b/cpu.max", "70000 10000\n");
    CHECK(root.quota() == doctest::Approx(7));
}

TEST_CASE("kernel quota: one that is read again and again follows changes and moves") {
    const FakeRoot root;
    CpuQuota quota(root.path());
    CHECK(quota.read() == kNoLimit);
    root.file("/proc/self/mountinfo", std::string(kV2Mount) + kV1Mount);
    root.file("/proc/self/cgroup", "0::/a\n");
    root.file("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
    CHECK(quota.read() == doctest::Approx(1.5));
    root.file("/sys/fs/cgroup/a/cpu.max", "400000 100000\n");
    CHECK(quota.read() == doctest::Approx(4));
    root.file("/sys/fs/cgroup/b/cpu.max", "700000 100000\n");
    root.file("/proc/self/cgroup", "0::/b\n");
    CHECK(quota.read() == doctest::Approx(7));
    root.file("/sys/fs/cgroup/b/cpu.max", "max 100000\n");
    CHECK(quota.read() == kNoLimit);
}
