// SPDX-License-Identifier: Apache-2.0
//
// What a network does to a server: resets, peers that stop reading or half-open, signals.
// run: tiers
// run: engines
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <dirent.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../support/net.hpp"
#include "support/child.hpp"
#include "support/seccomp.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using Steady = std::chrono::steady_clock;

namespace {

/// The peer learns of it by a reset, whatever is on its way.
void reset(Conn& conn) {
    const linger at_once{1, 0};
    ::setsockopt(conn.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    conn.close();
}

std::span<std::byte> into(std::span<char> buf) { return std::as_writable_bytes(buf); }

} // namespace

TEST_CASE("a reset under a parked read, and before one") {
    on_goroutine([] {
        for (const bool parked : {true, false}) {
            Pair pair = tcp_pair();
            baton::WaitGroup wg;
            std::error_code ec;
            wg.go([&] {
                if (!parked) baton::sleep_for(5ms);
                ec = read_error(pair.server);
            });
            if (parked) baton::sleep_for(2ms);
            reset(pair.client);
            wg.wait();
            CHECK(ec == std::errc::connection_reset);
            CHECK_FALSE(read_error(pair.server)); // told once; then it is the end
        }
    });
}

TEST_CASE("a reset that overtakes data not yet read") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        pair.client.write("lost or not");
        reset(pair.client);
        baton::sleep_for(2ms);
        std::error_code ec;
        char buf[64];
        // The kernel may have dropped it; either way it ends, and soon.
        for (int i = 0; i < 3 && !ec; i++) {
            if (pair.server.read(into(buf), 10s, ec) == 0) break;
        }
        CHECK((!ec || ec == std::errc::connection_reset));
    });
}

TEST_CASE("a reset under a parked write") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        baton::WaitGroup wg;
        std::error_code ec;
        std::size_t n = 0;
        const std::vector<std::byte> much(64 << 20);
        wg.go([&] { n = pair.server.write(much, ec); });
        baton::sleep_for(5ms);
        reset(pair.client);
        wg.wait();
        CHECK((ec == std::errc::connection_reset || ec == std::errc::broken_pipe));
        CHECK(n > 0);
        CHECK(n < much.size());
        pair.server.write(much, ec);
        CHECK(ec == std::errc::broken_pipe); // and no SIGPIPE
        pair.server.shutdown_write(ec);
        CHECK(ec == std::errc::not_connected);
        CHECK_THROWS_AS(pair.server.shutdown_write(), std::system_error);
        pair.client.close();
        pair.client.shutdown_read(ec);
        CHECK(ec == std::errc::bad_file_descriptor);
    });
}

TEST_CASE("half-closed either way: the other direction goes on") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        char buf[64];
        pair.client.shutdown_write();
        CHECK(pair.server.read(buf, sizeof buf) == 0);
        for (int i = 0; i < 100; i++) {
            pair.server.write("on");
            CHECK(read_all(pair.client, buf, 2));
        }
        pair.server.shutdown_write();
        CHECK(pair.client.read(buf, sizeof buf) == 0);
        std::error_code ec;
        pair.client.write("x", ec);
        CHECK(ec == std::errc::broken_pipe);
    });
}

TEST_CASE("a slow reader costs its writer a deadline, and the other clients nothing") {
    on_goroutine([] {
        Pair slow = tcp_pair();
        Pair quick = tcp_pair();
        baton::WaitGroup wg;
        std::error_code ec;
        const std::vector<std::byte> much(64 << 20);
        wg.go([&] { slow.server.write(much, 100ms, ec); });
        char buf[8];
        int turns = 0;
        wg.go([&] {
            while (const std::size_t n = quick.server.read(buf, sizeof buf))
                quick.server.write(std::string_view(buf, n));
        });
        char answer[8];
        for (; turns < 100; turns++) {
            quick.client.write("ping");
            if (!read_all(quick.client, answer, 4)) break;
        }
        quick.client.shutdown_write();
        wg.wait();
        CHECK(turns == 100);
        CHECK(ec == std::errc::timed_out);
    });
}

TEST_CASE("peers that say nothing cost one parked goroutine each, and no processor") {
    on_goroutine([] {
        constexpr int kSilent = 200;
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        std::vector<Conn> silent, served;
        for (int i = 0; i < kSilent; i++) {
            silent.push_back(Conn::dial("tcp", listener.address()));
            served.push_back(listener.accept());
        }
        const baton::Stats before = baton::stats();
        baton::WaitGroup wg;
        std::atomic<int> ended{0};
        for (Conn& conn : served) {
            wg.go([&] {
                char c;
                std::error_code ec;
                conn.read(into({&c, 1}), 200ms, ec);
                ended += ec == std::errc::timed_out;
            });
        }
        baton::sleep_for(20ms);
        const baton::Stats now = baton::stats();
        CHECK(now.goroutines - before.goroutines <= kSilent);
        CHECK(now.threads - now.threads_idle <=
              static_cast<std::uint64_t>(baton::max_procs()) + 16);
        const std::clock_t cpu = std::clock();
        baton::sleep_for(100ms);
        CHECK(std::clock() - cpu < CLOCKS_PER_SEC / 20); // of 0.1 s
        wg.wait();
        CHECK(ended == kSilent);
    });
}

TEST_CASE("clients that are slow cost one parked goroutine each, and no thread") {
    on_goroutine([] {
        constexpr std::size_t kEach = 100, kRequest = 8;
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        std::vector<Conn> silent, halting, dripping, served; // ... and never, half and byte by byte
        for (std::vector<Conn>* clients : {&silent, &halting, &dripping}) {
            for (std::size_t i = 0; i < kEach; i++) {
                clients->push_back(Conn::dial("tcp", listener.address()));
                served.push_back(listener.accept());
            }
        }
        const baton::Stats before = baton::stats();
        std::atomic<std::size_t> answered{0}, left{0};
        baton::WaitGroup wg;
        for (Conn& conn : served) {
            wg.go([&] {
                char request[kRequest];
                if (!read_all(conn, request, kRequest)) {
                    left++;
                    return;
                }
                answered++;
                conn.write("done");
            });
        }
        std::uint64_t goroutines = 0, threads = 0;
        for (std::size_t i = 0; i < kRequest; i++) {
            for (Conn& conn : dripping) conn.write("x");
            if (i < kRequest / 2) {
                for (Conn& conn : halting) conn.write("x");
            }
            baton::sleep_for(5ms);
            const baton::Stats now = baton::stats();
            goroutines = std::max(goroutines, now.goroutines);
            threads = std::max(threads, now.threads - now.threads_idle);
        }
        char answer[4];
        for (Conn& conn : dripping) CHECK(read_all(conn, answer, sizeof answer));
        CHECK(answered == kEach);
        CHECK(left == 0);
        CHECK(goroutines - before.goroutines <= 3 * kEach);
        CHECK(threads <= static_cast<std::uint64_t>(baton::max_procs()) + 16);
        silent.clear();
        halting.clear();
        wg.wait();
        CHECK(left == 2 * kEach);
    });
}

TEST_CASE("child: sends that find no room in the machine" * doctest::skip()) {
    std::atomic<bool> lacks{false};
    const seccomp_test::Answers sends(SYS_sendto, [&](int) { return lacks ? ENOBUFS : 0; });
    baton::run([&] {
        Pair pair = tcp_pair();
        lacks = true;
        const int before = sends.calls();
        std::error_code ec;
        pair.client.write("lost", ec);
        CHECK(ec == std::errc::no_buffer_space);
        CHECK(sends.calls() == before + 1);
        lacks = false;
        pair.client.write("sent");
        char buf[8];
        CHECK(pair.server.read(buf, sizeof buf) == 4);
        CHECK(std::string_view(buf, 4) == "sent");
    });
    child_process::reached();
}

TEST_CASE("ENOBUFS is its send's own error, and the connection stays") {
    child_process::check_works(child_process::run_child("sends that find no room in the machine"));
}

namespace {

std::atomic<long> g_signals{0};

/// Sends SIGUSR1 to every thread but its own, again and again. System calls are not restarted.
class Storm {
public:
    Storm() {
        struct sigaction action {};
        action.sa_handler = [](int) { g_signals.fetch_add(1); };
        ::sigaction(SIGUSR1, &action, &old_);
        thread_ = std::jthread([](const std::stop_token& stop) {
            const long self = ::syscall(SYS_gettid);
            while (!stop.stop_requested()) {
                DIR* tasks = ::opendir("/proc/self/task");
                while (const dirent* task = ::readdir(tasks)) {
                    const long tid = std::atol(task->d_name);
                    if (tid > 0 && tid != self) ::syscall(SYS_tgkill, ::getpid(), tid, SIGUSR1);
                }
                ::closedir(tasks);
                std::this_thread::sleep_for(50us);
            }
        });
    }
    ~Storm() {
        thread_.request_stop();
        thread_.join();
        const struct sigaction ignore { {SIG_IGN}, {}, 0, nullptr };
        ::sigaction(SIGUSR1, &ignore, nullptr); // one may still be pending
    }
    Storm(const Storm&) = delete;
    Storm& operator=(const Storm&) = delete;

private:
    struct sigaction old_ {};
    std::jthread thread_;
};

/// Dials, asks and answers; whether all was right.
bool exchange(Listener& listener, int i) {
    baton::WaitGroup wg;
    wg.go([&listener] {
        Conn conn = listener.accept();
        char buf[4096];
        while (const std::size_t n = conn.read(buf, sizeof buf))
            conn.write(std::string_view(buf, n));
    });
    Conn conn = Conn::dial("tcp", listener.address(), 30s);
    const std::string question(static_cast<std::size_t>(1 + i * 997 % 40'000), char('a' + i % 26));
    std::string answer(question.size(), '\0');
    wg.go([&] { conn.write(question); });
    const bool same = read_all(conn, answer.data(), answer.size()) && answer == question;
    conn.shutdown_write();
    wg.wait();
    return same;
}

} // namespace

TEST_CASE("a storm of signals on all threads: no call ends early for it") {
    for (const int procs : {1, 2, 4, 8}) {
        baton::run([procs] { baton::set_max_procs(procs); });
        const Storm storm;
        const long before = g_signals;
        int wrong = 0;
        baton::run([&wrong, before] {
            Listener listener = Listener::listen("tcp", "127.0.0.1:0");
            // At least until the storm has come.
            for (int i = 0; i < 60 || g_signals == before; i++) wrong += !exchange(listener, i);
            // Waits keep to their time as well.
            auto [idle, other] = Conn::pair();
            const auto start = Steady::now();
            std::error_code ec;
            char c;
            idle.read(into({&c, 1}), 20ms, ec);
            CHECK(ec == std::errc::timed_out);
            CHECK(Steady::now() - start >= 20ms);
        });
        CHECK(wrong == 0);
    }
}
