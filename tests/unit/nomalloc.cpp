// SPDX-License-Identifier: Apache-2.0
//
// A goroutine may be preempted inside malloc, with its lock held. So the runtime must never wait
// for that lock (persistentalloc.hpp): here each call of malloc's is looked at, and a single arena
// is fought over by hogs that do nothing else.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <execinfo.h>
#include <malloc.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/entry.hpp"
#include "support/child.hpp"

using namespace std::chrono_literals;
using namespace child_process;
using baton::WaitGroup;
using Clock = std::chrono::steady_clock;

#if !defined(BATON_ASAN) && !defined(BATON_TSAN)

namespace {

constexpr int kDepth = 16;
std::atomic<bool> watching{false};
std::atomic<int> by_runtime{0};
void* first_stack[kDepth];
int first_depth = 0;

std::atomic<bool> counting{false};
std::atomic<int> counted{0};

// Called in malloc and free.
void look() {
    if (!watching && !counting) return;
    const baton::rt::M* m = baton::rt::getm_or_null();
    if (counting && m && m->curg) counted++; // by goroutines
    if (!watching) return;
    if (!m || baton::rt::in_gcode(m) || baton::rt::in_bracket(m)) return;
    if (by_runtime++ == 0) first_depth = backtrace(first_stack, kDepth);
}

} // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t n) {
    look();
    return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
    look();
    return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
    look();
    return __libc_realloc(p, n);
}
void free(void* p) {
    if (p) look();
    __libc_free(p);
}
}

namespace {

void talk_over_tcp() {
    baton::Listener listener = baton::Listener::listen("tcp", "127.0.0.1:0");
    WaitGroup wg;
    wg.go([&] {
        baton::Conn conn = listener.accept();
        char buffer[64];
        std::size_t n = 0;
        while ((n = conn.read(std::as_writable_bytes(std::span(buffer)))) != 0)
            conn.write(std::as_bytes(std::span(buffer, n)));
    });
    baton::Conn conn = baton::Conn::dial("tcp", listener.address());
    for (int i = 0; i < 50; i++) {
        char c = 'x';
        conn.write(std::as_bytes(std::span(&c, 1)));
        CHECK(conn.read(std::as_writable_bytes(std::span(&c, 1))) == 1);
    }
    conn.close();
    wg.wait();
}

template <std::size_t... I>
std::size_t select_over(const std::array<baton::Chan<int>, 16>& c, std::index_sequence<I...>) {
    return baton::select(baton::on_recv(c[I])...);
}

void everything() {
    WaitGroup wg;
    baton::Chan<int> values(4);
    baton::Mutex mutex;
    for (int i = 0; i < 2000; i++) {
        wg.go([&, i] {
            baton::sleep_for(std::chrono::microseconds(i % 97 * 10));
            std::unique_lock lock(mutex);
            baton::yield();
        });
    }
    for (int i = 0; i < 40; i++) {
        wg.go([] { baton::blocking([] { ::usleep(3000); }); });
        wg.go([] { ::usleep(3000); });
        wg.go([] {
            baton::lock_os_thread(); // its end is its thread's
            baton::sleep_for(1ms);
        });
    }
    for (int n : {1, 3, 64, 2}) {
        baton::set_max_procs(n);
        baton::sleep_for(5ms);
    }
    std::thread plain([&] {
        for (int i = 0; i < 100; i++) values.send(i);
        values.close();
    });
    for (int k = 0; k < 4; k++) {
        wg.go([] { // preempted, with others waiting
            for (const auto until = Clock::now() + 60ms; Clock::now() < until;) {
            }
        });
    }
    while (values.recv()) {
    }
    talk_over_tcp();
    wg.wait();
    plain.join();
}

} // namespace

TEST_CASE("nothing is allocated by channels and selects over 16 of them") {
    baton::run([] {
        std::array<baton::Chan<int>, 16> c;
        const baton::Chan<std::size_t> chosen;
        const baton::Chan<int> full(1);
        full.send(0);
        constexpr int kRounds = 200;
        baton::go([&] {
            for (int i = 0; i < kRounds; i++)
                chosen.send(select_over(c, std::make_index_sequence<16>()));
        });
        baton::sleep_for(1ms);
        std::stop_source source;
        std::error_code ec;
        counting.store(true);
        for (std::size_t i = 0; i < kRounds; i++) {
            c[i % 16].send(1);
            if (*chosen.recv() != i % 16) counted += 1'000'000;
            int value = 1;
            (void)full.try_send(value, ec);
            (void)full.send(value, 10us, ec);
            (void)c[0].recv({10us, source.get_token()}, ec);
            baton::select(baton::on_recv(c[1]), baton::on_until(10us));
        }
        counting.store(false);
        CHECK(counted.load() == 0);
    });
}

TEST_CASE("child: nothing in the runtime" * doctest::skip()) {
    void* warm[1];
    (void)backtrace(warm, 1); // loads a library, with malloc
    baton::run([] { baton::sleep_for(1ms); });
    watching = true;
    for (int i = 0; i < 3; i++) baton::run(everything);
    watching = false;
    if (by_runtime != 0) backtrace_symbols_fd(first_stack, first_depth, 1);
    CHECK(by_runtime == 0);
    reached();
}

TEST_CASE("child: one arena" * doctest::skip()) {
    mallopt(M_ARENA_MAX, 1);
    std::atomic<bool> stop{false};
    std::atomic<long> rounds{0};
    baton::run([&] {
        WaitGroup wg;
        auto churn = [&] {
            while (!stop) {
                void* volatile p = std::malloc(3000); // more than a thread keeps for itself
                void* volatile q = std::malloc(70'000);
                std::free(p);
                std::free(q);
                rounds++;
            }
        };
        for (int i = 0; i < 8; i++) wg.go(churn);
        for (int i = 0; i < 4; i++) {
            wg.go([&] {
                while (!stop) {
                    baton::blocking([] { ::usleep(500); });
                    baton::go([p = std::string(2000, 'x')] { (void)p; });
                }
            });
        }
        const auto until = Clock::now() + 2s;
        for (int n = 1; Clock::now() < until; n = n % 8 + 1) {
            baton::set_max_procs(n);
            baton::sleep_for(10ms);
        }
        stop = true;
        wg.wait();
    });
    CHECK(rounds > 100);
    reached();
}

TEST_CASE("nomalloc: nothing in the runtime calls malloc or free once it runs") {
    for (const char* tier : {"probe", "understudy", "sysmon"}) {
        const Child child =
            run_child("nothing in the runtime", {std::string("BATON_ASSIST=") + tier});
        INFO(child.output);
        check_works(child);
    }
}

TEST_CASE("nomalloc: goroutines preempted inside malloc hold up nobody for good") {
    for (const char* tier : {"probe", "understudy", "sysmon"}) {
        const Child child = run_child("one arena", {std::string("BATON_ASSIST=") + tier});
        INFO(child.output);
        check_works(child);
    }
}

#else

TEST_CASE("nomalloc: a sanitizer's malloc is its own") {
    std::printf("skip: a sanitizer replaces malloc\n");
    CHECK(baton::rt::getm_or_null() == nullptr);
}

#endif
