// SPDX-License-Identifier: Apache-2.0
//
// Calls that wait for other than bytes: connections, threads, children, barriers, streams, names.
// Goroutines in them hold no threads, or so many at most.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <string>
#include <thread>

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "preload/hooked.hpp"
#include "preload/many.hpp"

namespace {

using namespace many;
using child_process::check_works;
using child_process::Child;
using child_process::reached;
using child_process::run_child;
using hooked::preload;

// A listener whose queue is full: who connects waits.
struct Full {
    sockaddr_in at{};
    int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    Full() {
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t len = sizeof at;
        ::bind(fd, to(), len);
        ::listen(fd, 0);
        ::getsockname(fd, to(), &len);
        for (int i = 0; i < 4; i++)
            ::connect(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), to(), len);
    }
    sockaddr* to() { return reinterpret_cast<sockaddr*>(&at); }
};

TEST_CASE("child: connect" * doctest::skip()) {
    baton::run([] {
        Full full;
        std::vector<int> fds(kMany);
        std::atomic<int> closed{0};
        for (int& fd : fds) fd = ::socket(AF_INET, SOCK_STREAM, 0);
        hold(
            [&](int i) {
                const int rc =
                    ::connect(fds[static_cast<std::size_t>(i)], full.to(), sizeof full.at);
                if (rc == -1 && errno == EBADF) closed++;
            },
            [&] {
                for (const int fd : fds) ::close(fd);
            });
        CHECK(closed == kMany);
    });
}

TEST_CASE("child: pthread_join" * doctest::skip()) {
    baton::run([] {
        std::atomic<bool> go{false};
        std::vector<pthread_t> threads(kMany);
        pthread_attr_t attr;
        ::pthread_attr_init(&attr);
        ::pthread_attr_setstacksize(&attr, 65536);
        const auto work = [](void* arg) -> void* {
            static_cast<std::atomic<bool>*>(arg)->wait(false);
            return arg;
        };
        for (pthread_t& t : threads) REQUIRE(::pthread_create(&t, &attr, work, &go) == 0);
        std::atomic<int> joined{0};
        hold(
            [&](int i) {
                void* got = nullptr;
                if (::pthread_join(threads[static_cast<std::size_t>(i)], &got) == 0 && got == &go)
                    joined++;
            },
            [&] {
                go = true;
                go.notify_all();
            });
        CHECK(joined == kMany);
    });
}

TEST_CASE("child: waitpid" * doctest::skip()) {
    baton::run([] {
        std::vector<pid_t> children(kMany);
        for (pid_t& pid : children) {
            pid = ::vfork();
            if (pid == 0) {
                ::execlp("sleep", "sleep", "100", nullptr);
                ::_exit(127);
            }
        }
        baton::sleep_for(300ms); // until all those programs have started
        std::atomic<int> killed{0};
        hold(
            [&](int i) {
                const pid_t pid = children[static_cast<std::size_t>(i)];
                int status = 0;
                siginfo_t info{};
                if (i % 2 == 0) {
                    if (::waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL) killed++;
                } else if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED) == 0) {
                    if (info.si_status == SIGKILL) killed++;
                }
            },
            [&] {
                for (const pid_t pid : children) ::kill(pid, SIGKILL);
            });
        CHECK(killed == kMany);
    });
}

void many_at_barrier(bool thread_is_last) {
    baton::run([&] {
        pthread_barrier_t barrier;
        ::pthread_barrier_init(&barrier, nullptr, kMany + 1);
        std::atomic<int> serial{0};
        const auto cross = [&] {
            serial += ::pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD;
        };
        hold([&](int) { cross(); }, [&] { thread_is_last ? std::thread(cross).join() : cross(); });
        CHECK(serial == 1);
        ::pthread_barrier_destroy(&barrier);
    });
}
TEST_CASE("child: barrier" * doctest::skip()) { many_at_barrier(false); }
TEST_CASE("child: barrier with a thread" * doctest::skip()) { many_at_barrier(true); }

std::atomic<bool> init_may_end;
std::atomic<int> inits;
pthread_once_t once = PTHREAD_ONCE_INIT;
void init() {
    while (!init_may_end) ::usleep(1000);
    inits++;
}
TEST_CASE("child: pthread_once" * doctest::skip()) {
    baton::run([] {
        hold(
            [](int) {
                ::pthread_once(&once, init);
                if (inits != 1) std::abort();
            },
            [] { init_may_end = true; });
    });
}
TEST_CASE("child: pthread_once of a thread" * doctest::skip()) {
    baton::run([] {
        std::thread other([] { ::pthread_once(&once, init); });
        baton::sleep_for(5ms);
        hold([](int) { ::pthread_once(&once, init); }, [] { init_may_end = true; });
        other.join();
        CHECK(inits == 1);
    });
}

TEST_CASE("child: call_once that throws" * doctest::skip()) {
    static std::atomic<int> calls, caught;
    static std::array<std::once_flag, 20> flags;
    baton::run([] {
        baton::set_max_procs(4);
        for (std::once_flag& flag : flags) {
            std::atomic<int> tries{0};
            baton::WaitGroup wg;
            for (int i = 0; i < 20; i++) {
                wg.go([&] {
                    try {
                        std::call_once(flag, [&] {
                            calls++;
                            ::usleep(300);
                            if (++tries < 3) throw 1;
                        });
                    } catch (int) {
                        caught++;
                    }
                });
            }
            wg.wait();
        }
    });
    std::printf("%d calls, %d caught\n", calls.load(), caught.load());
    if (calls == 60 && caught == 40) reached();
}
TEST_CASE("who has waited for a call_once that throws calls what it was to call") {
    check_works(run_child("call_once that throws", {preload()}));
}

// What libc runs, it wants to clean up after on the thread where it began.
TEST_CASE("child: moved in pthread_once" * doctest::skip()) {
    static std::array<pthread_once_t, 64> each{};
    static std::atomic<int> moved;
    baton::run([] {
        baton::set_max_procs(4);
        baton::WaitGroup wg;
        for (pthread_once_t& one : each) {
            wg.go([&one] {
                ::pthread_once(&one, [] {
                    const long began = ::syscall(SYS_gettid);
                    for (int i = 0; i < 10; i++) ::usleep(100);
                    moved += ::syscall(SYS_gettid) != began;
                });
            });
        }
        wg.wait();
        // They take their threads along.
        baton::Latch all(32);
        for (int i = 0; i < 32; i++) {
            wg.go([&] {
                baton::lock_os_thread();
                all.arrive_and_wait();
            });
        }
        wg.wait();
        ::usleep(20'000);
    });
    std::printf("%d moved\n", moved.load());
    if (moved > 0) reached();
}
TEST_CASE("threads end well on which goroutines have begun what they ended on others") {
    check_works(run_child("moved in pthread_once", {preload()}));
}

TEST_CASE("child: fgets" * doctest::skip()) {
    many_wait([](int fd, int i) {
        FILE* f = ::fdopen(fd, "r");
        char line[8];
        if (i % 2 == 0) (void)::getc(f);
        if (i % 2 != 0) (void)!::fread(line, 1, 1, f);
    });
}

TEST_CASE("child: fputs" * doctest::skip()) {
    baton::run([] {
        Pipes pipes(kMany);
        std::atomic<int> written{0};
        for (int i = 0; i < kMany; i++) {
            ::fcntl(pipes.out(i), F_SETPIPE_SZ, 4096);
            const std::string page(4096, 'x');
            REQUIRE(::write(pipes.out(i), page.data(), page.size()) == 4096);
        }
        hold(
            [&](int i) {
                FILE* f = ::fdopen(pipes.out(i), "w");
                if (::fputs("more", f) >= 0 && ::fflush(f) == 0) written++;
            },
            [&] {
                char page[4096];
                for (int i = 0; i < kMany; i++) (void)!::read(pipes.in(i), page, sizeof page);
            });
        CHECK(written == kMany);
    });
}

TEST_CASE("goroutines that wait for threads, children, connections and streams hold no threads") {
    for (const char* call :
         {"connect", "pthread_join", "waitpid", "barrier", "barrier with a thread", "pthread_once",
          "pthread_once of a thread", "fgets", "fputs"}) {
        INFO(call);
        check_works(run_child(call, {preload()}));
    }
}

// ---- turns ----

std::string slow_library() {
    const char* build = std::getenv("BUILD");
    return std::filesystem::absolute(build ? build : "build").string() +
           "/tests/preload/libslow.so";
}
std::string slow_preload() { return preload() + ":" + slow_library(); }

int slow_most() {
    auto* most = reinterpret_cast<int (*)()>(::dlsym(RTLD_DEFAULT, "slow_most"));
    return most ? most() : -1;
}

template <class F>
void at_most(int bound, F call) {
    baton::run([&] {
        baton::WaitGroup wg;
        for (int i = 0; i < kMany; i++) wg.go(call);
        wg.wait();
        const int most = slow_most();
        std::printf("%d at once, peak %llu threads\n", most,
                    static_cast<unsigned long long>(baton::stats().threads_peak));
        // As many as may, and no more.
        if (most == bound && baton::stats().threads_peak < static_cast<unsigned>(bound) + kFew)
            reached();
    });
}
TEST_CASE("child: names" * doctest::skip()) {
    at_most(64, [] {
        addrinfo* found;
        (void)::getaddrinfo("example.org", nullptr, nullptr, &found);
    });
}
TEST_CASE("child: fsync" * doctest::skip()) {
    const int fd = ::open("/etc/passwd", O_RDONLY);
    at_most(std::atoi(std::getenv("BATON_FILE_THREADS")), [fd] { ::fsync(fd); });
}
TEST_CASE("child: statx" * doctest::skip()) {
    at_most(std::atoi(std::getenv("BATON_FILE_THREADS")), [] {
        struct statx st {};
        (void)::statx(AT_FDCWD, "/etc/passwd", 0, STATX_SIZE, &st);
    });
}
TEST_CASE("names and calls on files wait for their turn, parked") {
    check_works(run_child("names", {slow_preload()}));
    check_works(run_child("statx", {slow_preload(), "BATON_FILE_THREADS=20"}));
    for (const char* most : {"1", "10"})
        check_works(
            run_child("fsync", {slow_preload(), std::string("BATON_FILE_THREADS=") + most}));
}

// Who opens a FIFO waits for who opens its other end, which has to get its turn.
TEST_CASE("child: fifos" * doctest::skip()) {
    baton::run([] {
        std::vector<std::string> names;
        for (int i = 0; i < 40; i++) {
            names.push_back("/tmp/baton-fifo-" + std::to_string(::getpid()) + "-" +
                            std::to_string(i));
            REQUIRE(::mkfifo(names.back().c_str(), 0600) == 0);
        }
        baton::WaitGroup wg;
        std::atomic<int> opened{0};
        const auto open_all = [&](int flags) {
            for (const std::string& name : names)
                wg.go([&, flags] { opened += ::open(name.c_str(), flags) >= 0; });
        };
        open_all(O_RDONLY);
        baton::sleep_for(20ms);
        open_all(O_WRONLY);
        wg.wait();
        for (const std::string& name : names) ::unlink(name.c_str());
        if (opened == 80) reached();
    });
}
TEST_CASE("who opens a FIFO takes no turn from who opens its other end") {
    for (const char* most : {"1", "32"})
        check_works(run_child("fifos", {preload(), std::string("BATON_FILE_THREADS=") + most}));
}

// ---- libraries that are opened late ----

using Read = long (*)(int, void*, unsigned long);

Read open_library(int flags) {
    void* library = ::dlopen(slow_library().c_str(), RTLD_NOW | flags);
    REQUIRE(library != nullptr);
    return reinterpret_cast<Read>(::dlsym(library, "slow_read"));
}

TEST_CASE("child: opened before" * doctest::skip()) {
    const Read read = open_library(RTLD_LOCAL);
    many_wait([&](int fd, int) {
        char b;
        (void)read(fd, &b, 1);
    });
}
TEST_CASE("child: opened on a goroutine" * doctest::skip()) {
    Read read = nullptr;
    baton::run([&] { read = open_library(RTLD_LOCAL); });
    many_wait([&](int fd, int) {
        char b;
        (void)read(fd, &b, 1);
    });
}
// Its own libraries come first, libc among them: no hook is met, and the threads are held.
TEST_CASE("child: opened with its own first" * doctest::skip()) {
    const Read read = open_library(RTLD_LOCAL | RTLD_DEEPBIND);
    std::atomic<long> got{0};
    many_wait([&](int fd, int) {
        char b;
        got += read(fd, &b, 1);
    });
    if (got == kMany) std::printf("all was read\n");
}
TEST_CASE("the calls of libraries that are opened late are hooked") {
    check_works(run_child("opened before", {preload()}));
    check_works(run_child("opened on a goroutine", {preload()}));
    const Child child = run_child("opened with its own first", {preload()});
    CHECK(child.has("all was read"));
    CHECK_FALSE(child.has(child_process::kReached));
}

} // namespace
