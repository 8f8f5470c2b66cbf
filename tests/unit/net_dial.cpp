// SPDX-License-Identifier: Apache-2.0
//
// Dialling: names, several addresses, options; and descriptors that change hands.
// run: engines
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../support/net.hpp"
#include "io/resolve.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using baton::DialOptions;
using baton::ListenOptions;
using baton::SocketAddress;
using Steady = std::chrono::steady_clock;

namespace {

int option(int fd, int level, int name) {
    int value = -1;
    socklen_t len = sizeof value;
    ::getsockopt(fd, level, name, &value, &len);
    return value;
}

/// A TCP listener that takes no more: whoever dials it waits for the answer to a SYN.
class Silent {
public:
    Silent() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        at.in4.sin_family = AF_INET;
        at.in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        at.len = sizeof at.in4;
        ::bind(fd_, &at.sa, at.len);
        ::listen(fd_, 0);
        ::getsockname(fd_, &at.sa, &at.len);
        for (int& fd : fill_) {
            fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            ::connect(fd, &at.sa, at.len);
        }
    }
    ~Silent() {
        ::close(fd_);
        for (const int fd : fill_) ::close(fd);
    }
    Silent(const Silent&) = delete;
    Silent& operator=(const Silent&) = delete;
    SocketAddress at;

private:
    int fd_;
    int fill_[3];
};

std::string host_name() {
    char name[256] = {};
    ::gethostname(name, sizeof name - 1);
    addrinfo* found = nullptr;
    if (::getaddrinfo(name, nullptr, nullptr, &found) != 0) return {};
    ::freeaddrinfo(found);
    return name;
}

// Of the lookups that take their time.
std::atomic<int> g_lookups = 0;
std::atomic<int> g_lookups_most = 0;

} // namespace

/// libc's, but for a name server that knows nothing, and says so when 64 have asked and nobody else
/// does for a while.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                           addrinfo** found) {
    if (std::string_view(node).ends_with(".slow.test")) {
        const int now = ++g_lookups;
        for (int most = g_lookups_most; most < now;) {
            if (g_lookups_most.compare_exchange_weak(most, now)) break;
        }
        const auto patience = Steady::now() + 500ms;
        while (g_lookups_most < 64 && Steady::now() < patience) std::this_thread::sleep_for(1ms);
        std::this_thread::sleep_for(20ms);
        g_lookups--;
        return EAI_NONAME;
    }
    static const auto libc =
        reinterpret_cast<decltype(&::getaddrinfo)>(::dlsym(RTLD_NEXT, "getaddrinfo"));
    return libc(node, service, hints, found);
}

TEST_CASE("an address that does not answer gets its head start, then the next is tried beside it") {
    on_goroutine([] {
        const Silent silent;
        Listener good = Listener::listen("tcp", "127.0.0.1:0");
        const SocketAddress list[] = {silent.at, SocketAddress::parse("tcp", good.address())};
        const auto start = Steady::now();
        Conn conn = Conn::dial(list, 10s, {.head_start = 30ms});
        CHECK(conn.remote_address() == good.address());
        CHECK(Steady::now() - start >= 30ms);
        CHECK(Steady::now() - start < 5s);
        CHECK(good.accept(10s));
    });
}

TEST_CASE("an address that refuses costs nothing; if all fail, the last one's error is told") {
    on_goroutine([] {
        std::string closed;
        {
            Listener gone = Listener::listen("tcp", "127.0.0.1:0");
            closed = gone.address();
        }
        Listener good = Listener::listen("tcp", "127.0.0.1:0");
        const SocketAddress refuses = SocketAddress::parse("tcp", closed);
        const SocketAddress list[] = {refuses, refuses,
                                      SocketAddress::parse("tcp", good.address())};
        Conn conn = Conn::dial(list, {}, {.head_start = 1h});
        CHECK(conn.remote_address() == good.address());
        std::error_code ec;
        CHECK_FALSE(Conn::dial(std::span(list).first(2), {}, ec));
        CHECK(ec == std::errc::connection_refused);
        CHECK_FALSE(Conn::dial(std::span<const SocketAddress>(), {}, ec));
        CHECK(ec == std::errc::invalid_argument);
        // Beside one that does not answer, too.
        const Silent silent;
        const SocketAddress mixed[] = {silent.at, refuses, list[2]};
        conn = Conn::dial(mixed, 10s, {.head_start = 5ms});
        CHECK(conn.remote_address() == good.address());
    });
}

TEST_CASE("a dial of many that is given up leaves nothing behind") {
    on_goroutine([] {
        const Silent one, two, three;
        const SocketAddress list[] = {one.at, two.at, three.at};
        std::error_code ec;
        CHECK_FALSE(Conn::dial(list, 30ms, ec, {.head_start = 5ms}));
        CHECK(ec == std::errc::timed_out);
        std::stop_source source;
        baton::WaitGroup wg;
        wg.go([&] { (void)Conn::dial(list, source.get_token(), ec, {.head_start = 1ms}); });
        baton::sleep_for(10ms);
        source.request_stop();
        wg.wait();
        CHECK(ec == std::errc::operation_canceled);
    });
}

TEST_CASE("names are looked up, numbers are not") {
    const std::string name = host_name();
    if (name.empty()) {
        std::puts("skip: this machine cannot resolve its own name");
        return;
    }
    // Not under on_goroutine: what resolvers keep open is theirs.
    baton::run([&] {
        const auto list = baton::resolve("tcp", name + ":80", 30s);
        CHECK_FALSE(list.empty());
        for (const SocketAddress& a : list) {
            CHECK(a.is_ip());
            CHECK(a.port() == 80);
        }
        std::error_code ec;
        CHECK(baton::resolve("tcp", "127.0.0.1:http", {}, ec).empty());
        CHECK(ec == std::errc::invalid_argument);
        CHECK(baton::resolve("tcp4", "127.0.0.1:1", {}, ec).size() == 1);
        CHECK(baton::resolve("udp", "localhost:1", {}, ec).size() == 2);
        // Given up before it began; and one that outlives who asked.
        CHECK(baton::resolve("tcp", name + ":80", -1s, ec).empty());
        CHECK(ec == std::errc::timed_out);
        // No such name has a dot at both ends.
        CHECK(baton::resolve("tcp", "..:80", 30s, ec).empty());
        CHECK(ec);
        CHECK(ec != std::errc::timed_out);
        CHECK(ec.category() == baton::resolve_category());
        CHECK_FALSE(ec.message().empty());
        std::vector<baton::Future<std::size_t>> many;
        for (int i = 0; i < 200; i++)
            many.push_back(baton::async([&] { return baton::resolve("tcp", name + ":1").size(); }));
        for (auto& f : many) CHECK(f.get() == list.size());
    });
}

TEST_CASE("64 names are looked up at once; who waits for a turn may give up") {
    baton::run([] {
        std::atomic<int> unknown = 0;
        std::atomic<int> late = 0;
        baton::WaitGroup wg;
        for (int i = 0; i < 200; i++) {
            wg.go([&, i] {
                std::error_code ec;
                const baton::Until until = i % 20 == 0 ? baton::Until(1ms) : baton::Until(30s);
                CHECK(baton::resolve("tcp", std::to_string(i) + ".slow.test:1", until, ec).empty());
                late += ec == std::errc::timed_out;
                unknown += ec == std::error_code(EAI_NONAME, baton::resolve_category());
            });
        }
        wg.wait();
        CHECK(unknown + late == 200);
        CHECK(late > 0);
        CHECK(g_lookups_most == 64);
    });
}

TEST_CASE("options are those of the socket, and of what it accepts") {
    on_goroutine([] {
        Listener plain =
            Listener::listen("tcp", "127.0.0.1:0", {.no_delay = false, .keep_alive = std::nullopt});
        Conn client = Conn::dial("tcp", plain.address(), {}, {.no_delay = false, .keep_alive = {}});
        Conn server = plain.accept();
        for (const int fd : {client.fd(), server.fd()}) {
            CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);
            CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 0);
        }
        client.set_no_delay(true);
        CHECK(option(client.fd(), IPPROTO_TCP, TCP_NODELAY) == 1);
        client.set_keep_alive(baton::KeepAlive{60s, 7s, 3});
        CHECK(option(client.fd(), IPPROTO_TCP, TCP_KEEPIDLE) == 60);
        CHECK(option(client.fd(), IPPROTO_TCP, TCP_KEEPINTVL) == 7);
        CHECK(option(client.fd(), IPPROTO_TCP, TCP_KEEPCNT) == 3);
        client.set_keep_alive({});
        CHECK(option(client.fd(), SOL_SOCKET, SO_KEEPALIVE) == 0);
        Pair pair = tcp_pair(); // the defaults
        for (const int fd : {pair.client.fd(), pair.server.fd()}) {
            CHECK(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
            CHECK(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 15);
        }
    });
}

TEST_CASE("several listeners share a port if all say so") {
    on_goroutine([] {
        const ListenOptions shared{.reuse_port = true};
        Listener one = Listener::listen("tcp", "127.0.0.1:0", shared);
        Listener two = Listener::listen("tcp", one.address(), shared);
        CHECK(two.address() == one.address());
        std::error_code ec;
        Listener three = Listener::listen("tcp", one.address(), ec);
        CHECK(ec == std::errc::address_in_use);
        // And each has its part.
        constexpr int kDials = 64;
        std::atomic<int> all = 0;
        int got[2] = {};
        baton::WaitGroup wg;
        const auto serve = [&](Listener& listener, int& n) {
            wg.go([&] {
                std::error_code closed;
                for (; listener.accept(closed); n++) all++;
            });
        };
        serve(one, got[0]);
        serve(two, got[1]);
        for (int i = 0; i < kDials; i++) CHECK(Conn::dial("tcp", one.address()));
        while (all < kDials) baton::sleep_for(1ms);
        one.close();
        two.close();
        wg.wait();
        CHECK(got[0] > 0);
        CHECK(got[1] > 0);
    });
}

TEST_CASE("of a name's addresses the families are tried in turn, IPv6 first") {
    const auto order = [](const std::vector<const char*>& found) {
        std::vector<SocketAddress> list;
        for (const char* text : found) list.push_back(SocketAddress::parse("tcp", text));
        std::string all;
        for (const SocketAddress& a : baton::detail::interleave(std::move(list)))
            all += a.text() + ' ';
        return all;
    };
    CHECK(order({"1.1.1.1:1", "2.2.2.2:2", "[::3]:3", "3.3.3.3:3", "[::4]:4"}) ==
          "[::3]:3 1.1.1.1:1 [::4]:4 2.2.2.2:2 3.3.3.3:3 ");
    CHECK(order({"[::1]:1", "[::2]:2", "[::3]:3", "1.1.1.1:1"}) ==
          "[::1]:1 1.1.1.1:1 [::2]:2 [::3]:3 ");
    CHECK(order({"1.1.1.1:1", "2.2.2.2:2"}) == "1.1.1.1:1 2.2.2.2:2 ");
    CHECK(order({}).empty());
}

TEST_CASE("tcp6 means IPv6 alone, and leaves the port to IPv4") {
    on_goroutine([] {
        std::error_code ec;
        Listener six = Listener::listen("tcp6", ":0", ec);
        if (ec) {
            std::puts("skip: no IPv6 on this machine");
            return;
        }
        CHECK(option(six.fd(), IPPROTO_IPV6, IPV6_V6ONLY) == 1);
        Listener four = Listener::listen("tcp4", ':' + std::to_string(six.port()), ec);
        for (int tries = 0; ec && tries < 5; tries++) { // another program may have that port
            six = Listener::listen("tcp6", ":0");
            four = Listener::listen("tcp4", ':' + std::to_string(six.port()), ec);
        }
        CHECK_FALSE(ec);
        Listener both = Listener::listen("tcp", ":0");
        CHECK(option(both.fd(), IPPROTO_IPV6, IPV6_V6ONLY) == 0);
        CHECK(Conn::dial("tcp4", "127.0.0.1:" + std::to_string(both.port())));
        CHECK(Conn::dial("tcp6", "[::1]:" + std::to_string(both.port())));
    });
}

TEST_CASE("descriptors are taken over and given back") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        const int number = pair.client.fd();
        int fd = pair.client.release();
        CHECK(fd == number);
        CHECK_FALSE(pair.client);
        CHECK(::send(fd, "raw", 3, 0) == 3);
        char buf[8];
        CHECK(pair.server.read(buf, sizeof buf) == 3);
        Conn again = Conn::adopt(fd);
        CHECK(again.remote_address() == pair.server.local_address());
        CHECK(again.write("back") == 4);
        CHECK(pair.server.read(buf, sizeof buf) == 4);
        // Not while a call is under way; and what is no stream socket is not taken.
        baton::WaitGroup wg;
        std::error_code ec;
        wg.go([&] { ec = read_error(again); });
        baton::sleep_for(5ms);
        CHECK_THROWS_AS((void)again.release(), std::system_error);
        again.close();
        wg.wait();
        CHECK(ec == std::errc::bad_file_descriptor);
        fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        CHECK_FALSE(Conn::adopt(fd, ec));
        CHECK(ec == std::errc::invalid_argument);
        CHECK(::close(fd) == 0); // it stayed ours
        CHECK_FALSE(Conn::adopt(-1, ec));
        CHECK(ec == std::errc::bad_file_descriptor);
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        const std::string address = listener.address();
        Listener adopted = Listener::adopt(listener.release());
        Conn client = Conn::dial("tcp", address);
        CHECK(adopted.accept());
    });
}

TEST_CASE("those who dial a busy Unix listener keep few threads") {
    on_goroutine([] {
        constexpr int kDials = 100;
        const std::string name = "@baton-busy-" + std::to_string(::getpid());
        sockaddr_un at{};
        at.sun_family = AF_UNIX;
        std::copy(name.begin() + 1, name.end(), at.sun_path + 1);
        const auto len = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
        const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&at), len) == 0);
        REQUIRE(::listen(listener, 0) == 0);
        Conn first = Conn::dial("unix", name); // fills the queue
        std::error_code ec;
        CHECK(!Conn::dial("unix", name, 10ms, ec));
        CHECK(ec == std::errc::timed_out);
        std::stop_source source;
        std::atomic<int> connected = 0;
        baton::WaitGroup stopped, wg;
        stopped.go([&] {
            std::error_code stop_ec;
            CHECK(!Conn::dial("unix", name, source.get_token(), stop_ec));
            CHECK(stop_ec == std::errc::operation_canceled);
        });
        const std::uint64_t threads = baton::stats().threads;
        for (int i = 0; i < kDials; i++) {
            wg.go([&] {
                const Conn conn = Conn::dial("unix", name);
                connected++;
            });
        }
        baton::sleep_for(10ms);
        CHECK(connected == 0);
        CHECK(baton::stats().threads < threads + 16 + 8);
        source.request_stop();
        stopped.wait();
        for (int taken = 0; taken <= kDials;) {
            const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
            if (fd < 0) {
                baton::sleep_for(1ms);
                continue;
            }
            ::close(fd);
            taken++;
        }
        wg.wait();
        CHECK(connected == kDials);
        ::close(listener);
    });
}
