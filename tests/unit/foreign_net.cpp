// SPDX-License-Identifier: Apache-2.0
//
// Plain threads that use sockets as goroutines do.
// run: tiers
// run: engines
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <system_error>
#include <thread>

#include <unistd.h>

#include "baton/baton.hpp"

using namespace std::chrono_literals;
using baton::Conn;
using baton::Listener;
using baton::WaitGroup;
using Clock = std::chrono::steady_clock;

TEST_CASE("foreign_net: a plain thread accepts, reads and writes, a goroutine at the other end") {
    for (const int procs : {1, 2, 4}) {
        baton::set_max_procs(procs);
        Listener listener = Listener::listen("tcp", "127.0.0.1:0"); // on this thread, as the rest
        WaitGroup wg;
        wg.go([&] {
            Conn conn = Conn::dial("tcp", listener.address());
            char buf[64];
            for (int i = 0; i < 200; i++) {
                conn.write("ping");
                CHECK(conn.read(buf, sizeof buf) == 4);
            }
        });
        Conn conn = listener.accept();
        char buf[64];
        int turns = 0;
        while (conn.read(buf, sizeof buf) != 0) {
            conn.write("pong");
            turns++;
        }
        CHECK(turns == 200);
        wg.wait();
    }
}

TEST_CASE("foreign_net: plain threads at both ends, and nobody else awake") {
    Listener listener = Listener::listen("unix", "@baton-both-" + std::to_string(::getpid()));
    std::thread client([&] {
        Conn conn = Conn::dial("unix", listener.address());
        char buf[8];
        for (int i = 0; i < 50; i++) {
            conn.write("x");
            CHECK(conn.read(buf, sizeof buf) == 1);
            if (i % 10 == 0) std::this_thread::sleep_for(15ms); // all Ms go to sleep meanwhile
        }
    });
    Conn conn = listener.accept();
    char buf[8];
    while (conn.read(buf, sizeof buf) != 0) conn.write("y");
    client.join();
}

TEST_CASE("foreign_net: deadlines on plain threads") {
    Listener listener = Listener::listen("tcp", "127.0.0.1:0");
    std::error_code ec;
    auto start = Clock::now();
    listener.set_deadline(start + 40ms);
    (void)listener.accept(ec);
    CHECK(ec == std::errc::timed_out);
    CHECK(Clock::now() - start >= 40ms);
    CHECK(Clock::now() - start < 5s);
    listener.set_deadline({});
    Conn client = Conn::dial("tcp", listener.address(), Clock::now() + 10s);
    Conn server = listener.accept();
    std::byte buf[16];
    for (int i = 0; i < 5; i++) {
        start = Clock::now();
        server.set_read_deadline(start + 20ms);
        CHECK(server.read(buf, ec) == 0);
        CHECK(ec == std::errc::timed_out);
        CHECK(Clock::now() - start >= 20ms);
    }
    // Moved while it waits, from a goroutine; and cut short by close.
    server.set_read_deadline(Clock::now() + 1h);
    baton::go([&] {
        baton::sleep_for(20ms);
        server.set_read_deadline(Clock::now());
    });
    CHECK(server.read(buf, ec) == 0);
    CHECK(ec == std::errc::timed_out);
    server.set_read_deadline({});
    std::thread closer([&] {
        std::this_thread::sleep_for(20ms);
        server.close();
    });
    CHECK(server.read(buf, ec) == 0);
    CHECK(ec == std::errc::bad_file_descriptor);
    closer.join();
}

TEST_CASE("foreign_net: a deadline set by a plain thread wakes a goroutine while all else sleeps") {
    Listener listener = Listener::listen("tcp", "127.0.0.1:0");
    for (int i = 0; i < 20; i++) {
        WaitGroup wg;
        std::error_code ec;
        wg.go([&] { (void)listener.accept(ec); });
        std::this_thread::sleep_for(2ms);
        listener.set_deadline(Clock::now() + 3ms);
        wg.wait();
        CHECK(ec == std::errc::timed_out);
        listener.set_deadline({});
    }
}
