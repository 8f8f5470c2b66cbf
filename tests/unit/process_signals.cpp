// SPDX-License-Identifier: Apache-2.0
//
// Signals of the program's own, and of those who stop, profile and debug it, while goroutines
// switch, park and block.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <dirent.h>
#include <execinfo.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/child.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::Conn;
using baton::Listener;
using baton::WaitGroup;
using Clock = std::chrono::steady_clock;

namespace {

void handle(int sig, void (*handler)(int), int flags) {
    struct sigaction sa = {};
    sa.sa_handler = handler;
    sa.sa_flags = flags;
    sigaction(sig, &sa, nullptr);
}

/// A plain thread that does something over and over, until the end of the scope.
template <class F>
class Repeatedly {
public:
    explicit Repeatedly(F f)
        : thread_([this, f] {
              sigset_t all;
              sigfillset(&all);
              pthread_sigmask(SIG_SETMASK, &all, nullptr);
              while (!stop_.load()) f();
          }) {}
    ~Repeatedly() {
        stop_.store(true);
        thread_.join();
    }

private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

std::vector<int> threads() {
    std::vector<int> tids;
    DIR* dir = opendir("/proc/self/task");
    while (const dirent* entry = readdir(dir)) {
        if (entry->d_name[0] != '.') tids.push_back(std::atoi(entry->d_name));
    }
    closedir(dir);
    return tids;
}

std::atomic<int> came{0};
void count_signal(int) { came.fetch_add(1); }

/// Switches, steals, spawns, parks and blocks, for so long.
void storm(std::chrono::milliseconds time) {
    baton::run([time] {
        const auto end = Clock::now() + time;
        WaitGroup wg;
        Chan<int> tokens(4);
        baton::Mutex mutex;
        for (int i = 0; i < 4; i++) tokens.send(i);
        for (int i = 0; i < 8; i++) {
            wg.go([&, tokens] {
                while (Clock::now() < end) {
                    const int token = *tokens.recv();
                    WaitGroup few;
                    for (int n = 0; n < 8; n++) few.go([] { baton::yield(); });
                    few.wait();
                    tokens.send(token);
                }
            });
            wg.go([&] {
                while (Clock::now() < end) {
                    baton::blocking([] { (void)syscall(SYS_getppid); });
                    baton::blocking([] { usleep(50); });
                    std::lock_guard guard(mutex);
                    baton::sleep_for(20us);
                }
            });
        }
        wg.wait();
    });
}

} // namespace

TEST_CASE("signals: a handler may run on any thread, and no wait of baton's ends early for it") {
    for (const int flags : {0, SA_RESTART, SA_ONSTACK}) {
        handle(SIGUSR1, count_signal, flags);
        came.store(0);
        baton::run([] { // the threads are there
            WaitGroup wg;
            for (int i = 0; i < 4; i++) wg.go([] { baton::blocking([] { usleep(2000); }); });
            wg.wait();
        });
        const Repeatedly sender([] {
            for (const int tid : threads()) syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
            usleep(500);
        });
        baton::run([] {
            WaitGroup wg;
            std::atomic<int> read{0}, short_sleeps{0}, locked{0}, received{0};
            Listener listener = Listener::listen("tcp", "127.0.0.1:0");
            wg.go([&] {
                Conn conn = listener.accept();
                char c;
                while (conn.read(&c, 1) == 1) read.fetch_add(1);
            });
            wg.go([&] {
                baton::sleep_for(10ms);
                Conn conn = Conn::dial("tcp", listener.address());
                for (int i = 0; i < 20; i++) {
                    baton::sleep_for(5ms);
                    conn.write("x");
                }
            });
            for (int i = 0; i < 4; i++) {
                wg.go([&] {
                    for (int n = 0; n < 10; n++) {
                        const auto start = Clock::now();
                        baton::sleep_for(10ms);
                        if (Clock::now() - start < 10ms) short_sleeps.fetch_add(1);
                    }
                });
            }
            baton::Mutex mutex;
            Chan<int> channel;
            wg.go([&, channel] {
                while (channel.recv()) received.fetch_add(1);
            });
            for (int i = 0; i < 20; i++) {
                std::lock_guard guard(mutex);
                wg.go([&, channel] {
                    std::lock_guard inner(mutex);
                    locked.fetch_add(1);
                    channel.send(1);
                });
                baton::sleep_for(2ms);
            }
            baton::sleep_for(100ms);
            channel.close();
            wg.wait();
            CHECK(read.load() == 20);
            CHECK(short_sleeps.load() == 0);
            CHECK(locked.load() == 20);
            CHECK(received.load() == 20);
        });
        const auto start = Clock::now(); // a plain thread's sleep, and its wait for run
        baton::sleep_for(20ms);
        CHECK(Clock::now() - start >= 20ms);
        CHECK(came.load() > 100);
    }
}

namespace {
std::atomic<int> deepest{0};
void unwind(int) {
    void* frames[64];
    const int n = backtrace(frames, 64);
    came.fetch_add(1);
    int seen = deepest.load();
    while (n > seen && !deepest.compare_exchange_weak(seen, n)) {
    }
}
} // namespace

TEST_CASE("signals: a profiler's handler may unwind at any point of a switch") {
    void* frame;
    (void)backtrace(&frame, 1); // loads the unwinder
    handle(SIGPROF, unwind, SA_RESTART | SA_ONSTACK);
    came.store(0);
    itimerval every{{0, 1000}, {0, 1000}};
    REQUIRE(setitimer(ITIMER_PROF, &every, nullptr) == 0);
    // The timer counts the CPU's time, of which one P has little where others want it.
    for (int i = 0; i < 10 && came.load() <= 50; i++) storm(700ms);
    const int by_timer = came.load();
    CHECK(by_timer > 50);
    {
        const Repeatedly sender([] { // the timer comes in the kernel's ticks; this anywhere
            for (const int tid : threads()) syscall(SYS_tgkill, getpid(), tid, SIGPROF);
        });
        storm(700ms);
    }
    every = {};
    setitimer(ITIMER_PROF, &every, nullptr);
    CHECK(came.load() > 2 * by_timer + 100);
    CHECK(deepest.load() > 3);
    storm(20ms);
    signal(SIGPROF, SIG_IGN);
}

namespace {
std::atomic<int> reaped{0};
void reap(int) {
    const int saved = errno;
    while (waitpid(-1, nullptr, WNOHANG) > 0) reaped.fetch_add(1);
    errno = saved;
}
} // namespace

TEST_CASE("signals: SIGCHLD is handled while goroutines run") {
    handle(SIGCHLD, reap, SA_RESTART | SA_NOCLDSTOP);
    baton::run([] {
        WaitGroup wg;
        for (int i = 0; i < 4; i++) {
            wg.go([] {
                for (int n = 0; n < 8; n++) {
                    char* argv[] = {const_cast<char*>("true"), nullptr};
                    pid_t pid;
                    CHECK(posix_spawn(&pid, "/bin/true", nullptr, nullptr, argv, environ) == 0);
                    baton::yield();
                }
            });
        }
        wg.wait();
        for (int i = 0; i < 2000 && reaped.load() < 32; i++) baton::sleep_for(5ms);
    });
    CHECK(reaped.load() == 32);
    signal(SIGCHLD, SIG_DFL);
}

// ---- from outside ----

namespace {

/// A process that runs goroutines until it is killed, and counts on its pipe.
struct Busy {
    pid_t pid;
    int out = -1;

    explicit Busy(child_process::Strings variables = {}) {
        std::vector<char*> env = child_process::environment(variables);
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        const char* argv[] = {"child", "--test-case=child: busy", "--no-skip", nullptr};
        REQUIRE(posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, const_cast<char**>(argv),
                            env.data()) == 0);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        out = ends[0];
    }
    ~Busy() {
        if (pid > 0) {
            kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
        }
        close(out);
    }
    /// Waits for its end.
    bool ended_by(int sig) {
        int status = 0;
        const pid_t ended = waitpid(pid, &status, 0);
        if (ended == pid) pid = -1;
        return WIFSIGNALED(status) && WTERMSIG(status) == sig;
    }
    /// It lives, and has gone round so often more.
    bool goes_round(int times) const {
        char c;
        while (times-- > 0) {
            pollfd pfd{out, POLLIN, 0};
            if (poll(&pfd, 1, 10'000) != 1 || ::read(out, &c, 1) != 1 || c != '.') return false;
        }
        return true;
    }
};

} // namespace

TEST_CASE("child: busy" * doctest::skip()) {
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    for (;;) {
        storm(20ms);
        if (write(1, ".", 1) != 1) break;
    }
}

TEST_CASE("signals: a process that is stopped and continued goes on") {
    const Busy busy;
    REQUIRE(busy.goes_round(2));
    for (int i = 0; i < 20; i++) {
        kill(busy.pid, SIGSTOP);
        int status = 0;
        REQUIRE(waitpid(busy.pid, &status, WUNTRACED) == busy.pid);
        REQUIRE(WIFSTOPPED(status));
        usleep(5000);
        kill(busy.pid, SIGCONT);
        usleep(1000 * (i % 7));
    }
    CHECK(busy.goes_round(100)); // what lay in the pipe, and more
}

// TestSignalExitStatus
TEST_CASE("signals: one that nobody handles ends the process, which then says so") {
    for (const std::string& procs : child_process::kProcs) {
        for (const int sig : {SIGTERM, SIGABRT}) {
            Busy busy({procs});
            REQUIRE(busy.goes_round(1));
            kill(busy.pid, sig);
            CHECK(busy.ended_by(sig));
        }
    }
}

TEST_CASE("signals: a debugger attaches, shows the threads and leaves, and the process goes on") {
    if (access("/usr/bin/gdb", X_OK) != 0) {
        std::printf("skip: no gdb\n");
        return;
    }
    const Busy busy;
    REQUIRE(busy.goes_round(2));
    for (int i = 0; i < 2; i++) {
        const std::string command = "timeout 60 gdb -p " + std::to_string(busy.pid) +
                                    " -batch -ex 'thread apply all bt' 2>&1";
        FILE* pipe = popen(command.c_str(), "r");
        std::string text;
        char line[4096];
        while (std::fgets(line, sizeof line, pipe)) text += line;
        const int status = pclose(pipe);
        INFO(text);
        CHECK(status == 0);
        CHECK(text.find("baton::rt::sysmon") != std::string::npos);
        CHECK(text.find("Thread 1 ") != std::string::npos);
        CHECK(text.find("corrupt stack") == std::string::npos);
        CHECK(text.find("Cannot access memory") == std::string::npos);
    }
    CHECK(busy.goes_round(100));
}
