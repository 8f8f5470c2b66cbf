// SPDX-License-Identifier: Apache-2.0
//
// poll of one descriptor and of several: what it waits for, and what that takes.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <string>

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "preload/hooked.hpp"
#include "preload/many.hpp"
#include "support/child.hpp"

namespace {

using namespace std::chrono_literals;
using child_process::check_works;
using child_process::reached;
using child_process::run_child;
using hooked::preload;

int open_descriptors() {
    int n = 0;
    DIR* d = ::opendir("/proc/self/fd");
    while (d && ::readdir(d)) n++;
    if (d) ::closedir(d);
    return n;
}

} // namespace

TEST_CASE("child: several" * doctest::skip()) {
    baton::run([] {
        many::Pipes pipes(2);
        const auto poll_both = [&] {
            pollfd fds[] = {{pipes.in(0), POLLIN, 0}, {pipes.in(1), POLLIN, 0}};
            return ::poll(fds, 2, -1);
        };
        const auto one_waits = [&] {
            baton::WaitGroup wg;
            int got = 0;
            wg.go([&] { got = poll_both(); });
            baton::sleep_for(20ms);
            const int there = open_descriptors();
            (void)!::write(pipes.out(1), "x", 1);
            wg.wait();
            CHECK(got == 1);
            char b[1];
            CHECK(::read(pipes.in(1), b, 1) == 1);
            return there;
        };
        (void)one_waits(); // what the runtime opens, it has by now
        CHECK(one_waits() == open_descriptors());

        // Several that wait for the same are all woken.
        baton::WaitGroup wg;
        int got = 0;
        for (int i = 0; i < 3; i++) wg.go([&] { std::atomic_ref(got) += poll_both(); });
        baton::sleep_for(20ms);
        (void)!::write(pipes.out(0), "x", 1);
        wg.wait();
        CHECK(got == 3);
        reached();
    });
}
TEST_CASE("a poll of several descriptors waits for them, and opens none") {
    check_works(run_child("several", {preload()}));
}

TEST_CASE("child: a connection" * doctest::skip()) {
    baton::run([] {
        // Numbers that goroutines have waited for before, as something else.
        const many::Pipes before(8);
        for (const int fd : before.fds) {
            pollfd one{fd, POLLIN, 0};
            CHECK(::poll(&one, 1, 1) == 0);
        }
        for (const int fd : before.fds) ::close(fd);
        auto listener = baton::Listener::listen("tcp", "127.0.0.1:0");
        auto client = baton::Conn::dial("tcp", listener.address());
        auto server = listener.accept();
        baton::WaitGroup wg;
        std::string got;
        const auto read = [&] {
            char b[8];
            got.assign(b, server.read(b, sizeof b));
        };
        for (const char* text : {"first", "second"}) {
            wg.go(read);
            baton::sleep_for(2ms);
            pollfd fds[] = {{server.fd(), POLLIN, 0}, {client.fd(), POLLIN, 0}};
            CHECK(::poll(fds, 1, 10) == 0);
            CHECK(::poll(fds, 2, 10) == 0);
            client.write(text);
            wg.wait();
            CHECK(got == text);
        }
        pollfd fds[] = {{server.fd(), POLLIN, 0}, {client.fd(), POLLIN, 0}};
        wg.go([&] {
            baton::sleep_for(10ms);
            server.write("back");
        });
        CHECK(::poll(fds, 2, -1) == 1);
        wg.wait();
        reached();
    });
}
TEST_CASE("libc's poll of a connection's descriptor takes nothing from who reads it") {
    check_works(run_child("a connection", {preload()}));
}

// Always ready, for poll and epoll, but not for what was asked.
TEST_CASE("child: urgent" * doctest::skip()) {
    baton::run([] {
        const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t len = sizeof at;
        auto* name = reinterpret_cast<sockaddr*>(&at);
        REQUIRE(::bind(listener, name, len) == 0);
        REQUIRE(::listen(listener, 1) == 0);
        REQUIRE(::getsockname(listener, name, &len) == 0);
        const int client = ::socket(AF_INET, SOCK_STREAM, 0);
        REQUIRE(::connect(client, name, len) == 0);
        const int server = ::accept(listener, nullptr, nullptr);
        CHECK(::send(client, "!", 1, MSG_OOB) == 1);
        timespec before{}, after{};
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
        pollfd one{server, POLLIN, 0};
        CHECK(::poll(&one, 1, 500) == 0);
        ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
        const double used = static_cast<double>(after.tv_sec - before.tv_sec) +
                            static_cast<double>(after.tv_nsec - before.tv_nsec) / 1e9;
        std::printf("CPU seconds: %.3f\n", used);
        if (used < 0.2) reached();
    });
}
TEST_CASE("a poll beside news that it did not ask for takes no CPU") {
    check_works(run_child("urgent", {preload()}));
}

// All of them are told of each byte, and for all but one it is gone when they look.
TEST_CASE("child: in vain" * doctest::skip()) {
    baton::run([] {
        many::Pipes pipes(2);
        REQUIRE(::fcntl(pipes.in(0), F_SETFL, O_NONBLOCK) == 0);
        baton::WaitGroup wg;
        for (int i = 0; i < many::kMany; i++)
            wg.go([&] {
                pollfd fds[] = {{pipes.in(0), POLLIN, 0}, {pipes.in(1), POLLIN, 0}};
                while (fds[1].revents == 0) {
                    (void)::poll(fds, 2, -1);
                    char b[1];
                    (void)!::read(pipes.in(0), b, 1);
                }
            });
        for (int i = 0; i < 300; i++) {
            (void)!::write(pipes.out(0), "x", 1);
            baton::sleep_for(1ms);
        }
        const baton::Stats s = baton::stats();
        std::printf("busy threads: %llu\n",
                    static_cast<unsigned long long>(s.threads - s.threads_idle));
        if (s.threads - s.threads_idle <= many::kFew) reached();
        (void)!::write(pipes.out(1), "x", 1);
        wg.wait();
    });
}
TEST_CASE("goroutines whose polls are in vain hold no threads") {
    check_works(run_child("in vain", {preload()}));
}
