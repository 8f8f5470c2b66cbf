// SPDX-License-Identifier: Apache-2.0
//
// What a process may do while goroutines run: fork, exec, spawn, exit, become a daemon. Each case
// is a process of its own (support/child.hpp), and forks further ones.
// run: tiers
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
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "support/child.hpp"

using namespace std::chrono_literals;
using namespace child_process;
using baton::Chan;
using baton::Conn;
using baton::Listener;
using baton::WaitGroup;

namespace {

void check_child(const char* title, std::chrono::milliseconds limit = 15s) {
    check_works(run_child(title, tier(), limit));
}

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

/// The exit code of a child, -1 when a signal killed it. It is a failure to take 10 s.
int wait_for(pid_t pid) {
    return baton::blocking([pid] {
        int status = 0;
        for (int i = 0; i < 10'000; i++) {
            if (waitpid(pid, &status, WNOHANG) == pid)
                return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
            usleep(1000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return -2;
    });
}

/// A little of everything, on as many goroutines.
bool works() {
    return baton::run([] {
        constexpr int kEach = 20;
        Chan<int> channel(2);
        baton::Mutex mutex;
        int guarded = 0;
        WaitGroup wg;
        for (int i = 0; i < kEach; i++) {
            wg.go([&, channel] {
                baton::blocking([] { usleep(500); });
                baton::sleep_for(200us);
                std::lock_guard guard(mutex);
                baton::yield();
                guarded++;
                channel.send(1);
            });
        }
        int sum = 0;
        while (sum < kEach) sum += *channel.recv();
        wg.wait();
        return guarded == kEach;
    });
}

/// Goroutines that run, park, block and start others, until they are told to end.
class Storm {
public:
    Storm() {
        for (int i = 0; i < 8; i++) {
            wg_.go([this] {
                while (!stop_.load()) {
                    WaitGroup few;
                    for (int n = 0; n < 8; n++) few.go([this] { turns.fetch_add(1); });
                    few.wait();
                    (void)channel_.recv();
                    channel_.send(1);
                }
            });
            wg_.go([this] {
                while (!stop_.load()) {
                    baton::blocking([] { usleep(100); });
                    std::lock_guard guard(mutex_);
                    baton::sleep_for(50us);
                    turns.fetch_add(1);
                }
            });
        }
        for (int i = 0; i < 4; i++) channel_.send(1);
    }
    ~Storm() {
        stop_.store(true);
        wg_.wait();
    }
    std::atomic<long> turns{0};

private:
    std::atomic<bool> stop_{false};
    Chan<int> channel_{16};
    baton::Mutex mutex_;
    WaitGroup wg_;
};

/// Leaves without a word to doctest, and without its destructors.
[[noreturn]] void leave(bool well) { _exit(well ? 0 : 1); }

} // namespace

// ---- fork ----

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
    const Child child = run_child("parks after fork", tier());
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
    const Child child = run_child("execs", tier());
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

void say_at_exit() { std::fprintf(stderr, "atexit\n"); }
void say_at_quick_exit() { std::fprintf(stderr, "at_quick_exit\n"); }

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
            const Child child = run_child(title, tier());
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
    const Child quick = run_child("quick_exits", tier());
    INFO(quick.output);
    CHECK(quick.exited(5));
    CHECK(quick.has("at_quick_exit\n"));
    CHECK(!quick.has("atexit\n"));
    CHECK(pins_are_gone(quick));
    const Child at_once = run_child("leaves at once", tier());
    CHECK(at_once.exited(5));
    CHECK(!at_once.has("atexit\n"));
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
