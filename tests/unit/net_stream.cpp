// SPDX-License-Identifier: Apache-2.0
// run: tiers
// run: engines
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include "../support/net.hpp"

using namespace std::chrono_literals;
using namespace net_test;
using std::chrono::steady_clock;

TEST_CASE("half close: the peer reads the end and can still answer") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        pair.client.write("question");
        pair.client.shutdown_write();
        char buf[64];
        // The bytes and the end may come with one event: the short read must not hide the end.
        std::string got;
        while (const std::size_t n = pair.server.read(buf, sizeof buf)) got.append(buf, n);
        CHECK(got == "question");
        CHECK(pair.server.read(buf, sizeof buf) == 0);
        CHECK(pair.server.write("answer") == 6);
        CHECK(pair.client.read(buf, sizeof buf) == 6);
        std::error_code ec;
        pair.client.write(std::as_bytes(std::span("x", 1)), ec);
        CHECK(ec == std::errc::broken_pipe);
    });
}

TEST_CASE("a large write to a slow reader arrives whole") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        constexpr std::size_t kSize = 8 << 20;
        baton::WaitGroup wg;
        wg.go([&] {
            std::string data(kSize, '\0');
            for (std::size_t i = 0; i < kSize; i++) data[i] = static_cast<char>(i * 7 + (i >> 12));
            CHECK(pair.client.write(data) == kSize);
            pair.client.close();
        });
        std::size_t at = 0;
        bool same = true;
        std::vector<char> buf(100'000);
        while (const std::size_t n = pair.server.read(buf.data(), buf.size())) {
            for (std::size_t i = 0; i < n; i++, at++)
                same = same && buf[i] == static_cast<char>(at * 7 + (at >> 12));
            if (at % 16 == 0) baton::sleep_for(100us);
        }
        wg.wait();
        CHECK(at == kSize);
        CHECK(same);
    });
}

TEST_CASE("a reused descriptor number never gets an old event") {
    on_goroutine([] {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        int reused = 0;
        for (int i = 0; i < 300; i++) {
            int number;
            {
                // Events of this one (data, then a reset) are on their way while it is closed.
                Pair old = connect_pair(listener);
                number = old.server.fd();
                old.client.write("stale");
                old.server.close();
            }
            Pair fresh = connect_pair(listener);
            reused += fresh.server.fd() == number || fresh.client.fd() == number;
            std::error_code ec;
            char buf[16];
            fresh.server.set_read_deadline(steady_clock::now() + 300us);
            const std::size_t n = fresh.server.read(std::as_writable_bytes(std::span(buf)), ec);
            // Neither data nor the end, nor a read error of the old one.
            CHECK(n == 0);
            CHECK(ec == std::errc::timed_out);
            fresh.server.set_read_deadline({});
            fresh.client.write("new");
            CHECK(fresh.server.read(buf, sizeof buf) == 3);
        }
        CHECK(reused > 0); // else the test has tested nothing
    });
}

namespace {

struct Random {
    std::uint64_t state;
    std::uint64_t operator()() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
};

/// Mostly small, at times larger than any buffer here.
std::size_t length_of_message(Random& random) {
    const std::uint64_t most = random() % 8 == 0 ? 20'000 : 300;
    return 1 + random() % most;
}

/// Sends `rounds` messages of random length with random pauses, then closes: the last one goes out
/// together with the end of the stream.
void send_messages(Conn& conn, int rounds, std::uint64_t seed) {
    Random random{seed};
    char value = 0;
    for (int i = 0; i < rounds; i++) {
        std::string message(length_of_message(random), '\0');
        for (char& c : message) c = value++;
        conn.write(message);
        switch (random() % 4) {
        case 0:
            baton::sleep_for(std::chrono::microseconds(random() % 200));
            break;
        case 1:
            baton::yield();
            break;
        default:
            break;
        }
    }
    conn.close();
}

/// Reads to the end with buffers of random sizes; how many bytes came, or -1 for a wrong one.
long receive_messages(Conn& conn, std::uint64_t seed) {
    Random random{seed};
    char value = 0;
    long total = 0;
    std::vector<char> buf(4096);
    for (;;) {
        const std::size_t want = 1 + random() % buf.size();
        const std::size_t n = conn.read(buf.data(), want);
        if (n == 0) return total;
        total += static_cast<long>(n);
        for (std::size_t i = 0; i < n; i++)
            if (buf[i] != value++) return -1;
        if (random() % 8 == 0) baton::yield();
    }
}

/// What send_messages sends in all.
long length_of(int rounds, std::uint64_t seed) {
    Random random{seed};
    long total = 0;
    for (int i = 0; i < rounds; i++) {
        total += static_cast<long>(length_of_message(random));
        if (random() % 4 == 0) random();
    }
    return total;
}

} // namespace

TEST_CASE("short reads lose nothing, whatever comes in between") {
    on_goroutine([] {
        constexpr int kStreams = 16;
        constexpr int kRounds = 300;
        for (const char* address : {"127.0.0.1:0", ""}) {
            const bool tcp = *address != 0;
            Listener listener =
                tcp ? Listener::listen("tcp", address)
                    : Listener::listen("unix", "@baton-short-" + std::to_string(::getpid()));
            baton::WaitGroup wg;
            std::atomic<int> wrong{0};
            for (int i = 0; i < kStreams; i++) {
                const auto seed = static_cast<std::uint64_t>(i) * 7919 + 17;
                auto pair = std::make_shared<Pair>(connect_pair(listener));
                wg.go([pair, seed] { send_messages(pair->client, kRounds, seed); });
                wg.go([pair, seed, &wrong] {
                    if (receive_messages(pair->server, seed + 1) != length_of(kRounds, seed))
                        wrong++;
                });
            }
            wg.wait();
            CHECK(wrong == 0);
        }
    });
}

TEST_CASE("data and the end of the stream in one event") {
    on_goroutine([] {
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        for (int i = 0; i < 200; i++) {
            Pair pair = connect_pair(listener);
            char buf[64];
            baton::WaitGroup wg;
            const bool parked = i % 2 == 0;
            wg.go([&] {
                if (parked) baton::sleep_for(50us);
                pair.client.write("last words");
                pair.client.close();
            });
            if (!parked) wg.wait(); // both are there before the first read
            CHECK(pair.server.read(buf, sizeof buf) == 10);
            CHECK(pair.server.read(buf, sizeof buf) == 0);
            wg.wait();
        }
    });
}

TEST_CASE("a read that stops at urgent data does not lose what is behind it") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        const int fd = pair.client.fd();
        REQUIRE(::send(fd, "before", 6, 0) == 6);
        REQUIRE(::send(fd, "!", 1, MSG_OOB) == 1);
        REQUIRE(::send(fd, "behind", 6, 0) == 6);
        baton::sleep_for(2ms);
        char buf[64];
        std::string got;
        pair.server.set_read_deadline(steady_clock::now() + 5s);
        while (got.size() < 12) got.append(buf, pair.server.read(buf, sizeof buf));
        CHECK(got == "beforebehind");
    });
}

TEST_CASE("a read that stops where a message with descriptors ends loses nothing behind it") {
    on_goroutine([] {
        Listener listener = Listener::listen("unix", "@baton-rights-" + std::to_string(::getpid()));
        Pair pair = connect_pair(listener);
        for (int round = 0; round < 20; round++) {
            char text[] = "with";
            iovec part{text, 4};
            alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr* rights = CMSG_FIRSTHDR(&message);
            rights->cmsg_level = SOL_SOCKET;
            rights->cmsg_type = SCM_RIGHTS;
            rights->cmsg_len = CMSG_LEN(sizeof(int));
            std::memcpy(CMSG_DATA(rights), "\0\0\0", sizeof(int)); // descriptor 0
            REQUIRE(::sendmsg(pair.client.fd(), &message, 0) == 4);
            pair.client.write("behind");
            char buf[64];
            std::string got;
            pair.server.set_read_deadline(steady_clock::now() + 5s);
            while (got.size() < 10) got.append(buf, pair.server.read(buf, sizeof buf));
            CHECK(got == "withbehind");
        }
    });
}

namespace {

/// How many read(2) and the like this process has made, or 0 where the kernel does not count.
long reads_made() {
    std::ifstream io("/proc/self/io");
    std::string name;
    for (long value; io >> name >> value;)
        if (name == "syscr:") return value;
    return 0;
}

} // namespace

TEST_CASE("after a short read the next one waits without asking the kernel first") {
    if (reads_made() == 0) {
        std::puts("skip: this kernel does not count reads (/proc/self/io)");
        return;
    }
    if (std::string_view(std::getenv("BATON_POLL") ? std::getenv("BATON_POLL") : "") == "uring") {
        std::puts("skip: io_uring tells of what is there at every event of a socket");
        return;
    }
    baton::run([] { baton::set_max_procs(1); });
    baton::run([] {
        Pair pair = tcp_pair();
        baton::WaitGroup wg;
        constexpr long kRounds = 1000;
        wg.go([&] {
            char buf[256];
            while (const std::size_t n = pair.server.read(buf, sizeof buf))
                pair.server.write(std::string_view(buf, n));
        });
        const long before = reads_made();
        char buf[256];
        for (long i = 0; i < kRounds; i++) {
            pair.client.write("ping");
            pair.client.read(buf, sizeof buf);
        }
        // Two a round; with an attempt in vain before each there were four.
        CHECK(reads_made() - before < 5 * kRounds / 2);
        pair.client.close();
        wg.wait();
    });
}

TEST_CASE("requests and answers on one connection, each read short") {
    on_goroutine([] {
        Pair pair = tcp_pair();
        baton::WaitGroup wg;
        constexpr int kRounds = 3000;
        wg.go([&] {
            char buf[256];
            while (const std::size_t n = pair.server.read(buf, sizeof buf))
                pair.server.write(std::string_view(buf, n));
        });
        char buf[256];
        bool same = true;
        for (int i = 0; i < kRounds; i++) {
            const std::string request = std::to_string(i);
            pair.client.write(request);
            same = same && read_all(pair.client, buf, request.size()) &&
                   std::string(buf, request.size()) == request;
        }
        CHECK(same);
        pair.client.close();
        wg.wait();
    });
}

TEST_CASE("200 connections at once, four goroutines accepting") {
    on_goroutine([] {
        constexpr int kClients = 200;
        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        const std::string address = listener.address();
        baton::WaitGroup acceptors, servers, clients;
        std::atomic<int> accepted{0};
        std::atomic<int> good{0};
        for (int i = 0; i < 4; i++) {
            acceptors.go([&] {
                for (;;) {
                    std::error_code ec;
                    auto conn = std::make_shared<Conn>(listener.accept(ec));
                    if (ec) return;
                    accepted++;
                    servers.go([conn] {
                        char buf[128];
                        while (const std::size_t n = conn->read(buf, sizeof buf))
                            conn->write(std::string_view(buf, n));
                    });
                }
            });
        }
        for (int i = 0; i < kClients; i++) {
            clients.go([&, i] {
                Conn conn = Conn::dial("tcp", address);
                char buf[32];
                for (int round = 0; round < 10; round++) {
                    const std::string text = std::to_string(i * 100 + round);
                    conn.write(text);
                    if (!read_all(conn, buf, text.size())) return;
                    if (std::string(buf, text.size()) != text) return;
                }
                good++;
            });
        }
        clients.wait();
        listener.close();
        acceptors.wait();
        servers.wait();
        CHECK(accepted == kClients);
        CHECK(good == kClients);
    });
}
