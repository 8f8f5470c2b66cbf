// SPDX-License-Identifier: Apache-2.0
//
// Features, rseq and membarrier. Much of it can only be seen from the start of a process, so
// these tests run this very program again with another environment and one of the cases below
// whose titles begin with "child". Those are skipped otherwise.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/cpus.hpp"
#include "kernel/features.hpp"
#include "kernel/futex.hpp"
#include "kernel/membarrier.hpp"
#include "kernel/rseq.hpp"
#include "kernel/sched_class.hpp"
#include "kernel/stackmem.hpp"

using namespace baton::kernel;

namespace {

struct ChildEnd {
    int status;         ///< as waitpid has it
    std::string output; ///< stdout and stderr
};

/// Runs the test case `title` in a new process, with `variables` ("NAME=value") before ours.
ChildEnd run_child(const std::string& title, std::vector<std::string> variables) {
    const std::string filter = "--test-case=" + title;
    const char* argv[] = {"child", filter.c_str(), "--no-skip", nullptr};
    std::vector<char*> environment;
    environment.reserve(variables.size() + 64);
    for (std::string& variable : variables) environment.push_back(variable.data());
    for (char** entry = environ; *entry != nullptr; ++entry) {
        if (std::strncmp(*entry, "BATON_DISABLE=", 14) == 0) continue;
        if (std::strncmp(*entry, "GLIBC_TUNABLES=", 15) == 0) continue;
        environment.push_back(*entry);
    }
    environment.push_back(nullptr);

    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    pid_t child = 0;
    const int error = posix_spawn(&child, "/proc/self/exe", &actions, nullptr,
                                  const_cast<char**>(argv), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    REQUIRE(error == 0);

    ChildEnd end{};
    char buffer[1024];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
        end.output.append(buffer, static_cast<std::size_t>(n));
    }
    close(ends[0]);
    REQUIRE(waitpid(child, &end.status, 0) == child);
    return end;
}

/// The child must say so itself: a filter that matches nothing ends with status 0 as well.
constexpr const char* kReached = "child reached its end\n";
void reached() { std::fputs(kReached, stderr); }

void check_child(const std::string& title, const std::vector<std::string>& variables) {
    const ChildEnd end = run_child(title, variables);
    INFO(end.output);
    CHECK(WIFEXITED(end.status));
    CHECK(WEXITSTATUS(end.status) == 0);
    CHECK(end.output.find(kReached) != std::string::npos);
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// On each CPU in turn the area must name that CPU.
void check_follows_cpu(const RseqArea* area) {
    for (const int cpu : allowed_cpus()) {
        REQUIRE(pin_thread(cpu) == 0);
        CHECK(area->cpu_id == static_cast<std::uint32_t>(cpu));
        CHECK(area->cpu_id_start == static_cast<std::uint32_t>(cpu));
        CHECK(sched_getcpu() == cpu);
    }
}

} // namespace

TEST_CASE("kernel features: the list names every feature once and agrees with features()") {
    const std::vector<FeatureInfo> list = feature_list();
    CHECK(list.size() == sizeof(Features) / sizeof(bool));
    std::set<std::string> names;
    for (const FeatureInfo& info : list) {
        const std::string line =
            std::string(info.name) + (info.usable ? ": yes " : ": NO ") + info.detail;
        MESSAGE(line);
        names.insert(info.name);
        if (!info.usable) CHECK(!info.detail.empty());
        if (info.name == std::string("rseq")) CHECK(info.usable == features().rseq);
        if (info.name == std::string("sched_idle")) CHECK(info.usable == features().sched_idle);
    }
    CHECK(names.size() == list.size());
}

TEST_CASE("kernel features: BATON_DISABLE switches off what it names, and nothing else") {
    check_child("child: rseq and futex2 are off",
                {"BATON_DISABLE=rseq, futex2,,guard_pages,futex_waitv,sched_idle,sleepers"});
}

TEST_CASE("child: rseq and futex2 are off" * doctest::skip()) {
    CHECK(!features().rseq);
    CHECK(!features().futex2);
    CHECK(!features().guard_pages);
    CHECK(!features().futex_waitv);
    for (const FeatureInfo& info : feature_list()) {
        const bool off = info.detail == "switched off by BATON_DISABLE";
        const std::string name = info.name;
        CHECK(off == (name == "rseq" || name == "futex2" || name == "guard_pages" ||
                      name == "futex_waitv" || name == "sched_idle" || name == "sleepers"));
    }
    RseqArea own;
    CHECK(rseq_attach(&own) == nullptr);
    CHECK(own.cpu_id == kRseqCpuUninitialized);
    CHECK(futex_call() == FutexCall::kFutex);
    const std::atomic<std::uint32_t> word{1};
    CHECK(futex_wait(&word, 0) == -EAGAIN);
    CHECK(futex_wake(&word, 1) == 0);
    const FutexWaiter waiter{&word, 1};
    CHECK(futex_waitv({&waiter, 1}) == -ENOSYS);
    CHECK(become_sched_idle() == -ENOSYS);
    // mprotect in place of guard pages: the mapping is split, and /proc shows the hole.
    void* page = reserve(2 * page_size());
    REQUIRE(page != nullptr);
    CHECK(install_guard(page, page_size()) == 0);
    char line[64];
    std::snprintf(line, sizeof line, "%lx-%lx ---p", reinterpret_cast<unsigned long>(page),
                  reinterpret_cast<unsigned long>(page) + page_size());
    std::FILE* maps = std::fopen("/proc/self/maps", "r");
    REQUIRE(maps != nullptr);
    bool hole = false;
    for (char text[512]; std::fgets(text, sizeof text, maps) != nullptr;) {
        hole = hole || std::strncmp(text, line, std::strlen(line)) == 0;
    }
    std::fclose(maps);
    CHECK(hole);
    release(page, 2 * page_size());
    reached();
}

TEST_CASE("kernel features: an unknown name in BATON_DISABLE is told, once, and ignored") {
    const ChildEnd end = run_child("child: io_uring is off", {"BATON_DISABLE=io_uring,warp_drive"});
    INFO(end.output);
    CHECK(end.status == 0);
    CHECK(contains(end.output, kReached));
    const std::string line = "baton: BATON_DISABLE=io_uring,warp_drive: unknown feature "
                             "'warp_drive'; known: fsgsbase,rseq,";
    const std::size_t at = end.output.find(line);
    CHECK(at != std::string::npos);
    CHECK(end.output.find("unknown feature", at + line.size()) == std::string::npos);
}

TEST_CASE("child: io_uring is off" * doctest::skip()) {
    CHECK(!features().io_uring);
    CHECK(!features().io_uring);
    reached();
}

TEST_CASE("kernel rseq: the C library's area follows the CPU") {
    if (rseq_libc_area() == nullptr || !features().rseq) {
        MESSAGE("SKIPPED: the C library registered none here, or rseq is switched off");
        return;
    }
    std::thread([] {
        RseqArea own;
        RseqArea* area = rseq_attach(&own);
        REQUIRE(area != nullptr);
        CHECK(area != &own);
        CHECK(area == rseq_libc_area());
        check_follows_cpu(area);
        // Not ours to unregister, by either name.
        rseq_detach(&own);
        rseq_detach(area);
        CHECK(rseq_libc_area() == area);
    }).join();
}

TEST_CASE("kernel rseq: a second area on a thread is refused by the kernel") {
    if (rseq_libc_area() == nullptr) {
        MESSAGE("SKIPPED: the C library registered none here");
        return;
    }
    RseqArea second;
    CHECK(rseq_register(&second) == -EINVAL);
    CHECK(rseq_attach(nullptr) == (features().rseq ? rseq_libc_area() : nullptr));
    CHECK(rseq_feature_size() >= 20);
}

TEST_CASE("kernel rseq: without the C library's area ours is registered") {
    if (!features().rseq) {
        MESSAGE("SKIPPED: no rseq here, or switched off");
        return;
    }
    check_child("child: own rseq area", {"GLIBC_TUNABLES=glibc.pthread.rseq=0"});
}

TEST_CASE("child: own rseq area" * doctest::skip()) {
    REQUIRE(rseq_libc_area() == nullptr);
    CHECK(features().rseq);
    CHECK(rseq_attach(nullptr) == nullptr);
    std::thread([] {
        RseqArea own;
        REQUIRE(rseq_attach(&own) == &own);
        check_follows_cpu(&own);
        CHECK(rseq_attach(&own) == &own); // again is the same
        RseqArea second;
        CHECK(rseq_attach(&second) == nullptr);
        rseq_detach(&second); // never registered: nothing happens
        CHECK(rseq_unregister(&second) != 0);
        rseq_detach(&own);
        CHECK(own.cpu_id == kRseqCpuUninitialized);
        rseq_detach(&own);
        REQUIRE(rseq_attach(&second) == &second);
        rseq_detach(&second);
    }).join();
    reached();
}

TEST_CASE("kernel membarrier: restarts one CPU, all, and one that is not there") {
    if (!features().membarrier_rseq) {
        MESSAGE("SKIPPED: no membarrier for rseq here, or switched off");
        CHECK(membarrier_register() == -ENOSYS);
        return;
    }
    CHECK(membarrier_register() == 0);
    CHECK(membarrier_register() == 0);
    for (const int cpu : allowed_cpus()) membarrier_rseq_cpu(cpu);
    membarrier_rseq_cpu(-1);
    membarrier_rseq_cpu(possible_cpus() + 1000);
    const pid_t child = fork();
    if (child == 0) {
        membarrier_rseq_cpu(0); // inherited, or this aborts
        _exit(0);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}

TEST_CASE("kernel membarrier: unregistered, it aborts and says with what") {
    if (!features().membarrier_rseq) {
        MESSAGE("SKIPPED: no membarrier for rseq here, or switched off");
        return;
    }
    const ChildEnd end =
        run_child("child: membarrier unregistered", {"BATON_DISABLE=membarrier_rseq"});
    INFO(end.output);
    CHECK(WIFSIGNALED(end.status));
    CHECK(WTERMSIG(end.status) == SIGABRT);
    CHECK(contains(end.output, "baton: membarrier refused: result=-1 cpu=0\n"));
}

TEST_CASE("child: membarrier unregistered" * doctest::skip()) {
    CHECK(membarrier_register() == -ENOSYS);
    membarrier_rseq_cpu(0);
    reached();
}
