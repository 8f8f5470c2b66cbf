// SPDX-License-Identifier: Apache-2.0
//
// The number of processors while goroutines run: set to anything, and following what the machine
// offers: the affinity mask and the cgroup's quota.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "assist/understudy.hpp"
#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "kernel/cpus.hpp"
#include "runtime/sched.hpp"
#include "support/child.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using namespace child_process;
using namespace baton;
using procs_test::eventually;
using procs_test::over_procs;
using Clock = std::chrono::steady_clock;

namespace {

/// Goroutines of every kind, each counting its rounds, until told to end.
class Load {
public:
    Load() {
        for (int i = 0; i < kEach; i++) {
            start(0, [] { yield(); });
            start(1, [] { blocking([] { usleep(200); }); });
            start(2, [] { sleep_for(100us); });
            start(3, [this] {
                WaitGroup few;
                for (int n = 0; n < 10; n++) few.go([this] { spawned_.fetch_add(1); });
                few.wait();
                expected_.fetch_add(10);
            });
            start(4, [this] {
                std::lock_guard guard(mutex_);
                yield();
                guarded_++;
            });
            start(5, [this] { channel_.send(1); });
            start(6, [this] {
                if (!channel_.recv()) sleep_for(1ms);
            });
        }
    }
    /// Ends them; true if every kind went on to the end and nothing was lost.
    bool end() {
        stop_.store(true);
        channel_.close();
        wg_.wait();
        bool well = spawned_.load() == expected_.load() && guarded_ == rounds_[4].load();
        for (const auto& n : rounds_) well = well && n.load() > 0;
        return well;
    }
    /// Each kind has gone round once more.
    void lap() {
        long before[kKinds];
        for (int k = 0; k < kKinds; k++) before[k] = rounds_[k].load();
        for (int k = 0; k < kKinds; k++) {
            while (rounds_[k].load() == before[k]) yield();
        }
    }

private:
    static constexpr int kKinds = 7;
    static constexpr int kEach = 6;

    template <class F>
    void start(int kind, F f) {
        wg_.go([this, kind, f] {
            try {
                while (!stop_.load()) {
                    f();
                    rounds_[kind].fetch_add(1);
                }
            } catch (const ChanClosed&) {
            }
        });
    }
    std::atomic<bool> stop_{false};
    std::atomic<long> rounds_[kKinds] = {};
    std::atomic<long> spawned_{0}, expected_{0};
    long guarded_ = 0;
    Mutex mutex_;
    Chan<int> channel_{4};
    WaitGroup wg_;
};

/// What `taskset -a -p` does.
void set_mask(const std::vector<int>& cpus) {
    DIR* dir = opendir("/proc/self/task");
    while (const dirent* entry = readdir(dir)) {
        if (entry->d_name[0] != '.') (void)kernel::set_affinity(cpus, std::atoi(entry->d_name));
    }
    closedir(dir);
}

void print_skips(const Child& child) {
    const std::size_t at = child.output.find("skip: ");
    if (at != std::string::npos) std::printf("%s", child.output.substr(at).c_str());
}

/// Our threads of this name.
std::vector<int> threads_named(const std::string& name) {
    std::vector<int> tids;
    DIR* dir = opendir("/proc/self/task");
    while (const dirent* entry = readdir(dir)) {
        std::string its;
        std::getline(std::ifstream(std::string("/proc/self/task/") + entry->d_name + "/comm"), its);
        if (its == name) tids.push_back(std::atoi(entry->d_name));
    }
    closedir(dir);
    return tids;
}

/// May each M use these CPUs, and no others?
bool ms_on(const std::vector<int>& cpus) {
    const std::vector<int> ms = threads_named("baton/m");
    return std::all_of(ms.begin(), ms.end(),
                       [&](int tid) { return kernel::allowed_cpus(tid) == cpus; });
}

/// Is there an understudy on each of these CPUs, pinned?
bool understudies_on(const std::vector<int>& cpus) {
    return std::all_of(cpus.begin(), cpus.end(), [](int cpu) {
        const std::vector<int> there = threads_named("baton/us" + std::to_string(cpu));
        return !there.empty() && kernel::allowed_cpus(there.front()) == std::vector<int>{cpu};
    });
}

/// May the understudies of these CPUs run nowhere but on `cpu`?
bool understudies_moved(const std::vector<int>& cpus, int cpu) {
    return std::all_of(cpus.begin(), cpus.end(), [cpu](int its) {
        const std::vector<int> there = threads_named("baton/us" + std::to_string(its));
        return there.empty() || kernel::allowed_cpus(there.front()) == std::vector<int>{cpu};
    });
}

/// A cgroup for this process, of version 1 or else 2, or none.
class Cgroup {
public:
    Cgroup(const std::string& controller, const std::string& file_v1, const std::string& file_v2)
        : name_("/baton-test-" + std::to_string(getpid())) {
        enter("/sys/fs/cgroup/" + controller, file_v1);
        if (!usable()) enter("/sys/fs/cgroup", file_v2);
        v2_ = usable() && top_ == "/sys/fs/cgroup";
    }
    ~Cgroup() {
        if (!usable()) return;
        put(top_ + "/cgroup.procs", std::to_string(getpid()));
        rmdir((top_ + name_).c_str());
    }
    bool usable() const { return !file_.empty(); }
    bool v2() const { return v2_; }
    bool write(const std::string& text) const { return put(file_, text); }

private:
    static bool put(const std::string& path, const std::string& text) {
        std::ofstream out(path);
        out << text << std::flush;
        return out.good();
    }
    void enter(const std::string& top, const std::string& file) {
        const std::string path = top + name_;
        if (mkdir(path.c_str(), 0755) != 0) return;
        for (const char* set : {"/cpuset.cpus", "/cpuset.mems"}) { // version 1 begins with none
            std::string all;
            if (std::getline(std::ifstream(top + set), all)) put(path + set, all);
        }
        const bool there = access((path + file).c_str(), W_OK) == 0;
        if (there && put(path + "/cgroup.procs", std::to_string(getpid()))) {
            top_ = top;
            file_ = path + file;
        } else {
            rmdir(path.c_str());
        }
    }
    std::string name_, top_, file_;
    bool v2_ = false;
};

/// The load on a thread of its own, which starts the runtime.
class Loaded {
public:
    Loaded() : thread_([this] { run(); }) {
        CHECK(eventually([this] { return began_.load(); }));
    }
    ~Loaded() { end(); }
    Loaded(const Loaded&) = delete;
    Loaded& operator=(const Loaded&) = delete;
    void end() {
        if (!thread_.joinable()) return;
        stop_.store(true);
        thread_.join();
        CHECK(well_.load());
    }

private:
    void run() {
        baton::run([this] {
            began_.store(true);
            Load load;
            while (!stop_.load()) sleep_for(1ms);
            well_.store(load.end());
        });
    }

    std::atomic<bool> began_{false}, stop_{false}, well_{false};
    std::thread thread_;
};

} // namespace

TEST_CASE("procresize: from 1 to 1024 and back, under load of every kind") {
    baton::run([] {
        Load load;
        const int steps[] = {1, 1024, 1, 2, 1023, 3, 512, 64, 1024, 2, 1, 16};
        for (const int n : steps) {
            set_max_procs(n);
            CHECK(max_procs() == n);
            load.lap();
        }
        std::uint32_t random = 12345;
        for (int i = 0; i < 100; i++) {
            random = random * 1664525 + 1013904223;
            set_max_procs(static_cast<int>(random >> 16) % (i % 10 ? 8 : 1024) + 1);
            if (i % 10 == 0) load.lap();
        }
        set_max_procs(2);
        CHECK(load.end());
    });
    CHECK(eventually([] { return stats().goroutines == 0; }));
}

TEST_CASE("procresize: several goroutines may change it at once, and timers go with it") {
    baton::run([] {
        WaitGroup wg;
        std::atomic<int> late{0};
        for (int i = 0; i < 50; i++) {
            wg.go([&] {
                for (int n = 0; n < 20; n++) {
                    const auto start = Clock::now();
                    sleep_for(5ms);
                    if (Clock::now() - start > 2s) late.fetch_add(1);
                }
            });
        }
        for (int i = 0; i < 4; i++) {
            wg.go([i] {
                for (int n = 0; n < 50; n++) {
                    set_max_procs(1 + (n * 7 + i * 3) % 40);
                    sleep_for(1ms);
                }
            });
        }
        wg.wait();
        CHECK(late.load() == 0);
        set_max_procs(2);
    });
}

// TestStopTheWorldDeadlock
TEST_CASE("procresize: two that stop the world beside one that starts itself again and again") {
    over_procs([](int procs) {
        std::atomic<bool> stop{false};
        WaitGroup stoppers, perpetual;
        std::function<void()> again = [&] {
            if (!stop.load()) perpetual.go([&] { again(); });
        };
        perpetual.go([&] { again(); });
        for (int i = 0; i < 2; i++) {
            stoppers.go([procs] {
                for (int n = 0; n < 300; n++) set_max_procs(procs);
            });
        }
        stoppers.wait();
        CHECK(max_procs() == procs);
        stop.store(true);
        perpetual.wait();
    });
}

// ---- following ----

TEST_CASE("child: follows the mask" * doctest::skip()) {
    const std::vector<int> all = kernel::allowed_cpus();
    const int machine = static_cast<int>(all.size());
    REQUIRE(max_procs() == kernel::default_procs());
    Loaded loaded;
    const auto arm_first = [&] {
        assist::understudies.arm(static_cast<std::uint32_t>(all.front()));
        std::this_thread::sleep_for(5ms); // that it may have run
    };
    for (int i = 0; i < 2; i++) {
        set_mask({all.back()});
        CHECK(eventually([] { return max_procs() == 1; }));
        CHECK(eventually([&] { return ms_on({all.back()}); }));
        arm_first();
        CHECK(eventually([&] { return understudies_moved(all, all.back()); }));
        arm_first(); // it does not go back
        CHECK(eventually([&] { return understudies_moved(all, all.back()); }));
        set_mask(all);
        CHECK(
            eventually([&] { return max_procs() == std::min(machine, kernel::default_procs()); }));
        CHECK(eventually([&] { return ms_on(all); }));
    }
    if (assist_tier() != Assist::kSysmon) { // the understudies are where they belong again
        CHECK(eventually([&] { return understudies_on(all); }));
        // As the kernel does it with one that is runnable where a CPU goes offline.
        const std::string first = "baton/us" + std::to_string(all.front());
        CHECK(kernel::set_affinity({all.back()}, threads_named(first).front()) == 0);
        CHECK(eventually([&] {
            arm_first();
            return understudies_on(all);
        }));
    }
    loaded.end();
    baton::run([] { set_max_procs(3); }); // from here on it is fixed
    set_mask({all.front()});
    std::this_thread::sleep_for(2500ms);
    CHECK(max_procs() == 3);
    reached();
}
TEST_CASE(
    "procresize: a changed affinity mask changes the number of processors, unless it is set") {
    if (kernel::allowed_cpus().size() < 2) {
        std::printf("skip: one CPU: no mask to change\n");
        return;
    }
    auto fixed =
        std::async(std::launch::async, [] { return run_child("is fixed", {"BATON_MAXPROCS=5"}); });
    auto cpuset = std::async(std::launch::async,
                             [] { return run_child("follows its cpuset", {"BATON_MAXPROCS="}); });
    check_works(run_child("follows the mask", {"BATON_MAXPROCS="}, 60s));
    check_works(fixed.get());
    const Child child = cpuset.get();
    check_works(child);
    print_skips(child);
}
TEST_CASE("child: follows its cpuset" * doctest::skip()) {
    const std::vector<int> all = kernel::allowed_cpus();
    const Cgroup group("cpuset", "/cpuset.cpus", "/cpuset.cpus");
    if (!group.usable() || !group.write(std::to_string(all.front()))) {
        std::printf("skip: no writable cgroup with the cpuset controller\n");
        reached();
        return;
    }
    Loaded loaded;
    // What has been steered once is bound to what it was let go to then.
    if (assist_tier() != Assist::kSysmon) {
        const bool steered = eventually([] {
            rt::LockGuard guard(rt::sched.mlock);
            return std::any_of(rt::sched.allm, std::end(rt::sched.allm),
                               [](const rt::M* m) { return m && m->cpus.load(); });
        });
        CHECK((steered || assist_tier() == Assist::kUnderstudy));
        if (!steered) std::printf("skip: no M was steered: the understudy got no CPU\n");
    }
    CHECK(max_procs() == 1);
    std::string list;
    for (const int cpu : all) list += std::to_string(cpu) + ",";
    REQUIRE(group.write(list));
    CHECK(eventually([&] { return max_procs() == static_cast<int>(all.size()); }));
    CHECK(eventually([&] { return ms_on(all); }));
    loaded.end();
    reached();
}
TEST_CASE("child: is fixed" * doctest::skip()) {
    baton::run([] {});
    set_mask({kernel::allowed_cpus().front()});
    std::this_thread::sleep_for(2500ms);
    CHECK(max_procs() == 5);
    reached();
}

TEST_CASE("child: follows the quota" * doctest::skip()) {
    kernel::CpuQuota quota;
    const double before = quota.read();
    const int machine = max_procs();
    {
        const Cgroup group("cpu", "/cpu.cfs_quota_us", "/cpu.max");
        if (!group.usable()) {
            std::printf("skip: no writable cgroup with the cpu controller\n");
            reached();
            return;
        }
        Loaded loaded;
        const std::string of = group.v2() ? " 100000" : "";
        CHECK(quota.read() == before);
        REQUIRE(group.write("150000" + of));
        CHECK(quota.read() == doctest::Approx(std::min(before, 1.5)));
        // Two at least: only a larger machine sees a difference.
        CHECK(eventually([&] { return max_procs() == std::min(machine, 2); }));
        REQUIRE(group.write("300000" + of));
        CHECK(quota.read() == doctest::Approx(std::min(before, 3.0)));
        CHECK(eventually([&] { return max_procs() == std::min(machine, 3); }));
        REQUIRE(group.write(group.v2() ? "max" : "-1"));
        CHECK(quota.read() == before);
        CHECK(eventually([&] { return max_procs() == machine; }));
        // Whatever it has become, the next look puts it right.
        CHECK(eventually([&] {
            rt::follow_procs(7); // nothing comes of it while the last change is still under way
            return max_procs() == 7;
        }));
        CHECK(eventually([&] { return max_procs() == machine; }));
        loaded.end();
    }
    CHECK(quota.read() == before);
    if (machine < 3) std::printf("skip: two CPUs: a quota changes nothing there\n");
    reached();
}
TEST_CASE("procresize: a changed cgroup quota changes the number of processors") {
    const Child child = run_child("follows the quota", {"BATON_MAXPROCS="}, 60s);
    check_works(child);
    print_skips(child);
}
