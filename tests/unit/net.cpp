// SPDX-License-Identifier: Apache-2.0
// run: tiers
// run: engines
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../support/net.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using std::chrono::steady_clock;

namespace {

void echo_once(const char* network, const std::string& address) {
    Listener listener = Listener::listen(network, address);
    Pair pair = connect_pair(listener);
    CHECK(pair.client.write("hello") == 5);
    char buf[16] = {};
    CHECK(pair.server.read(buf, sizeof buf) == 5);
    CHECK(std::string(buf) == "hello");
    CHECK(pair.server.write("hello back") == 10);
    CHECK(pair.client.read(buf, sizeof buf) == 10);
    CHECK(std::string(buf) == "hello back");
    CHECK(pair.client.remote_address() == listener.address());
    CHECK(pair.client.local_address() == pair.server.remote_address());
    pair.client.close();
    CHECK(pair.server.read(buf, sizeof buf) == 0);
    CHECK_FALSE(pair.client);
    CHECK(pair.client.fd() == -1);
}

bool have_ipv6() {
    const int fd = ::socket(AF_INET6, SOCK_STREAM, 0);
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_addr = in6addr_loopback;
    const bool ok = fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0;
    if (fd >= 0) ::close(fd);
    return ok;
}

std::string scratch_path(const char* name) {
    return "/tmp/baton-net-" + std::to_string(::getpid()) + '-' + name;
}

bool exists(const std::string& path) {
    struct stat st;
    return ::stat(path.c_str(), &st) == 0;
}

} // namespace

TEST_CASE("echo over TCP, IPv4") {
    on_goroutine([] { echo_once("tcp", "127.0.0.1:0"); });
    on_goroutine([] { echo_once("tcp", "localhost:0"); });
}

TEST_CASE("echo over TCP, IPv6") {
    if (!have_ipv6()) {
        std::puts("skip: no IPv6 on this machine");
        return;
    }
    on_goroutine([] { echo_once("tcp", "[::1]:0"); });
}

TEST_CASE("echo over Unix sockets; close removes the path") {
    const std::string path = scratch_path("echo");
    on_goroutine([&] {
        echo_once("unix", path);
        CHECK_FALSE(exists(path));
    });
    on_goroutine([] { echo_once("unix", "@baton-net-" + std::to_string(::getpid())); });
}

TEST_CASE("close leaves a file alone that has taken the listener's place") {
    const std::string path = scratch_path("replaced");
    on_goroutine([&] {
        Listener listener = Listener::listen("unix", path);
        CHECK(exists(path));
        ::unlink(path.c_str());
        Listener other = Listener::listen("unix", path);
        listener.close();
        CHECK(exists(path));
        other.close();
        CHECK_FALSE(exists(path));
    });
}

TEST_CASE("an empty host listens on both families") {
    on_goroutine([] {
        Listener listener = Listener::listen("tcp", ":0");
        const std::string port = std::to_string(listener.port());
        CHECK(listener.port() != 0);
        for (std::string host : {"127.0.0.1", "[::1]", "localhost", ""}) {
            if (host == "[::1]" && !have_ipv6()) continue;
            Conn client = Conn::dial("tcp", host + ':' + port);
            Conn server = listener.accept();
            CHECK(server.remote_address() == client.local_address());
        }
    });
}

TEST_CASE("TCP_NODELAY is on at both ends; descriptors are closed on exec") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        for (int fd : {pair.client.fd(), pair.server.fd()}) {
            int on = 0;
            socklen_t len = sizeof on;
            CHECK(::getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0);
            CHECK(on != 0);
            CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
            CHECK((::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
        }
    });
}

TEST_CASE("addresses that are none") {
    struct Bad {
        const char* network;
        std::string address;
        std::errc want;
    };
    const Bad all[] = {
        {"tcp6", "127.0.0.1:80", std::errc::address_family_not_supported},
        {"tcp4", "[::1]:80", std::errc::address_family_not_supported},
        {"tcp", "127.0.0.1", std::errc::invalid_argument},
        {"tcp", "127.0.0.1:", std::errc::invalid_argument},
        {"tcp", "127.0.0.1:65536", std::errc::invalid_argument},
        {"tcp", "127.0.0.1:http", std::errc::invalid_argument},
        {"tcp", "127.0.0.1:-1", std::errc::invalid_argument},
        {"tcp", "::1:80", std::errc::invalid_argument},
        {"tcp", "[fe80::1%nosuchif0]:80", std::errc::no_such_device},
        {"udp", "127.0.0.1:80", std::errc::invalid_argument},
        {"unix", "", std::errc::invalid_argument},
        {"unix", std::string(200, 'x'), std::errc::filename_too_long},
    };
    on_goroutine([&] {
        for (const Bad& bad : all) {
            std::error_code ec;
            CHECK_FALSE(Conn::dial(bad.network, bad.address, {}, ec));
            CHECK_MESSAGE(ec == bad.want, bad.address);
            CHECK(Listener::listen(bad.network, bad.address, ec).fd() == -1);
            CHECK_MESSAGE(ec == bad.want, bad.address);
        }
    });
}

TEST_CASE("exceptions name the operation and the address") {
    on_goroutine([] {
        try {
            Conn::dial("tcp", "127.0.0.1");
            FAIL("it was dialled");
        } catch (const std::system_error& e) {
            CHECK(std::string(e.what()).find("dial tcp 127.0.0.1 (no port") != std::string::npos);
        }
        Pair pair = tcp_pair();
        pair.client.set_read_deadline(steady_clock::now());
        char c;
        try {
            pair.client.read(&c, 1);
            FAIL("it was read");
        } catch (const std::system_error& e) {
            const std::string want = "read tcp " + pair.client.remote_address();
            CHECK(std::string(e.what()).find(want) != std::string::npos);
            CHECK(e.code() == std::errc::timed_out);
        }
    });
}

TEST_CASE("a listening port is taken, a free one refuses") {
    on_goroutine([] {
        std::error_code ec;
        std::string address;
        {
            Listener listener = Listener::listen("tcp", "127.0.0.1:0");
            address = listener.address();
            Listener second = Listener::listen("tcp", address, ec);
            CHECK(ec == std::errc::address_in_use);
        }
        Conn conn = Conn::dial("tcp", address, {}, ec);
        CHECK(ec == std::errc::connection_refused);
        conn = Conn::dial("unix", scratch_path("nobody"), {}, ec);
        CHECK(ec == std::errc::no_such_file_or_directory);
    });
}

TEST_CASE("a port is free when the close of its listener has returned") {
    on_goroutine([] {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        const std::string address = listener.address();
        int taken = 0;
        for (int i = 0; i < 200; i++) {
            baton::WaitGroup wg;
            std::error_code ec;
            wg.go([&] { listener.accept(ec); });
            if (i % 2 == 0) baton::sleep_for(100us);
            listener.close();
            wg.wait();
            listener = Listener::listen("tcp", address, ec);
            if (!ec) continue;
            taken++;
            baton::sleep_for(50ms);
            listener = Listener::listen("tcp", address);
        }
        CHECK(taken == 0);
    });
}

TEST_CASE("read deadlines, and reading on after one") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        const auto start = steady_clock::now();
        pair.client.set_read_deadline(start + 5ms);
        CHECK(read_error(pair.client) == std::errc::timed_out);
        const auto took = steady_clock::now() - start;
        CHECK(took >= 5ms);
        CHECK(took < 2s);
        CHECK(read_error(pair.client) == std::errc::timed_out); // it stays passed
        CHECK(pair.client.write("x") == 1);                     // the other direction has none
        pair.client.set_read_deadline({});
        pair.server.write("y");
        char c = 0;
        CHECK(pair.client.read(&c, 1) == 1);
        CHECK(c == 'y');
    });
}

TEST_CASE("a deadline is seen by who is parked already, and may be moved") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        baton::WaitGroup wg;
        std::error_code ec;
        wg.go([&] { ec = read_error(pair.client); });
        baton::sleep_for(5ms);
        pair.client.set_deadline(steady_clock::now() + 10s);
        baton::sleep_for(1ms);
        pair.client.set_deadline(steady_clock::now() - 1s);
        wg.wait();
        CHECK(ec == std::errc::timed_out);
        // Moved before it fires: nobody is woken.
        pair.client.set_read_deadline(steady_clock::now() + 3ms);
        pair.client.set_read_deadline(steady_clock::now() + 10s);
        wg.go([&] {
            baton::sleep_for(20ms);
            pair.server.write("z");
        });
        CHECK_FALSE(read_error(pair.client));
        wg.wait();
    });
}

TEST_CASE("a write deadline: some went out") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        const std::vector<std::byte> much(64 << 20);
        pair.client.set_write_deadline(steady_clock::now() + 20ms);
        std::error_code ec;
        const std::size_t n = pair.client.write(much, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n > 0);
        CHECK(n < much.size());
    });
}

TEST_CASE("accept and dial deadlines") {
    on_goroutine([] {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        listener.set_deadline(steady_clock::now() + 3ms);
        std::error_code ec;
        CHECK_FALSE(listener.accept(ec));
        CHECK(ec == std::errc::timed_out);
        listener.set_deadline({});
        Conn past = Conn::dial("tcp", listener.address(), steady_clock::now() - 1s, ec);
        CHECK(ec == std::errc::timed_out);
        Conn good = Conn::dial("tcp", listener.address(), steady_clock::now() + 10s, ec);
        CHECK_FALSE(ec);
        CHECK(listener.accept());
        // The dial's deadline is not the connection's.
        CHECK(good.write("a") == 1);
    });
}

TEST_CASE("a dial gives up at its deadline when the queue is full") {
    on_goroutine([] {
        // A listener that never accepts, with room for one.
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const std::string name = "baton-full-" + std::to_string(::getpid());
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        name.copy(a.sun_path + 1, name.size());
        const auto len = static_cast<socklen_t>(sizeof a.sun_family + 1 + name.size());
        REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&a), len) == 0);
        REQUIRE(::listen(fd, 0) == 0);
        std::vector<Conn> kept;
        std::error_code ec;
        const auto start = steady_clock::now();
        for (int i = 0; i < 4 && !ec; i++)
            kept.push_back(Conn::dial("unix", '@' + name, steady_clock::now() + 20ms, ec));
        CHECK(ec == std::errc::timed_out);
        CHECK(steady_clock::now() - start < 5s);
        ::close(fd);
    });
}

TEST_CASE("close wakes a parked reader, writer and acceptor") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        const std::vector<std::byte> much(64 << 20);
        std::error_code read_ec, write_ec, accept_ec, second_ec;
        baton::WaitGroup wg;
        wg.go([&] { read_ec = read_error(pair.client); });
        wg.go([&] { second_ec = read_error(pair.client); }); // queues behind the first
        wg.go([&] { pair.client.write(much, write_ec); });
        wg.go([&] { listener.accept(accept_ec); });
        baton::sleep_for(10ms);
        pair.client.close();
        listener.close();
        pair.client.close(); // does nothing
        wg.wait();
        CHECK(read_ec == std::errc::bad_file_descriptor);
        CHECK(second_ec == std::errc::bad_file_descriptor);
        CHECK(write_ec == std::errc::bad_file_descriptor);
        CHECK(accept_ec == std::errc::bad_file_descriptor);
        CHECK(read_error(pair.client) == std::errc::bad_file_descriptor);
    });
}

TEST_CASE("the number of a closed descriptor is not free before the last operation left (I1)") {
    baton::run([] { baton::set_max_procs(1); });
    baton::run([] {
        Pair pair = tcp_pair();
        const int number = pair.client.fd();
        baton::WaitGroup wg;
        std::error_code ec;
        wg.go([&] { ec = read_error(pair.client); });
        baton::sleep_for(2ms);
        // One processor, and we do not park: the reader has been woken but is still inside.
        pair.client.close();
        CHECK(pair.client.fd() == -1);
        CHECK(::fcntl(number, F_GETFD) != -1);
        wg.wait();
        CHECK(ec == std::errc::bad_file_descriptor);
        CHECK(::fcntl(number, F_GETFD) == -1);
    });
}

TEST_CASE("close from a thread that is no goroutine") {
    baton::run([] { baton::set_max_procs(2); });
    Pair pair;
    baton::WaitGroup wg;
    std::error_code ec;
    baton::run([&] {
        pair = tcp_pair();
        pair.client.set_read_deadline(steady_clock::now() + 1h);
        wg.go([&] { ec = read_error(pair.client); });
        baton::sleep_for(5ms);
    });
    pair.client.close();
    baton::run([&] { wg.wait(); });
    CHECK(ec == std::errc::bad_file_descriptor);
}
