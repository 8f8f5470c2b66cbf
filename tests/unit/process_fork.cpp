// SPDX-License-Identifier: Apache-2.0
//
// Forks of a process in which goroutines run, and daemons, which are made by them. Each case is a
// process of its own (support/child.hpp), and forks further ones.
// run: tiers
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/child.hpp"
#include "support/process.hpp"

using namespace std::chrono_literals;
using namespace child_process;
using namespace process_test;
using baton::Conn;
using baton::Listener;

namespace {

/// What else goes on when a process forks.
enum class Others { kWait, kRun };

/// ThreadSanitizer has no threads in a forked child. AddressSanitizer's allocator keeps the locks
/// there that other threads had: so those must not run.
bool fork_and_run([[maybe_unused]] Others others) {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer has no threads in the child of a threaded process\n");
    return false;
#elif defined(BATON_ASAN)
    if (others == Others::kWait) return true;
    std::printf("skip: AddressSanitizer's allocator may be locked for ever in a forked child\n");
    return false;
#else
    return true;
#endif
}

/// Does every other thread of this process sleep? Understudies may wait for a CPU for long, and
/// take no memory.
bool others_sleep() {
    const std::string self = std::to_string(gettid());
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        if (task.path().filename() == self) continue;
        std::ifstream stat(task.path() / "stat");
        std::string text;
        std::getline(stat, text);
        if (text.find("(baton/us") != std::string::npos) continue;
        const std::size_t name_end = text.rfind(") ");
        if (name_end != std::string::npos && text[name_end + 2] != 'S') return false;
    }
    return true;
}

/// A start makes threads for a while, which takes memory.
void until_others_sleep() {
    for (int n = 0; n < 5; n = others_sleep() ? n + 1 : 0) usleep(2000);
}

/// Leaves without a word to doctest, and without its destructors.
[[noreturn]] void leave(bool well) { _exit(well ? 0 : 1); }

} // namespace

TEST_CASE("child: forks alone" * doctest::skip()) {
    baton::run([] {
        Storm storm;
        while (storm.turns.load() < 100) baton::yield();
        for (int i = 0; i < 30; i++) {
            const pid_t pid = i % 2 ? fork() : baton::blocking([] { return fork(); });
            if (pid == 0) {
                const long before = storm.turns.load();
                baton::sleep_for(2ms);
                baton::yield();
                baton::blocking([] { usleep(1000); });
                leave(storm.turns.load() == before && baton::goid() == 0 &&
                      baton::stats().goroutines == 0);
            }
            CHECK(wait_for(pid) == 0);
        }
        const long before = storm.turns.load();
        while (storm.turns.load() < before + 100) baton::yield();
    });
    CHECK(works());
    reached();
}
TEST_CASE("process: the child of a fork goes on with the goroutine that forked, alone") {
    check_child("forks alone");
}

TEST_CASE("child: returns after fork" * doctest::skip()) {
    baton::run([] {
        pid_t pid = 1;
        WaitGroup wg;
        wg.go([&pid] { pid = baton::blocking([] { return fork(); }); }); // the child ends here
        wg.wait();
        CHECK(pid > 0);
        CHECK(wait_for(pid) == 0);
    });
    reached();
}
TEST_CASE("process: a goroutine that returns in the child of a fork ends it, with status 0") {
#if defined(BATON_ASAN)
    std::printf("skip: the child ends by exit, and leaks what its parent's threads had\n");
#else
    check_child("returns after fork");
#endif
}

TEST_CASE("child: parks after fork" * doctest::skip()) {
    baton::run([] {
        if (const pid_t pid = fork(); pid != 0) {
            const int code = wait_for(pid);
            reached();
            _exit(code);
        }
        Chan<int> channel;
        (void)channel.recv();
        _exit(0);
    });
}
TEST_CASE("process: what parks in the child of a fork, outside of run, ends it with one line") {
    const Child child = run_child("parks after fork");
    INFO(child.output);
    CHECK(child.exited(2));
    CHECK(child.has(kReached));
    const Strings said = child.said();
    REQUIRE(said.size() == 1);
    CHECK(said[0] == "baton: Chan::recv in a forked child, where the goroutine that forked is a "
                     "plain thread: call it inside baton::run or baton::go");
}

TEST_CASE("child: runs after fork" * doctest::skip()) {
    CHECK(works());
    const auto generations = [](auto&& self, int n) -> void { // each from the one before
        until_others_sleep();
        const pid_t pid = fork();
        if (pid == 0) {
            const bool well = works() && works();
            if (n > 0) self(self, n - 1);
            leave(well);
        }
        CHECK(wait_for(pid) == 0);
    };
    generations(generations, 2);
    reached();
}
TEST_CASE("process: the child of a fork starts a runtime of its own when it needs one") {
    if (fork_and_run(Others::kWait)) check_child("runs after fork", 60s);
}

TEST_CASE("child: runs after fork in a storm" * doctest::skip()) {
    baton::run([] {
        Storm storm;
        WaitGroup wg;
        for (int i = 0; i < 4; i++) {
            wg.go([] {
                for (int n = 0; n < 3; n++) {
                    const pid_t pid = fork();
                    if (pid == 0) leave(works());
                    CHECK(wait_for(pid) == 0);
                }
            });
        }
        wg.wait();
    });
    CHECK(works());
    reached();
}
TEST_CASE("process: so it does where goroutines fork while others run") {
    if (fork_and_run(Others::kRun)) check_child("runs after fork in a storm", 60s);
}

TEST_CASE("child: changes channels" * doctest::skip()) {
    baton::run([] {
        Chan<int> channel, answers(4);
        WaitGroup wg;
        std::atomic<int> received{0};
        for (int i = 0; i < 2; i++) {
            wg.go([&, channel] {
                while (channel.recv()) received.fetch_add(1);
            });
        }
        baton::sleep_for(10ms); // they wait
        until_others_sleep();
        const pid_t pid = fork();
        if (pid == 0) {
            channel.close();
            const bool well = works(); // a runtime that could run them
            leave(well && received.load() == 0);
        }
        CHECK(wait_for(pid) == 0);
        channel.send(1);
        channel.close();
        wg.wait();
        CHECK(received.load() == 1);
    });
    reached();
}
TEST_CASE("process: goroutines that wait at the time of a fork never run in the child") {
    if (fork_and_run(Others::kWait)) check_child("changes channels");
}

TEST_CASE("child: serves" * doctest::skip()) {
    Listener listener = baton::run([] { return Listener::listen("tcp", "127.0.0.1:0"); });
    std::vector<pid_t> workers;
    until_others_sleep();
    for (int i = 0; i < 3; i++) {
        workers.push_back(fork());
        if (workers.back() != 0) continue;
        for (int n = 0; n < 4; n++) {
            baton::run([&] {
                Conn conn = listener.accept();
                char text[4];
                (void)conn.read(text, sizeof text);
                conn.write("pong");
            });
        }
        listener.close();
        leave(true);
    }
    baton::run([&] {
        for (int i = 0; i < 12; i++) {
            Conn conn = Conn::dial("tcp", listener.address());
            conn.write("ping");
            char text[4] = {};
            CHECK(conn.read(text, sizeof text) == 4);
            CHECK(std::string(text, 4) == "pong");
        }
    });
    for (const pid_t pid : workers) CHECK(wait_for(pid) == 0);
    reached();
}
TEST_CASE("process: a listener made before a fork serves in its children") {
    if (fork_and_run(Others::kWait)) check_child("serves", 30s);
}

// ---- daemons ----

namespace {
/// Becomes a daemon, and proves from there that it works: the pipe to the test stays open.
void become_daemon() {
    REQUIRE(daemon(1, 1) == 0);
    const bool well = works();
    std::fprintf(stderr, "%s\n", well ? kReached : "broken");
    leave(well);
}
} // namespace

TEST_CASE("child: daemon before" * doctest::skip()) { become_daemon(); }
TEST_CASE("child: daemon after" * doctest::skip()) {
    CHECK(works());
    until_others_sleep();
    become_daemon();
}
TEST_CASE("child: daemon from a goroutine" * doctest::skip()) {
    baton::run([] {
        Storm storm;
        while (storm.turns.load() < 100) baton::yield();
        become_daemon();
    });
}
TEST_CASE("process: a daemon has a runtime, wherever it became one") {
    if (!fork_and_run(Others::kWait)) return;
    for (const char* title : {"daemon before", "daemon after"}) check_child(title);
    if (fork_and_run(Others::kRun)) check_child("daemon from a goroutine");
}
