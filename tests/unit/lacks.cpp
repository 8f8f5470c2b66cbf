// SPDX-License-Identifier: Apache-2.0
//
// What the kernel does not give a process that it could do with: which tier it runs in then, what
// it says of that, and that it works. Each case is a process of its own.
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/child.hpp"
#include "support/confine.hpp"
#include "support/seccomp.hpp"

using namespace child_process;
using namespace confine;
using seccomp_test::refuse;

namespace {

/// Do goroutines that block on one processor?
bool works() {
    return baton::run([] {
        baton::set_max_procs(1);
        std::atomic<int> n{0};
        baton::WaitGroup wg;
        for (int i = 0; i < 10; i++) {
            wg.go([&] {
                baton::blocking([] { ::usleep(2000); });
                n.fetch_add(1);
            });
        }
        wg.wait();
        return n.load() == 10;
    });
}

void still_works() {
    CHECK(works());
    reached();
}

/// What `variables` have a child say: of the tier no more than this, and nothing else.
void check_tier(const char* title, const Strings& variables, const std::string& line) {
    const Child child = run_child(title, variables);
    check_works(child);
    INFO(title << "\n" << child.output);
    CHECK(child.said().empty());
    const Strings said = child.said_of_tier();
    REQUIRE(said.size() == 1);
    CHECK(said[0].starts_with("baton: assist tier is " + line));
}

constexpr const char* kBtf = "/sys/kernel/btf/vmlinux";
constexpr const char* kBpffs = "/sys/fs/bpf";

bool probe_or_skip() {
    if (!root_or_skip()) return false;
    if (::access(kBtf, R_OK) == 0) return true;
    std::printf("skip: no probe: this kernel has no BTF\n");
    return false;
}

bool mounts_or_skip() {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(own_mounts() ? 0 : 1);
    int status = -1;
    ::waitpid(pid, &status, 0);
    if (status == 0) return true;
    std::printf("skip: no mounts of one's own: not permitted\n");
    return false;
}

bool is_bpffs() {
    struct statfs fs;
    REQUIRE(::statfs(kBpffs, &fs) == 0);
    return static_cast<unsigned>(fs.f_type) == BPF_FS_MAGIC;
}

void without_bpffs() {
    REQUIRE(own_mounts());
    while (is_bpffs()) REQUIRE(::umount2(kBpffs, MNT_DETACH) == 0);
}

} // namespace

TEST_CASE("child: works" * doctest::skip()) { still_works(); }
TEST_CASE("child: works and so does a forked child" * doctest::skip()) {
    CHECK(works());
    const pid_t pid = ::fork();
    const bool well = works();
    if (pid == 0) ::_exit(well ? 0 : 1);
    CHECK(well);
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
    reached();
}

TEST_CASE("lacks: one line says which tier it is, why, and what would help") {
    const std::string asks = ", not probe: BATON_ASSIST asks for ";
    const std::string best = "; unset it for the best there is";
    const std::string bpf = "switched off by BATON_DISABLE: take bpf out of it";
    const std::string idle =
        "; no understudies: switched off by BATON_DISABLE: take sched_idle out of it";
    const std::vector<std::pair<Strings, std::string>> cases = {
        {{"BATON_ASSIST=understudy"}, "understudy" + asks + "understudy" + best},
        {{"BATON_ASSIST=sysmon"}, "sysmon" + asks + "sysmon" + best},
        {{"BATON_ASSIST=", "BATON_DISABLE=bpf"}, "understudy, not probe: " + bpf},
        {{"BATON_ASSIST=", "BATON_DISABLE=bpf,sched_idle"}, "sysmon, not probe: " + bpf + idle},
        {{"BATON_ASSIST=understudy", "BATON_DISABLE=sched_idle"},
         "sysmon" + asks + "understudy" + best + idle},
    };
    for (const auto& [variables, line] : cases) check_tier("works", variables, line);
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer lets no forked child start threads\n");
#else
    check_tier("works and so does a forked child", {"BATON_ASSIST=sysmon"}, cases[1].second);
#endif
}

TEST_CASE("lacks: nothing is said of the best there is; without understudies that it is not it") {
    if (!probe_or_skip()) return;
    const Child best = run_child("works", {"BATON_ASSIST=probe"});
    check_works(best);
    CHECK(best.said_of_tier().empty());
    check_tier("works", {"BATON_ASSIST=", "BATON_DISABLE=sched_idle"},
               "probe, without understudies, so processors are passed on some us later: "
               "switched off by BATON_DISABLE: take sched_idle out of it");
}

// ---- refusals ----

TEST_CASE("child: SCHED_IDLE is refused" * doctest::skip()) {
    refuse(SYS_sched_setscheduler, EPERM);
    still_works();
}
TEST_CASE("child: bpf is refused" * doctest::skip()) {
    refuse(SYS_bpf, EPERM);
    still_works();
}
TEST_CASE("child: few descriptors" * doctest::skip()) {
    const int next = ::open("/", O_RDONLY | O_CLOEXEC);
    ::close(next);
    limit(RLIMIT_NOFILE, static_cast<rlim_t>(next) + 8);
    still_works();
}
TEST_CASE("child: no capabilities" * doctest::skip()) {
    REQUIRE(drop_root());
    still_works();
}

// Two starts, of which the first fails with the reason known.
TEST_CASE("child: no capabilities and at first no M" * doctest::skip()) {
    REQUIRE(drop_root());
    limit(RLIMIT_NPROC, 3); // this one, sysmon, the template
    CHECK_THROWS_AS(baton::run([] {}), std::system_error);
    limit(RLIMIT_NPROC, RLIM_INFINITY);
    still_works();
}

TEST_CASE("lacks: whatever is refused, the line names the cure") {
    check_tier("SCHED_IDLE is refused", {"BATON_ASSIST=understudy"},
               "sysmon, not probe: BATON_ASSIST asks for understudy; unset it for the best there "
               "is; no understudies: sched_setscheduler: EPERM (not permitted): no seccomp filter "
               "may forbid it");
    if (!probe_or_skip()) return;
    const Strings best = {"BATON_ASSIST="};
    const std::string line = "understudy, not probe: ";
    check_tier("bpf is refused", best, line + "the kernel refuses (EPERM) though the ");
    const std::string caps = "no CAP_BPF and CAP_PERFMON: run as root or grant them with setcap ";
    check_tier("no capabilities", best, line + caps);
    const Child twice = run_child("no capabilities and at first no M", best);
    check_works(twice);
    REQUIRE(twice.said_of_tier().size() == 1);
    CHECK(twice.said_of_tier()[0].starts_with("baton: assist tier is " + line + caps));
    const Child child = run_child("few descriptors", best);
    check_works(child);
    INFO(child.output);
    REQUIRE(child.said_of_tier().size() == 1);
    CHECK(child.said_of_tier()[0].ends_with(": see ulimit -n"));
}

TEST_CASE("child: few threads" * doctest::skip()) {
    REQUIRE(drop_root(kBpf | kPerfmon));
    limit(RLIMIT_NPROC, 4); // this one, sysmon, the template, one M
    CHECK(works());
    for (int i = 0; i < 3; i++) CHECK(works());
    limit(RLIMIT_NPROC, RLIM_INFINITY); // AddressSanitizer looks for leaks in a thread of its own
    reached();
}

TEST_CASE("lacks: threads refused cost a line for understudies and one for all others") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer has a thread of its own\n");
    return;
#endif
    if (!probe_or_skip()) return;
    const std::string refused = "cannot start a thread (EAGAIN): see ulimit -u and the cgroup's "
                                "pids.max";
    for (const auto& [tier, line] : {
             std::pair("probe", "probe, without understudies, so processors are passed on some us "
                                "later: "),
             std::pair("understudy", "sysmon, not probe: BATON_ASSIST asks for understudy; unset "
                                     "it for the best there is; no understudies: "),
         }) {
        const Child child = run_child("few threads", {std::string("BATON_ASSIST=") + tier});
        check_works(child);
        INFO(child.output);
        REQUIRE(child.said_of_tier().size() == 1);
        CHECK(child.said_of_tier()[0] == "baton: assist tier is " + (line + refused));
        const Strings said = child.said();
        REQUIRE(!said.empty());
        CHECK(said.back().starts_with("baton: " + refused));
    }
}

// ---- mounts ----

TEST_CASE("child: no kernel types" * doctest::skip()) {
    REQUIRE(own_mounts());
    REQUIRE(::mount("none", "/sys/kernel/btf", "tmpfs", 0, nullptr) == 0);
    REQUIRE(::access(kBtf, F_OK) != 0);
    still_works();
}
TEST_CASE("child: no bpffs but the right to mount one" * doctest::skip()) {
    without_bpffs();
    CHECK(works());
    CHECK(is_bpffs());
    CHECK(::access((std::string(kBpffs) + "/baton/" + std::to_string(::getpid()) + "/m").c_str(),
                   F_OK) == 0);
    reached();
}
TEST_CASE("child: no bpffs" * doctest::skip()) {
    without_bpffs();
    REQUIRE(drop_root(kBpf | kPerfmon));
    CHECK(baton::run(baton::assist_tier) == baton::Assist::kProbe);
    CHECK(!is_bpffs());
    reached();
}

TEST_CASE("lacks: without the kernel's types there is no probe, without a bpffs there is one") {
    if (!probe_or_skip() || !mounts_or_skip()) return;
    const Strings best = {"BATON_ASSIST="};
    check_tier("no kernel types", best,
               "understudy, not probe: no kernel types in /sys/kernel/btf/vmlinux: needs a kernel "
               "with CONFIG_DEBUG_INFO_BTF=y, and sysfs mounted");
    const Child mounts = run_child("no bpffs but the right to mount one", best);
    check_works(mounts);
    CHECK(mounts.said().empty());
    const Child none = run_child("no bpffs", best);
    check_works(none);
    CHECK(none.said_of_tier().empty());
    CHECK(none.said() == Strings{"baton: no bpffs on /sys/fs/bpf: Operation not permitted; as "
                                 "root: mount -t bpf bpf /sys/fs/bpf"});
}

// ---- the two capabilities are enough ----

namespace {
/// The probe by a user with CAP_BPF and CAP_PERFMON alone, on a bpffs of its own.
void as_user(const char* mode) {
    without_bpffs();
    REQUIRE(::mount("bpf", kBpffs, "bpf", 0, mode) == 0);
    const std::string dir = std::string(kBpffs) + "/baton";
    REQUIRE(::mkdir(dir.c_str(), 0700) == 0);
    REQUIRE(::chmod(dir.c_str(), 01777) == 0);
    REQUIRE(drop_root(kBpf | kPerfmon));
    REQUIRE(::setpriority(PRIO_PROCESS, 0, -1) != 0); // no CAP_SYS_NICE
    CHECK(baton::run(baton::assist_tier) == baton::Assist::kProbe);
    const baton::Stats before = baton::stats();
    CHECK(works());
    CHECK(baton::stats().handoffs > before.handoffs);
    reached();
}
} // namespace

TEST_CASE("child: two capabilities" * doctest::skip()) { as_user("mode=711"); }
TEST_CASE("child: two capabilities on a bpffs of root" * doctest::skip()) { as_user("mode=700"); }

TEST_CASE("lacks: CAP_BPF and CAP_PERFMON are all that the probe takes") {
    if (!probe_or_skip() || !mounts_or_skip()) return;
    const Child child = run_child("two capabilities", {"BATON_ASSIST="});
    check_works(child);
    CHECK(child.said_of_tier().empty());
    CHECK(child.said().empty());
    const Child pins = run_child("two capabilities on a bpffs of root", {"BATON_ASSIST="});
    check_works(pins);
    CHECK(pins.said_of_tier().empty());
    CHECK(pins.said() == Strings{"baton: /sys/fs/bpf/baton: Permission denied; as root: chmod a+x "
                                 "/sys/fs/bpf; mkdir -pm 1777 /sys/fs/bpf/baton"});
}

// ---- rseq ----

TEST_CASE("child: no membarrier" * doctest::skip()) {
    refuse(SYS_membarrier, ENOSYS);
    still_works();
}
TEST_CASE("child: no rseq" * doctest::skip()) {
    refuse(SYS_rseq, ENOSYS);
    still_works();
}

TEST_CASE("lacks: without rseq one line says what that costs, but not to who asked for it") {
    const Child whole = run_child("works");
    check_works(whole);
    CHECK(whole.said().empty());
    for (const char* feature : {"rseq", "membarrier_rseq"}) {
        const Child asked = run_child("works", {std::string("BATON_DISABLE=") + feature});
        check_works(asked);
        CHECK(asked.said().empty());
    }
    const std::string cost = " (not in this kernel)), so a blocking call takes 5 ns more, ";
    const Child membarrier = run_child("no membarrier");
    check_works(membarrier);
    REQUIRE(membarrier.said().size() == 1);
    CHECK(membarrier.said()[0].starts_with("baton: no membarrier_rseq (membarrier: ENOSYS" + cost));
    const Child rseq = run_child("no rseq", {"GLIBC_TUNABLES=glibc.pthread.rseq=0"});
    check_works(rseq);
    REQUIRE(rseq.said().size() == 1);
    CHECK(rseq.said()[0].starts_with("baton: no rseq (rseq: ENOSYS" + cost));
}
