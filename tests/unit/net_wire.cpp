// SPDX-License-Identifier: Apache-2.0
//
// Sockets over a bad wire: in a network namespace of the test's own, a TUN device whose other end
// is a goroutine here. It hands each packet back with sender and receiver exchanged, late, or not
// at all: so who dials 10.9.0.2 reaches 10.9.0.1 by way of the wire. (The checksums stay right, as
// the order of their terms does not matter.) Needs no netem, which not every kernel has.
// run: engines
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../support/net.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using baton::AsyncFd;
using Steady = std::chrono::steady_clock;

namespace {

bool set_up(const char* name, const char* address) {
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifreq request{};
    std::strcpy(request.ifr_name, name);
    bool ok = true;
    if (address) {
        auto* in4 = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
        in4->sin_family = AF_INET;
        ::inet_pton(AF_INET, address, &in4->sin_addr);
        ok = ::ioctl(fd, SIOCSIFADDR, &request) == 0;
        ::inet_pton(AF_INET, "255.255.255.0", &in4->sin_addr);
        ok = ok && ::ioctl(fd, SIOCSIFNETMASK, &request) == 0;
    }
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    ok = ok && ::ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    ::close(fd);
    return ok;
}

/// The device's descriptor, in a namespace that the whole process has for itself from here on; made
/// before there are other threads. -1 if that is not allowed.
const int g_tun = [] {
    if (::unshare(CLONE_NEWNET) != 0) return -1;
    const int fd = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    ifreq request{};
    std::strcpy(request.ifr_name, "wire");
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    const bool ok = fd >= 0 && ::ioctl(fd, TUNSETIFF, &request) == 0 && set_up("lo", nullptr) &&
                    set_up("wire", "10.9.0.1");
    return ok ? fd : -1;
}();

bool missing() {
    if (g_tun < 0) std::puts("skip: no network namespace or no TUN device (needs root)");
    return g_tun < 0;
}

class Wire {
public:
    Wire() : tun_(AsyncFd::adopt(::dup(g_tun))) {
        wg_.go([this] { take(); });
        wg_.go([this] { give(); });
    }
    ~Wire() {
        tun_.close();
        wg_.wait();
    }
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;

    std::atomic<unsigned> lost_percent{0};
    std::atomic<long> lost{0};
    std::atomic<long> passed{0};

private:
    static constexpr auto kDelay = 2ms;
    struct Late {
        Steady::time_point when;
        std::string packet;
    };

    void take() {
        char buf[2048];
        std::uint64_t random = 88172645463325252;
        for (;;) {
            std::error_code ec;
            const std::size_t n = tun_.read(std::as_writable_bytes(std::span(buf)), ec);
            if (ec) break;
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if (random % 100 < lost_percent || buf[0] >> 4 != 4) {
                lost++;
                continue;
            }
            std::swap_ranges(buf + 12, buf + 16, buf + 16);
            late_.send({Steady::now() + kDelay, std::string(buf, n)});
        }
        late_.close();
    }
    void give() {
        for (const Late& late : late_) {
            baton::sleep_until(late.when);
            std::error_code ec;
            tun_.write(std::as_bytes(std::span(late.packet)), ec);
            passed++;
        }
    }

    AsyncFd tun_;
    baton::Chan<Late> late_{4096};
    baton::WaitGroup wg_;
};

std::string far_side(const Listener& listener) {
    return "10.9.0.2:" + std::to_string(listener.port());
}

} // namespace

TEST_CASE("late and lost packets: all arrives, in order, on many connections at once") {
    if (missing()) return;
    for (const int procs : {1, 2, 4, 8}) {
        baton::run([procs] {
            baton::set_max_procs(procs);
            Wire wire;
            wire.lost_percent = 3;
            Listener listener = Listener::listen("tcp", "10.9.0.1:0");
            baton::WaitGroup wg;
            std::atomic<int> right{0};
            constexpr int kConns = 8;
            constexpr std::size_t kSize = 60'000;
            for (int i = 0; i < kConns; i++) {
                wg.go([&] {
                    Conn conn = listener.accept(60s);
                    char buf[3000];
                    while (const std::size_t n = conn.read(buf, sizeof buf))
                        conn.write(std::string_view(buf, n));
                });
                wg.go([&, i] {
                    Conn conn = Conn::dial("tcp", far_side(listener), 60s);
                    std::string sent(kSize, '\0');
                    for (std::size_t j = 0; j < kSize; j++)
                        sent[j] = static_cast<char>(j * 7 + j / 253 + static_cast<std::size_t>(i));
                    std::string got(kSize, '\0');
                    baton::WaitGroup writer;
                    writer.go([&] {
                        conn.write(sent);
                        conn.shutdown_write();
                    });
                    right += read_all(conn, got.data(), kSize) && got == sent;
                    writer.wait();
                });
            }
            wg.wait();
            CHECK(right == kConns);
            CHECK(wire.passed > kConns * 10);
            CHECK(wire.lost > 0);
        });
    }
}

TEST_CASE("a wire that goes dead: dials, reads and writes are given up, keep-alive notices") {
    if (missing()) return;
    baton::run([] {
        baton::set_max_procs(2);
        Wire wire;
        Listener listener = Listener::listen("tcp", "10.9.0.1:0");
        Conn client = Conn::dial("tcp", far_side(listener), 10s);
        Conn server = listener.accept(10s);
        server.set_keep_alive(baton::KeepAlive{1s, 1s, 1});
        client.write("alive");
        char buf[16];
        CHECK(read_all(server, buf, 5));
        wire.lost_percent = 100;
        std::error_code ec;
        CHECK_FALSE(Conn::dial("tcp", far_side(listener), 50ms, ec));
        CHECK(ec == std::errc::timed_out);
        const std::vector<std::byte> much(32 << 20);
        const std::size_t n = client.write(much, 50ms, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n < much.size());
        // The other end is open for all the server knows, until nobody answers its questions.
        CHECK(server.read(std::as_writable_bytes(std::span(buf)), ec) == 0);
        CHECK(ec == std::errc::timed_out);
    });
}

TEST_CASE("a head start is enough for a slow wire; a dead one is passed by") {
    if (missing()) return;
    baton::run([] {
        Wire wire;
        Listener far = Listener::listen("tcp", "10.9.0.1:0");
        Listener near = Listener::listen("tcp", "127.0.0.1:0");
        const baton::SocketAddress list[] = {baton::SocketAddress::parse("tcp", far_side(far)),
                                             baton::SocketAddress::parse("tcp", near.address())};
        CHECK(Conn::dial(list, 30s, {.head_start = 10s}).remote_address() == far_side(far));
        wire.lost_percent = 100;
        CHECK(Conn::dial(list, 30s).remote_address() == near.address());
    });
}

namespace {

/// So many bytes of notices there may be on a socket. False if that is not this namespace's to say.
bool allow_notices(const char* bytes) {
    const int fd = ::open("/proc/sys/net/core/optmem_max", O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && ::write(fd, bytes, std::strlen(bytes)) > 0;
    ::close(fd);
    if (!ok) std::puts("skip: net.core.optmem_max is not this namespace's own");
    return ok;
}

} // namespace

TEST_CASE("ENOBUFS for a write that is not copied is its error, and passes") {
    if (missing() || !allow_notices("1")) return;
    baton::run([&] {
        Pair pair = tcp_pair();
        std::error_code ec;
        const std::vector<std::byte> data(100'000);
        pair.client.write_zero_copy(data, 10s, ec);
        CHECK(ec == std::errc::no_buffer_space);
        CHECK(pair.client.write("copied") == 6);
        REQUIRE(allow_notices("131072"));
        char buf[8];
        CHECK(read_all(pair.server, buf, 6));
        baton::WaitGroup wg;
        wg.go([&] {
            std::vector<char> all(data.size());
            CHECK(read_all(pair.server, all.data(), all.size()));
        });
        CHECK(pair.client.write_zero_copy(data, 10s, ec) == data.size());
        CHECK_FALSE(ec);
        wg.wait();
    });
}

TEST_CASE("a write that is not copied goes on when notices of its own have made room for more") {
    if (missing() || !allow_notices("2000")) return; // two or three at once
    baton::run([] {
        Pair pair = tcp_pair();
        baton::WaitGroup wg;
        std::size_t got = 0;
        wg.go([&] {
            std::vector<char> buf(100'000);
            while (const std::size_t n = pair.server.read(buf.data(), buf.size())) {
                got += n;
                baton::sleep_for(10us); // each send finds but a little room
            }
        });
        const std::vector<std::byte> data(20 << 20);
        CHECK(pair.client.write_zero_copy(data) == data.size());
        pair.client.shutdown_write();
        wg.wait();
        CHECK(got == data.size());
    });
    REQUIRE(allow_notices("131072"));
}
