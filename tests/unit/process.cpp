// SPDX-License-Identifier: Apache-2.0
//
// What a process may do while goroutines run: exec, spawn, exit; forks are in process_fork.cpp.
// Each case is a process of its own (support/child.hpp), and makes further ones.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/child.hpp"
#include "support/process.hpp"

using namespace std::chrono_literals;
using namespace child_process;
using namespace process_test;

// ---- exec and spawn ----

TEST_CASE("child: starts programs" * doctest::skip()) {
    static char echo[] = "exit 7";
    static char* const argv[] = {const_cast<char*>("sh"), const_cast<char*>("-c"), echo, nullptr};
    const auto spawned = [] {
        pid_t pid = 0;
        CHECK(posix_spawn(&pid, "/bin/sh", nullptr, nullptr, argv, environ) == 0);
        return wait_for(pid);
    };
    const auto vforked = [] {
        const pid_t pid = vfork();
        if (pid == 0) {
            execv("/bin/sh", argv);
            _exit(99);
        }
        return wait_for(pid);
    };
    const auto forked = [] {
        const pid_t pid = fork();
        if (pid == 0) {
            execv("/bin/sh", argv);
            _exit(99);
        }
        return wait_for(pid);
    };
    const auto system_ = [] { return WEXITSTATUS(std::system(echo)); };
    const auto popened = [] {
        FILE* pipe = popen("echo hello; exit 7", "r");
        char text[16] = {};
        CHECK(std::fgets(text, sizeof text, pipe) != nullptr);
        CHECK(std::string(text) == "hello\n");
        return WEXITSTATUS(pclose(pipe));
    };
    baton::run([&] {
        Storm storm;
        WaitGroup wg;
        for (int i = 0; i < 3; i++) {
            wg.go([&] {
                CHECK(spawned() == 7);
                CHECK(vforked() == 7);
                CHECK(forked() == 7);
                CHECK(popened() == 7);
                CHECK(baton::blocking(popened) == 7);
                CHECK(system_() == 7);
                CHECK(baton::blocking(system_) == 7);
            });
        }
        wg.wait();
    });
    CHECK(works());
    reached();
}
TEST_CASE("process: fork, vfork, posix_spawn, system and popen from goroutines") {
    check_child("starts programs", 30s);
}

TEST_CASE("child: execs" * doctest::skip()) {
    baton::run([] {
        Storm storm;
        while (storm.turns.load() < 100) baton::yield();
        std::string text = kReached;
        execl("/bin/sh", "sh", "-c", "echo $0 >&2; exit 7", text.c_str(), nullptr);
    });
}
TEST_CASE("process: exec from a goroutine replaces the process") {
    const Child child = run_child("execs");
    INFO(child.output);
    CHECK(child.exited(7));
    CHECK(child.has(kReached));
}

// ---- the end ----

namespace {

/// Uses the runtime after main, by a plain thread, as exit may have been called anywhere.
struct Last {
    ~Last() {
        if (!armed) return;
        bool well = false;
        baton::blocking([&] { std::thread([&] { well = works(); }).join(); });
        std::fprintf(stderr, well ? "destroyed\n" : "broken\n");
    }
    bool armed = false;
} last;

/// Threads of this process in SCHED_IDLE.
int sched_idle_threads() {
    int n = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
        n += sched_getscheduler(std::stoi(task.path().filename())) == SCHED_IDLE;
    return n;
}
bool tells_of_exit = false;
void say_at_exit() {
    std::fprintf(stderr, "atexit\nat the end %d in SCHED_IDLE\n", sched_idle_threads());
}
void say_at_quick_exit() {
    std::fprintf(stderr, "at_quick_exit\nat the end %d in SCHED_IDLE\n", sched_idle_threads());
}

/// Starts goroutines that go on to the end, and comes back.
void leave_storm() {
    std::atexit(say_at_exit);
    std::at_quick_exit(say_at_quick_exit);
    last.armed = true;
    baton::run([] {
        static auto* storm = new Storm; // for ever
        while (storm->turns.load() < 100) baton::yield();
        if (baton::assist_tier() == baton::Assist::kProbe)
            CHECK(access(("/sys/fs/bpf/baton/" + std::to_string(getpid())).c_str(), F_OK) == 0);
    });
    std::fprintf(stderr, "%d in SCHED_IDLE\n", sched_idle_threads());
    std::fprintf(stderr, "pid %d\n", getpid());
}

bool pins_are_gone(const Child& child) {
    const std::size_t at = child.output.find("pid ");
    if (at == std::string::npos) return false;
    const std::string pid = std::to_string(std::stol(child.output.substr(at + 4)));
    return access(("/sys/fs/bpf/baton/" + pid).c_str(), F_OK) != 0;
}

} // namespace

TEST_CASE("child: exits on a goroutine" * doctest::skip()) {
    leave_storm();
    baton::run([] { std::exit(5); });
}
TEST_CASE("child: exits in a bracket" * doctest::skip()) {
    leave_storm();
    baton::run([] { baton::blocking([] { std::exit(5); }); });
}
TEST_CASE("child: exits on main" * doctest::skip()) {
    leave_storm();
    std::exit(5);
}
TEST_CASE("child: exits on a thread" * doctest::skip()) {
    leave_storm();
    std::thread([] { std::exit(5); }).join();
}
TEST_CASE("child: main returns" * doctest::skip()) { leave_storm(); }
TEST_CASE("child: quick_exits" * doctest::skip()) {
    leave_storm();
    baton::run([] { std::quick_exit(5); });
}
/// Its understudies come up as it ends: where others want the CPU, they have not had it since who
/// started them put them in SCHED_IDLE.
TEST_CASE("child: exits as it starts" * doctest::skip()) {
    std::atexit([] {
        std::this_thread::sleep_for(50ms); // they come to the CPU now
        say_at_exit();
    });
    for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); i++)
        std::thread([] {
            for (;;) __builtin_ia32_pause();
        }).detach();
    baton::run([] {});
    std::exit(5);
}
/// By this the runtime ends a process that panics.
extern "C" void _exit(int status) {
    if (tells_of_exit) std::fprintf(stderr, "at the end %d in SCHED_IDLE\n", sched_idle_threads());
    ::syscall(SYS_exit_group, status);
    __builtin_unreachable();
}
TEST_CASE("child: panics" * doctest::skip()) {
    leave_storm();
    tells_of_exit = true;
    baton::run([] {
        baton::go([] { throw std::runtime_error("nobody catches it"); });
        baton::sleep_for(1min);
    });
}
TEST_CASE("child: leaves at once" * doctest::skip()) {
    leave_storm();
    baton::run([] { _exit(5); });
}

TEST_CASE("process: exit and the end of main run handlers and destructors while goroutines go on") {
    const std::vector<std::pair<const char*, int>> ways = {
        {"exits on a goroutine", 5}, {"exits in a bracket", 5}, {"exits on main", 5},
        {"exits on a thread", 5},    {"main returns", 0},
    };
    for (const auto& way : ways) {
        const char* title = way.first;
        const int code = way.second;
        for (int i = 0; i < 3; i++) {
            const Child child = run_child(title);
            INFO(title << "\n" << child.output);
            CHECK(!child.hung);
            CHECK(child.exited(code));
            CHECK(child.has("atexit\n"));
            CHECK(child.has("destroyed\n"));
            CHECK(pins_are_gone(child));
        }
    }
}
TEST_CASE("process: quick_exit runs its own handlers, _exit none") {
    const Child quick = run_child("quick_exits");
    INFO(quick.output);
    CHECK(quick.exited(5));
    CHECK(quick.has("at_quick_exit\n"));
    CHECK(!quick.has("atexit\n"));
    CHECK(pins_are_gone(quick));
    const Child at_once = run_child("leaves at once");
    CHECK(at_once.exited(5));
    CHECK(!at_once.has("atexit\n"));
}
// The kernel reports the end when each thread has had a CPU once more, for which one in SCHED_IDLE
// waits seconds among busy processes.
TEST_CASE("process: at the end no thread is in SCHED_IDLE") {
    bool may = false;
    std::thread([&may] {
        const sched_param param{};
        may = sched_setscheduler(0, SCHED_IDLE, &param) == 0 &&
              sched_setscheduler(0, SCHED_OTHER, &param) == 0;
    }).join();
    if (!may) {
        MESSAGE("SKIPPED: SCHED_IDLE is not to be had here, or not to be left (CAP_SYS_NICE)");
        return;
    }
    const bool none = baton::run([] { return baton::assist_tier(); }) == baton::Assist::kSysmon;
    for (const char* title : {"exits on main", "quick_exits", "panics"}) {
        const Child child = run_child(title);
        INFO(title << "\n" << child.output);
        CHECK(child.has("\n0 in SCHED_IDLE\n") == none);
        CHECK(child.has("at the end 0 in SCHED_IDLE\n"));
    }
    for (int round = 0; round < 3; round++) {
        const Child child = run_child("exits as it starts");
        INFO(child.output);
        CHECK(child.has("at the end 0 in SCHED_IDLE\n"));
    }
}
