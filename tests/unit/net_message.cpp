// SPDX-License-Identifier: Apache-2.0
//
// Datagrams, vectors, descriptors that are sent, writes that are not copied, half-closed reads.
// run: engines
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../support/files.hpp"
#include "../support/net.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using baton::Packet;
using baton::PacketConn;
using baton::SocketAddress;

namespace {

std::span<const std::byte> text(std::string_view s) { return std::as_bytes(std::span(s)); }
std::span<std::byte> room(std::span<char> s) { return std::as_writable_bytes(s); }

} // namespace

TEST_CASE("UDP: from any to any, and connected") {
    on_goroutine([] {
        for (const char* address : {"127.0.0.1:0", "localhost:0", ":0"}) {
            PacketConn server = PacketConn::bind("udp", address);
            const int port = server.local_address().port();
            PacketConn client = PacketConn::dial("udp4", "127.0.0.1:" + std::to_string(port));
            CHECK(client.remote_address().port() == port);
            CHECK(client.send(text("ping")) == 4);
            char buf[16];
            SocketAddress from;
            CHECK(server.recv_from(room(buf), from) == 4);
            CHECK(from.text() == client.local_address().text());
            CHECK(server.send_to(text("pong!"), from) == 5);
            CHECK(client.recv(room(buf)) == 5);
            CHECK(std::string_view(buf, 5) == "pong!");
            CHECK(client.send(text("")) == 0); // a datagram all the same
            CHECK(server.recv(room(buf)) == 0);
            CHECK(client.send(text("0123456789")) == 10);
            CHECK(server.recv(room(std::span(buf).first(4))) == 4); // cut
            std::error_code ec;
            CHECK(server.recv(room(buf), 2ms, ec) == 0);
            CHECK(ec == std::errc::timed_out);
        }
    });
}

TEST_CASE("UDP: nobody there is told to who is connected") {
    on_goroutine([] {
        std::string address;
        {
            PacketConn gone = PacketConn::bind("udp", "127.0.0.1:0");
            address = gone.local_address().text();
        }
        PacketConn client = PacketConn::dial("udp", address);
        client.send(text("hello?"));
        char buf[8];
        std::error_code ec;
        client.recv(room(buf), 10s, ec);
        CHECK(ec == std::errc::connection_refused);
    });
}

TEST_CASE("UDP: many in one system call") {
    on_goroutine([] {
        PacketConn server = PacketConn::bind("udp", "127.0.0.1:0");
        PacketConn client = PacketConn::bind("udp", "127.0.0.1:0");
        constexpr std::size_t kMany = 50;
        std::vector<std::string> texts;
        for (std::size_t i = 0; i < kMany; i++) texts.push_back("packet " + std::to_string(i));
        std::vector<Packet> out(kMany);
        for (std::size_t i = 0; i < kMany; i++) {
            out[i].data = room(texts[i]);
            out[i].address = server.local_address();
        }
        CHECK(client.send_batch(out) == kMany);
        char bufs[8][16];
        std::vector<Packet> in(8);
        for (std::size_t i = 0; i < in.size(); i++) in[i].data = room(bufs[i]);
        in[3].data = in[3].data.first(4);
        for (std::size_t got = 0; got < kMany;) {
            const std::size_t n = server.recv_batch(in);
            REQUIRE(n > 0);
            for (std::size_t i = 0; i < n; i++, got++) {
                CHECK(in[i].cut == (i == 3));
                const std::string_view s(bufs[i], in[i].size);
                CHECK(s == std::string_view(texts[got]).substr(0, in[i].data.size()));
                CHECK(in[i].address == client.local_address());
            }
        }
        std::error_code ec;
        CHECK(server.recv_batch(in, 1ms, ec) == 0);
        CHECK(ec == std::errc::timed_out);
    });
}

TEST_CASE("Unix datagrams keep their borders, and wait for room with the receiver") {
    on_goroutine([] {
        const std::string path = "/tmp/baton-gram-" + std::to_string(::getpid());
        PacketConn server = PacketConn::bind("unixgram", path);
        PacketConn client = PacketConn::dial("unixgram", path);
        baton::WaitGroup wg;
        constexpr int kMany = 1000; // more than a receiver's queue holds
        wg.go([&] {
            for (int i = 0; i < kMany; i++) client.send(text(std::to_string(i)));
        });
        char buf[16];
        SocketAddress from;
        int right = 0;
        for (int i = 0; i < kMany; i++) {
            const std::size_t n = server.recv_from(room(buf), from);
            right += std::string_view(buf, n) == std::to_string(i);
        }
        wg.wait();
        CHECK(right == kMany);
        CHECK(server.send_to(text("back"), from) == 4); // it has a name to answer to
        CHECK(client.recv(room(buf)) == 4);
        server.close();
        CHECK(::access(path.c_str(), F_OK) != 0);
    });
}

TEST_CASE("a Unix datagram waits for room with a receiver it is not connected to") {
    on_goroutine([] {
        const std::string name = "@baton-room-" + std::to_string(::getpid());
        PacketConn server = PacketConn::bind("unixgram", name);
        PacketConn client = PacketConn::bind("unixgram", name + "-client");
        const SocketAddress to = SocketAddress::parse("unixgram", name);
        std::error_code ec;
        int sent = 0;
        while (client.send_to(text("full"), to, 2ms, ec) != 0) sent++;
        CHECK(ec == std::errc::timed_out);
        CHECK(sent > 0);
        baton::WaitGroup wg;
        wg.go([&] {
            for (int i = 0; i < 100; i++) client.send_to(text("more"), to);
        });
        char buf[8];
        for (int i = 0; i < sent + 100; i++) CHECK(server.recv(room(buf)) == 4);
        wg.wait();
    });
}

TEST_CASE("close wakes who waits for a datagram") {
    on_goroutine([] {
        PacketConn server = PacketConn::bind("udp", "127.0.0.1:0");
        baton::WaitGroup wg;
        std::error_code ec;
        wg.go([&] {
            char buf[8];
            server.recv(room(buf), {}, ec);
        });
        baton::sleep_for(3ms);
        server.close();
        wg.wait();
        CHECK(ec == std::errc::bad_file_descriptor);
    });
}

TEST_CASE("vectors: any number of parts, empty ones too, to a slow reader") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        std::string all;
        std::vector<std::string> parts;
        for (int i = 0; i < 300; i++) {
            parts.push_back(
                std::string(static_cast<std::size_t>(i % 7 * i * 40), char('a' + i % 26)));
            all += parts.back();
        }
        std::vector<std::span<const std::byte>> out;
        for (const std::string& part : parts) out.push_back(text(part));
        baton::WaitGroup wg;
        std::size_t sent = 0;
        wg.go([&] {
            sent = pair.client.writev(out);
            pair.client.shutdown_write();
        });
        std::string got;
        char a[100], b[1], c[5000];
        const std::span<std::byte> in[] = {room(a), {}, room(b), room(c)};
        while (const std::size_t n = pair.server.readv(in)) {
            const std::size_t from_a = std::min(n, sizeof a);
            got.append(a, from_a);
            if (n > sizeof a) got.append(b, 1);
            if (n > sizeof a + 1) got.append(c, n - sizeof a - 1);
            if (got.size() % 5 == 0) baton::yield();
        }
        wg.wait();
        CHECK(sent == all.size());
        CHECK(got == all);
        const std::vector<std::byte> much(32 << 20);
        const std::span<const std::byte> twice[] = {much, much};
        std::error_code ec;
        const std::size_t n = pair.server.writev(twice, 5ms, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n > 0);
        CHECK(n < 2 * much.size());
        CHECK(pair.client.readv({}) == 0);
    });
}

TEST_CASE("descriptors go along with bytes, and are another process's own then") {
    on_goroutine([] {
        auto [left, right] = Conn::pair();
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        CHECK(left.send_fds(text("two"), ends) == 3);
        CHECK(left.send_fds(text("none"), {}) == 4);
        char buf[16];
        std::vector<int> fds;
        CHECK(right.recv_fds(room(buf), fds) == 3); // not what came after
        REQUIRE(fds.size() == 2);
        CHECK((::fcntl(fds[0], F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(::write(fds[1], "x", 1) == 1);
        CHECK(::read(ends[0], buf, 1) == 1);
        for (const int fd : {ends[0], ends[1], fds[0], fds[1]}) ::close(fd);
        CHECK(right.recv_fds(room(buf), fds) == 4);
        CHECK(fds.size() == 2);
        std::error_code ec;
        right.recv_fds(room(buf), fds, 2ms, ec);
        CHECK(ec == std::errc::timed_out);
        left.send_fds({}, {}, {}, ec);
        CHECK(ec == std::errc::invalid_argument);
        Pair tcp = tcp_pair();
        tcp.client.send_fds(text("x"), {}, {}, ec);
        CHECK(ec == std::errc::operation_not_supported);
    });
}

TEST_CASE("descriptors that there is no room for are not lost unheard") {
    on_goroutine([] {
        auto [left, right] = Conn::pair();
        const int sent[] = {::dup(0), ::dup(0), ::dup(0), ::dup(0), ::dup(0)};
        left.send_fds(text("five"), sent);
        rlimit limit;
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
        const rlimit few{static_cast<rlim_t>(sent[4]) + 3, limit.rlim_max};
        std::vector<int> fds;
        std::error_code ec;
        char buf[8];
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
        const std::size_t n = right.recv_fds(room(buf), fds, ec);
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        CHECK(n == 4);
        CHECK(ec == std::errc::too_many_files_open);
        CHECK(fds.size() < 5);
        for (const int fd : fds) ::close(fd);
        for (const int fd : sent) ::close(fd);
        // What else comes along takes no room from them.
        const int on = 1;
        REQUIRE(::setsockopt(right.fd(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
        const std::vector<int> many(253, 0);
        fds.clear();
        left.send_fds(text("many"), many);
        CHECK(right.recv_fds(room(buf), fds, ec) == 4);
        CHECK_FALSE(ec);
        CHECK(fds.size() == many.size());
        for (const int fd : fds) ::close(fd);
    });
}

TEST_CASE("a file is sent within the kernel, to a slow reader and to none") {
    on_goroutine([] {
        const files_test::Scratch scratch;
        auto file = baton::File::open(scratch / "f", O_RDWR | O_CREAT);
        std::string data(8 << 20, '\0');
        for (std::size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * 31 + i / 251);
        file.write(text(data));
        Pair pair = tcp_pair();
        std::string got;
        baton::WaitGroup wg;
        wg.go([&] {
            std::vector<char> buf(70'000);
            while (const std::size_t n = pair.client.read(buf.data(), buf.size())) {
                got.append(buf.data(), n);
                baton::sleep_for(20us);
            }
        });
        std::int64_t at = 5;
        CHECK(pair.server.send_file(file.fd(), &at, 2 * data.size()) == data.size() - 5); // its end
        CHECK(at == static_cast<std::int64_t>(data.size()));
        CHECK(pair.server.send_file(file.fd(), nullptr, 3) == 0); // its position
        CHECK(::lseek(file.fd(), 1, SEEK_SET) == 1);
        CHECK(pair.server.send_file(file.fd(), nullptr, 3) == 3);
        pair.server.shutdown_write();
        wg.wait();
        CHECK(got == data.substr(5) + data.substr(1, 3));

        Pair idle = tcp_pair();
        std::error_code ec;
        at = 0;
        const std::size_t n = idle.server.send_file(file.fd(), &at, data.size(), 5ms, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n < data.size());
        CHECK(at == static_cast<std::int64_t>(n));
        idle.client.close(); // with bytes unread: a reset
        while (!ec || ec == std::errc::timed_out)
            idle.server.send_file(file.fd(), &(at = 0), 10, 1ms, ec);
        idle.server.send_file(file.fd(), &at, 10, ec);
        CHECK(ec == std::errc::broken_pipe); // and no SIGPIPE
        sigset_t pending;
        REQUIRE(::sigpending(&pending) == 0);
        CHECK(::sigismember(&pending, SIGPIPE) == 0);
        pair.client.send_file(-1, nullptr, 1, ec);
        CHECK(ec == std::errc::bad_file_descriptor);
    });
}

TEST_CASE("a write that is not copied has been acknowledged when it returns") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        std::string data(3 << 20, '\0');
        for (std::size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * 31 + i / 251);
        baton::WaitGroup wg;
        std::string got;
        wg.go([&] {
            std::vector<char> buf(70'000);
            while (const std::size_t n = pair.server.read(buf.data(), buf.size()))
                got.append(buf.data(), n);
        });
        for (int i = 0; i < 3; i++) CHECK(pair.client.write_zero_copy(text(data)) == data.size());
        CHECK(pair.client.write("end") == 3);
        pair.client.shutdown_write();
        wg.wait();
        CHECK(got == data + data + data + "end");
        std::error_code ec;
        auto [left, right] = Conn::pair();
        left.write_zero_copy(text("x"), {}, ec);
        CHECK(ec == std::errc::operation_not_supported);
        // To who does not read it is given up as any write.
        Pair slow = tcp_pair();
        const std::vector<std::byte> much(64 << 20);
        const std::size_t n = slow.client.write_zero_copy(much, 20ms, ec);
        CHECK(ec == std::errc::timed_out);
        CHECK(n < much.size());
    });
}

TEST_CASE("a read that is shut down finds the end, parked or not") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        baton::WaitGroup wg;
        std::size_t n = 1;
        char buf[8];
        wg.go([&] { n = pair.server.read(buf, sizeof buf); });
        baton::sleep_for(3ms);
        pair.server.shutdown_read();
        wg.wait();
        CHECK(n == 0);
        CHECK(pair.server.read(buf, sizeof buf) == 0);
        CHECK(pair.server.write("still") == 5);
        CHECK(pair.client.read(buf, sizeof buf) == 5);
    });
}

TEST_CASE("two readers and two writers on one connection: each call whole, nothing lost") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        constexpr int kRounds = 200;
        constexpr std::size_t kSize = 50'000; // several sends each, where the buffer is full
        baton::WaitGroup writers, readers;
        for (const char mark : {'a', 'b'}) {
            writers.go([&pair, mark] {
                const std::string block(kSize, mark);
                for (int i = 0; i < kRounds; i++) pair.client.write(block);
            });
        }
        std::atomic<long> count[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
            readers.go([&] {
                std::vector<char> buf(kSize / 4);
                while (const std::size_t n = pair.server.read(buf.data(), buf.size()))
                    for (std::size_t j = 0; j < n; j++) count[buf[j] == 'b']++;
            });
        }
        writers.wait();
        pair.client.shutdown_write();
        readers.wait();
        CHECK(count[0] == kRounds * static_cast<long>(kSize));
        CHECK(count[1] == kRounds * static_cast<long>(kSize));
        // With one reader the blocks are seen not to mix.
        Pair second = tcp_pair();
        for (const char mark : {'a', 'b'}) {
            writers.go([&second, mark] {
                const std::string block(kSize, mark);
                for (int i = 0; i < kRounds; i++) second.client.write(block);
            });
        }
        std::string block(kSize, '\0');
        int mixed = 0;
        for (int i = 0; i < 2 * kRounds; i++) {
            REQUIRE(read_all(second.server, block.data(), kSize));
            mixed += block.find_first_not_of(block[0]) != std::string::npos;
        }
        writers.wait();
        CHECK(mixed == 0);
    });
}
