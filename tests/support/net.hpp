// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the network share. No CAPTURE and no INFO where a goroutine may park: doctest
// keeps those in thread_locals.
#pragma once

#include <algorithm>
#include <doctest/doctest.h>

#include <cstddef>
#include <span>
#include <string>
#include <system_error>

#include <dirent.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "runtime/netpoll.hpp"

namespace net_test {

using baton::Conn;
using baton::Listener;

inline int open_descriptors() {
    int n = 0;
    DIR* dir = ::opendir("/proc/self/fd");
    while (::readdir(dir)) n++;
    ::closedir(dir);
    return n;
}

/// Runs `f` as a goroutine, over several numbers of processors, and proves that it leaves no
/// descriptor behind.
template <class F>
void on_goroutine(F f) {
    for (int procs : {1, 2, 4, 8}) {
        CAPTURE(procs);
        baton::run([procs] { baton::set_max_procs(procs); });
        int before = open_descriptors(); // a thread that begins has one for a moment
        for (int i = 0; i < 20; i++, ::usleep(1000)) before = std::min(before, open_descriptors());
        baton::run(f);
        // A goroutine's own objects go a moment after whoever waited for it has been told.
        // And the runtime itself has one open for a moment now and then.
        int after = open_descriptors();
        for (int i = 0; i < 1000 && after != before; i++, ::usleep(1000))
            after = open_descriptors();
        CHECK(after == before);
        CHECK(!baton::rt::netpoll_any_waiters()); // TestNetpollWaiters
    }
}

struct Pair {
    Conn client;
    Conn server;
};

inline Pair connect_pair(Listener& listener) {
    Pair pair;
    baton::WaitGroup wg;
    const std::string network = listener.port() != 0 ? "tcp" : "unix";
    wg.go([&] { pair.client = Conn::dial(network, listener.address()); });
    pair.server = listener.accept();
    wg.wait();
    return pair;
}

inline Pair tcp_pair() {
    Listener listener = Listener::listen("tcp", "127.0.0.1:0");
    return connect_pair(listener);
}

inline bool read_all(Conn& conn, char* p, std::size_t n) {
    while (n > 0) {
        const std::size_t got = conn.read(p, n);
        if (got == 0) return false;
        p += got;
        n -= got;
    }
    return true;
}

inline std::error_code read_error(Conn& conn) {
    std::error_code ec;
    char buf[64];
    conn.read(std::as_writable_bytes(std::span(buf)), ec);
    return ec;
}

} // namespace net_test
