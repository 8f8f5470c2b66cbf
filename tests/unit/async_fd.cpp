// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that are no sockets.
// run: engines
#include "baton/async_fd.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/net.hpp"

using namespace std::chrono_literals;
using baton::AsyncFd;
using net_test::on_goroutine;
using Steady = std::chrono::steady_clock;

extern char** environ;

namespace {

// In all threads, as the runtime's come after: so the kernel gives it to the signalfd.
const bool g_blocked = [] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    return ::pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0;
}();

pid_t spawn(const char* script) {
    pid_t pid = -1;
    const char* argv[] = {"sh", "-c", script, nullptr};
    REQUIRE(::posix_spawn(&pid, "/bin/sh", nullptr, nullptr, const_cast<char**>(argv), environ) ==
            0);
    return pid;
}

} // namespace

TEST_CASE("a pipe: reader and writer park, the end is the end") {
    on_goroutine([] {
        auto [in, out] = AsyncFd::pipe();
        baton::WaitGroup wg;
        const std::string data(1 << 20, 'p'); // more than a pipe holds
        std::size_t sent = 0;
        AsyncFd& writer = out;
        wg.go([&] {
            baton::sleep_for(2ms);
            sent = writer.write(data);
            writer.close();
        });
        std::size_t got = 0;
        char buf[10'000];
        while (const std::size_t n = in.read(buf, sizeof buf)) got += n;
        wg.wait();
        CHECK(sent == data.size());
        CHECK(got == data.size());
        auto [idle, other] = AsyncFd::pipe();
        std::error_code ec;
        idle.read(std::as_writable_bytes(std::span(buf)), 2ms, ec);
        CHECK(ec == std::errc::timed_out);
        std::size_t n = 0;
        const std::string_view much(data);
        n = other.write(std::as_bytes(std::span(much)), 5ms, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n > 0);
        CHECK(n < data.size());
        std::stop_source source;
        AsyncFd& waited = other;
        wg.go([&] { waited.wait_writable(source.get_token(), ec); });
        baton::sleep_for(2ms);
        source.request_stop();
        wg.wait();
        CHECK(ec == std::errc::operation_canceled);
        wg.go([&] { waited.wait_writable({}, ec); });
        baton::sleep_for(2ms);
        other.close();
        wg.wait();
        CHECK(ec == std::errc::bad_file_descriptor);
    });
}

TEST_CASE("readiness is what it is now, not only news of it") {
    on_goroutine([] {
        auto [in, out] = AsyncFd::pipe();
        out.write("xy");
        for (int i = 0; i < 3; i++) in.wait_readable(10s);
        char c;
        CHECK(::read(in.fd(), &c, 1) == 1); // half of it: there is no further edge
        in.wait_readable(10s);
        CHECK(::read(in.fd(), &c, 1) == 1);
        std::error_code ec;
        in.wait_readable(1ms, ec);
        CHECK(ec == std::errc::timed_out);
        out.wait_writable(10s);
    });
}

TEST_CASE("an eventfd") {
    on_goroutine([] {
        AsyncFd event = AsyncFd::adopt(::eventfd(0, EFD_CLOEXEC));
        CHECK((::fcntl(event.fd(), F_GETFL) & O_NONBLOCK) != 0);
        baton::WaitGroup wg;
        wg.go([&] {
            baton::sleep_for(2ms);
            const std::uint64_t three = 3;
            event.write(std::as_bytes(std::span(&three, 1)));
        });
        std::uint64_t count = 0;
        CHECK(event.read(&count, sizeof count) == sizeof count);
        CHECK(count == 3);
        wg.wait();
    });
}

TEST_CASE("a timerfd") {
    on_goroutine([] {
        AsyncFd timer = AsyncFd::adopt(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
        const auto start = Steady::now();
        const itimerspec when{{}, {0, 3'000'000}};
        REQUIRE(::timerfd_settime(timer.fd(), 0, &when, nullptr) == 0);
        std::uint64_t fired = 0;
        CHECK(timer.read(&fired, sizeof fired) == sizeof fired);
        CHECK(fired == 1);
        CHECK(Steady::now() - start >= 3ms);
    });
}

TEST_CASE("a terminal") {
    on_goroutine([] {
        AsyncFd master = AsyncFd::adopt(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
        REQUIRE(::grantpt(master.fd()) == 0);
        REQUIRE(::unlockpt(master.fd()) == 0);
        char name[64];
        REQUIRE(::ptsname_r(master.fd(), name, sizeof name) == 0);
        AsyncFd tty = AsyncFd::adopt(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
        baton::WaitGroup wg;
        wg.go([&] {
            baton::sleep_for(2ms);
            master.write("typed\n");
        });
        char buf[64];
        CHECK(tty.read(buf, sizeof buf) == 6);
        CHECK(std::string_view(buf, 6) == "typed\n");
        wg.wait();
    });
}

TEST_CASE("inotify") {
    on_goroutine([] {
        char dir[] = "/tmp/baton-inotify-XXXXXX";
        REQUIRE(::mkdtemp(dir));
        AsyncFd watch = AsyncFd::adopt(::inotify_init1(IN_CLOEXEC));
        REQUIRE(::inotify_add_watch(watch.fd(), dir, IN_CREATE) >= 0);
        const std::string file = std::string(dir) + "/new";
        baton::WaitGroup wg;
        wg.go([&] {
            baton::sleep_for(2ms);
            ::close(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        });
        alignas(inotify_event) char buf[512];
        CHECK(watch.read(buf, sizeof buf) > sizeof(inotify_event));
        CHECK(std::string(reinterpret_cast<inotify_event*>(buf)->name) == "new");
        wg.wait();
        ::unlink(file.c_str());
        ::rmdir(dir);
    });
}

TEST_CASE("a signalfd") {
    REQUIRE(g_blocked);
    on_goroutine([] {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        AsyncFd signals = AsyncFd::adopt(::signalfd(-1, &set, SFD_CLOEXEC));
        baton::WaitGroup wg;
        wg.go([&] {
            baton::sleep_for(2ms);
            ::kill(::getpid(), SIGUSR2);
        });
        // Whoever looks at a signalfd sees signals of the process and of its own thread; it is read
        // by the thread that finds it readable, so those of the process arrive.
        signalfd_siginfo info{};
        CHECK(signals.read(&info, sizeof info) == sizeof info);
        CHECK(info.ssi_signo == SIGUSR2);
        wg.wait();
    });
}

TEST_CASE("a child is waited for by its pidfd, or is no longer waited for") {
    on_goroutine([] {
        const auto start = Steady::now();
        const int status = baton::wait_child(spawn("sleep 0.02; exit 7"));
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 7);
        CHECK(Steady::now() - start >= 20ms);
        std::error_code ec;
        const pid_t sleeper = spawn("exec sleep 100");
        baton::wait_child(sleeper, 3ms, ec);
        CHECK(ec == std::errc::timed_out);
        AsyncFd pidfd = AsyncFd::adopt(static_cast<int>(::syscall(SYS_pidfd_open, sleeper, 0)));
        pidfd.wait_readable(1ms, ec);
        CHECK(ec == std::errc::timed_out);
        ::kill(sleeper, SIGKILL);
        pidfd.wait_readable(10s, ec);
        CHECK_FALSE(ec);
        CHECK(WTERMSIG(baton::wait_child(sleeper)) == SIGKILL);
        baton::wait_child(sleeper, {}, ec);
        CHECK(ec == std::errc::no_child_process);
        baton::wait_child(::getppid(), {}, ec); // no child of ours, and goes on
        CHECK(ec == std::errc::no_child_process);
    });
}

TEST_CASE("what cannot be polled stays its owner's") {
    on_goroutine([] {
        const int fd = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        std::error_code ec;
        CHECK_FALSE(AsyncFd::adopt(fd, ec));
        CHECK(ec == std::errc::operation_not_permitted);
        CHECK(::close(fd) == 0);
        CHECK_THROWS_AS(AsyncFd::adopt(-1), std::system_error);
        auto [in, out] = AsyncFd::pipe();
        const int raw = in.release();
        CHECK(::close(raw) == 0);
    });
}
