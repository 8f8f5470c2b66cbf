// SPDX-License-Identifier: Apache-2.0
//
// Waits on sockets that are given up, each on its own; and connections that cannot be had for a
// while.
// run: tiers
// run: engines
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "../support/net.hpp"
#include "io/fdmutex.hpp"
#include "support/child.hpp"
#include "support/seccomp.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using baton::Until;
using Steady = std::chrono::steady_clock;

namespace {

std::span<std::byte> bytes(std::span<char> text) { return std::as_writable_bytes(text); }

template <class F>
std::error_code code_thrown(F&& f) {
    try {
        f();
    } catch (const std::system_error& e) {
        return e.code();
    }
    return {};
}

double cpu_ms() {
    rusage use{};
    ::getrusage(RUSAGE_SELF, &use);
    const auto ms = [](const timeval& t) { return t.tv_sec * 1e3 + t.tv_usec / 1e3; };
    return ms(use.ru_utime) + ms(use.ru_stime);
}

} // namespace

TEST_CASE("a deadline of its own ends a read, a write, an accept and a dial's wait") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        char c;
        const auto start = Steady::now();
        std::error_code ec;
        CHECK(pair.client.read(bytes({&c, 1}), 2ms, ec) == 0);
        CHECK(ec == std::errc::timed_out);
        CHECK(Steady::now() - start >= 2ms);
        CHECK_FALSE(listener.accept(2ms, ec));
        CHECK(ec == std::errc::timed_out);
        const std::vector<std::byte> much(64 << 20);
        const std::size_t n = pair.client.write(much, 20ms, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n > 0);
        CHECK(n < much.size());
        CHECK(code_thrown([&] { pair.client.read(bytes({&c, 1}), 1ms); }) == std::errc::timed_out);
        CHECK(code_thrown([&] { (void)listener.accept(1ms); }) == std::errc::timed_out);
        CHECK(code_thrown([&] { pair.client.write(much, 1ms); }) == std::errc::timed_out);
        CHECK(code_thrown([&] { Conn::dial("tcp", listener.address(), -1s); }) ==
              std::errc::timed_out);
        // None of that is the connection's: what was written is what is read, and no more.
        std::size_t got = 0;
        std::vector<std::byte> buf(1 << 20);
        while (pair.server.read(buf, 50ms, ec) > 0) got++;
        CHECK(ec == std::errc::timed_out);
        CHECK(pair.server.write("answer") == 6);
        CHECK(pair.client.read(buf) == 6);
        CHECK(got > 0);
    });
}

TEST_CASE("what a given-up write has sent is what it says") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        const std::vector<std::byte> much(8 << 20);
        std::error_code ec;
        const std::size_t sent = pair.client.write(much, 5ms, ec);
        REQUIRE(ec == std::errc::timed_out);
        pair.client.shutdown_write();
        std::size_t got = 0;
        std::vector<std::byte> buf(1 << 20);
        while (const std::size_t n = pair.server.read(buf)) got += n;
        CHECK(got == sent);
    });
}

TEST_CASE("a stop token ends them, whoever requests it") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        const std::vector<std::byte> much(64 << 20);
        std::stop_source source;
        std::error_code read_ec, queued_ec, write_ec, accept_ec;
        baton::WaitGroup wg;
        char c, d;
        wg.go([&] { pair.client.read(bytes({&c, 1}), source.get_token(), read_ec); });
        wg.go([&] { pair.client.read(bytes({&d, 1}), source.get_token(), queued_ec); });
        wg.go([&] { pair.client.write(much, {1h, source.get_token()}, write_ec); });
        wg.go([&] { (void)listener.accept(source.get_token(), accept_ec); });
        baton::sleep_for(5ms);
        std::thread([&] { source.request_stop(); }).join();
        wg.wait();
        CHECK(read_ec == std::errc::operation_canceled);
        CHECK(queued_ec == std::errc::operation_canceled);
        CHECK(write_ec == std::errc::operation_canceled);
        CHECK(accept_ec == std::errc::operation_canceled);
        // And one that was requested before.
        CHECK(code_thrown([&] {
                  pair.client.read(bytes({&c, 1}), source.get_token());
              }) == std::errc::operation_canceled);
        CHECK(code_thrown([&] { (void)listener.accept(source.get_token()); }) ==
              std::errc::operation_canceled);
        CHECK(code_thrown([&] {
                  (void)Conn::dial("tcp", listener.address(), source.get_token());
              }) == std::errc::operation_canceled);
    });
}

TEST_CASE("a context ends a read") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        auto context = baton::with_timeout(baton::Context::background(), 3ms);
        std::error_code ec;
        char c;
        pair.client.read(bytes({&c, 1}), context, ec);
        CHECK(ec == std::errc::timed_out);
    });
}

TEST_CASE("what can be done at once is done, though the time is over") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        std::stop_source stopped;
        stopped.request_stop();
        char buf[16];
        for (const Until& until : {Until(-1s), Until(stopped.get_token())}) {
            // The second round reads after a short read, when a read would wait first.
            for (int i = 0; i < 3; i++) {
                CHECK(pair.server.write(std::as_bytes(std::span("data", 4)), until) == 4);
                std::error_code ec;
                std::size_t n = 0;
                while (n == 0)
                    n = pair.client.read(bytes(buf), until, ec); // loopback, but softirqs
                CHECK(n == 4);
                CHECK_FALSE(ec);
            }
            Conn client = Conn::dial("tcp", listener.address());
            std::error_code ec;
            while (!listener.accept(until, ec)) {
            }
        }
    });
}

TEST_CASE("who waits behind another reader gives up alone, and the others go on") {
    on_goroutine([] {
        for (int round = 0; round < 20; round++) {
            Pair pair = tcp_pair();
            constexpr int kReaders = 8;
            std::atomic<int> got{0}, gave_up{0}, other{0};
            baton::WaitGroup wg;
            for (int i = 0; i < kReaders; i++) {
                wg.go([&, i] {
                    char c;
                    std::error_code ec;
                    if (i % 2 == 0) {
                        pair.server.read(bytes({&c, 1}), std::chrono::microseconds(100 * i), ec);
                    } else {
                        pair.server.read(bytes({&c, 1}), ec);
                    }
                    (!ec ? got : ec == std::errc::timed_out ? gave_up : other)++;
                });
            }
            for (int sent = 0; got < kReaders / 2 || sent == 0; sent++) {
                pair.client.write("x");
                baton::sleep_for(200us);
            }
            pair.server.shutdown_read(); // whoever is left reads the end
            wg.wait();
            CHECK(got + gave_up == kReaders);
            CHECK(other == 0);
        }
    });
}

TEST_CASE("who gives up behind another leaves no trace in the queue") {
    on_goroutine([] {
        using Side = baton::detail::FdMutex::Side;
        for (const Side side : {Side::kRead, Side::kWrite}) {
            baton::detail::FdMutex mu;
            REQUIRE(mu.enter(side, nullptr) == 0);
            baton::WaitGroup wg;
            for (int i = 0; i < 20; i++) {
                wg.go([&, i] {
                    const Until until(std::chrono::microseconds(20 * i));
                    const int err = mu.enter(side, &until);
                    if (err == 0 && mu.leave(side)) std::abort();
                });
            }
            baton::sleep_for(200us);
            CHECK_FALSE(mu.leave(side));
            wg.wait();
            CHECK(mu.retire() == 0); // nobody is counted
        }
    });
}

TEST_CASE("the end of the time and the data race, and nothing is lost") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        constexpr int kMessages = 2000;
        baton::WaitGroup wg;
        wg.go([&] {
            for (int i = 0; i < kMessages; i++) {
                pair.client.write("1234567");
                if (i % 3 == 0) baton::sleep_for(20us);
            }
            pair.client.shutdown_write();
        });
        std::size_t got = 0;
        int given_up = 0;
        int early = 0;
        for (char buf[64];;) {
            std::error_code ec;
            std::stop_source source;
            std::size_t n = given_up % 2
                                ? pair.server.read(bytes(buf), 15us, ec)
                                : pair.server.read(bytes(buf), {10us, source.get_token()}, ec);
            got += n;
            if (ec == std::errc::timed_out) {
                given_up++;
                // What ended that wait does not end this one, however late it comes.
                got += n = pair.server.read(bytes(buf), 1h, ec);
                early += ec == std::errc::timed_out;
            }
            if (n == 0 && !ec) break;
        }
        wg.wait();
        CHECK(early == 0);
        CHECK(given_up > 0);
        CHECK(got == 7 * kMessages);
    });
}

TEST_CASE("a wait of one's own and the connection's deadline hold side by side") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        char c;
        std::error_code ec;
        pair.client.set_read_deadline(Steady::now() + 2ms);
        pair.client.read(bytes({&c, 1}), 1h, ec);
        CHECK(ec == std::errc::timed_out);
        pair.client.set_read_deadline({});
        pair.client.read(bytes({&c, 1}), 2ms, ec);
        CHECK(ec == std::errc::timed_out);
        pair.server.write("y");
        CHECK(pair.client.read(bytes({&c, 1}), 10s, ec) == 1);
    });
}

TEST_CASE("plain threads give up as well") {
    Pair pair;
    baton::run([&] { pair = tcp_pair(); });
    char c;
    std::error_code ec;
    pair.client.read(bytes({&c, 1}), 2ms, ec);
    CHECK(ec == std::errc::timed_out);
    std::stop_source source;
    std::thread stopper([&] {
        std::this_thread::sleep_for(5ms);
        source.request_stop();
    });
    pair.client.read(bytes({&c, 1}), source.get_token(), ec);
    CHECK(ec == std::errc::operation_canceled);
    stopper.join();
}

namespace {

/// No descriptor can be had while it lives.
class NoDescriptors {
public:
    NoDescriptors() {
        ::getrlimit(RLIMIT_NOFILE, &old_);
        const rlimit tight{1, old_.rlim_max}; // number 0 is in use
        ::setrlimit(RLIMIT_NOFILE, &tight);
    }
    ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &old_); }
    NoDescriptors(const NoDescriptors&) = delete;
    NoDescriptors& operator=(const NoDescriptors&) = delete;

private:
    rlimit old_{};
};

} // namespace

TEST_CASE(
    "accept waits while there are no descriptors, without spinning, and says why at the end") {
    baton::run([] {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        std::vector<Conn> clients;
        for (int i = 0; i < 8; i++) clients.push_back(Conn::dial("tcp", listener.address()));
        std::error_code ec;
        {
            const NoDescriptors none;
            const double before = cpu_ms();
            const auto start = Steady::now();
            CHECK_FALSE(listener.accept(200ms, ec));
            CHECK(ec == std::errc::too_many_files_open);
            CHECK(Steady::now() - start >= 200ms);
            CHECK(cpu_ms() - before < 150); // one that spins takes it all
            std::stop_source source;
            baton::WaitGroup wg;
            wg.go([&] { (void)listener.accept(source.get_token(), ec); });
            baton::sleep_for(10ms);
            source.request_stop();
            wg.wait();
            CHECK(ec == std::errc::operation_canceled);
        }
        // They were not lost, and there is a way out of a pause under way.
        for (std::size_t i = 0; i + 1 < clients.size(); i++) CHECK(listener.accept());
        baton::WaitGroup wg;
        {
            const NoDescriptors none;
            wg.go([&] { CHECK(listener.accept()); });
            baton::sleep_for(20ms);
        }
        wg.wait();
        clients.push_back(Conn::dial("tcp", listener.address()));
        wg.go([&] {
            const NoDescriptors none;
            (void)listener.accept(ec);
        });
        baton::sleep_for(20ms);
        listener.close();
        wg.wait();
        CHECK(ec == std::errc::bad_file_descriptor);
    });
}

TEST_CASE("child: a machine short of something" * doctest::skip()) {
    // For 5, 10, 20 and 40 ms what it takes cannot be had, then it can.
    constexpr std::array kShort = {ENFILE, ENOBUFS, ENOMEM, ENFILE};
    std::atomic<bool> lacks{false};
    std::atomic<std::size_t> refused{0};
    const seccomp_test::Answers accepts(
        SYS_accept4, [&](int) { return lacks && refused < kShort.size() ? kShort[refused++] : 0; });
    baton::run([&] {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        Conn client = Conn::dial("tcp", listener.address());
        lacks = true;
        const double cpu = cpu_ms();
        const auto start = Steady::now();
        Conn conn = listener.accept();
        CHECK(Steady::now() - start >= 75ms);
        CHECK(cpu_ms() - cpu < 50);
        CHECK(refused == kShort.size());
        CHECK(accepts.calls() == 5); // it does not spin
        client.write("served");
        char buf[8];
        CHECK(conn.read(buf, sizeof buf) == 6);
        // Its limit tells why.
        refused = 0;
        std::error_code ec;
        CHECK_FALSE(listener.accept(10ms, ec));
        CHECK((ec == std::errc::too_many_files_open_in_system || ec == std::errc::no_buffer_space));
    });
    child_process::reached();
}

TEST_CASE("accept waits while the machine is short of something, ever longer") {
    for (const auto& child : child_process::run_on_tiers("a machine short of something"))
        child_process::check_works(child);
}
