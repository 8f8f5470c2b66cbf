// SPDX-License-Identifier: Apache-2.0
//
// Every wait of the library by name: that it has a form with an Until which throws, and one which
// fills an error_code, and that each ends by a deadline, by a stop, and by both at once. A new wait
// belongs here. Not here are the calls that the kernel does in one piece and that nobody can take
// back (a file's fsync, open, stat and the like).
// run: engines
#include "baton/until.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <variant>
#include <vector>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Until;

/// The code by which `wait(until...)` ends, which has a form that throws and one that tells.
template <class Wait, class... Args>
std::array<std::error_code, 2> ends(Wait& wait, const Args&... args) {
    static_assert(requires(std::error_code & ec) {
        wait(args...);
        wait(args..., ec);
    });
    std::array<std::error_code, 2> code;
    try {
        wait(args...);
    } catch (const std::system_error& e) {
        code[0] = e.code();
    }
    wait(args..., code[1]);
    return code;
}

/// A row of the table: `wait`, which nothing else ends, is given up.
template <class Wait>
void row(const char* name, Wait wait) {
    std::stop_source stopped;
    stopped.request_stop();
    std::stop_source never;
    const auto each_is = [&](const std::array<std::error_code, 2>& codes, std::errc what) {
        for (const std::error_code& code : codes)
            CHECK_MESSAGE(code == what, name, ": ", code.message());
    };
    each_is(ends(wait, Until(1ms)), std::errc::timed_out);
    each_is(ends(wait, Until(stopped.get_token())), std::errc::operation_canceled);
    each_is(ends(wait, Until(1ms, never.get_token())), std::errc::timed_out);
}

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

/// Nothing is read from its other end, and it has no more room.
void fill(int fd) {
    const std::array<char, 4096> much{};
    while (::write(fd, much.data(), much.size()) > 0 || ::write(fd, much.data(), 1) > 0) {
    }
}

/// What one of a connected pair of datagram sockets sends, the other one receives.
std::pair<baton::PacketConn, baton::PacketConn> packet_pair() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) == 0);
    return {baton::PacketConn::adopt(fds[0]), baton::PacketConn::adopt(fds[1])};
}

} // namespace

// The caller's arguments after those of the row: Until, and then an error_code or none.
#define WAIT(call_until) [&](auto&... limit) { (void)(call_until); }

TEST_CASE("locks and what counts have limited waits") {
    baton::run([] {
        baton::Mutex mutex;
        const std::lock_guard hold(mutex);
        row("Mutex::lock", WAIT(mutex.lock(limit...)));

        baton::RWMutex read, written;
        read.lock_shared();
        written.lock();
        row("RWMutex::lock", WAIT(read.lock(limit...)));
        row("RWMutex::lock_shared", WAIT(written.lock_shared(limit...)));
        read.unlock_shared();
        written.unlock();

        baton::Semaphore none(0);
        row("Semaphore::acquire", WAIT(none.acquire(limit...)));
        row("Semaphore::acquire of several", WAIT(none.acquire(3, limit...)));

        baton::WaitGroup group;
        group.add();
        row("WaitGroup::wait", WAIT(group.wait(limit...)));
        group.done();

        baton::Latch latch(100);
        row("Latch::wait", WAIT(latch.wait(limit...)));
        row("Latch::arrive_and_wait", WAIT(latch.arrive_and_wait(limit...)));
        row("Latch::arrive_and_wait of several", WAIT(latch.arrive_and_wait(2, limit...)));

        baton::Barrier<> barrier(100);
        const auto arrived = barrier.arrive();
        row("Barrier::wait", WAIT(barrier.wait(arrived, limit...)));
        row("Barrier::arrive_and_wait", WAIT(barrier.arrive_and_wait(limit...)));
    });
}

TEST_CASE("conditions and what runs once have limited waits") {
    baton::run([] {
        baton::Mutex mutex;
        std::unique_lock lock(mutex);
        baton::ConditionVariable condition;
        baton::Cond cond(lock);
        row("ConditionVariable::wait", WAIT(condition.wait(lock, limit...)));
        row("Cond::wait", WAIT(cond.wait(limit...)));

        const baton::Chan<int> go_on;
        baton::Once once;
        const baton::Chan<int> began(3);
        const auto slow_value = [&] {
            began.send(0);
            return go_on.recv().value_or(0);
        };
        const auto slow = [&] { (void)slow_value(); };
        baton::OnceFunc func(slow);
        baton::OnceValue value(slow_value);
        baton::WaitGroup runners;
        runners.go([&] { once.call(slow); });
        runners.go([&] { func(); });
        runners.go([&] { (void)value(); });
        for (int i = 0; i < 3; i++) (void)began.recv(); // or this goroutine would run them
        row("Once::call", WAIT(once.call(slow, limit...)));
        row("OnceFunc", WAIT(func(limit...)));
        row("OnceValue", WAIT(value(limit...)));
        go_on.close();
        runners.wait();
    });
}

TEST_CASE("channels, sleeps and tasks have limited waits") {
    baton::run([] {
        const baton::Chan<int> chan;
        const baton::RecvChan<int> from = chan;
        const baton::SendChan<int> to = chan;
        const int value = 1;
        row("Chan::send", [&](auto&... limit) { chan.send(value, limit...); });
        row("Chan::recv", WAIT(chan.recv(limit...)));
        row("SendChan::send", [&](auto&... limit) { to.send(value, limit...); });
        row("RecvChan::recv", WAIT(from.recv(limit...)));
        const std::vector<baton::Chan<int>> chans{chan, baton::Chan<int>()};
        row("recv_any", WAIT(baton::recv_any(chans, limit...)));
        row("recv_any of a span", WAIT(baton::recv_any(std::span(chans), limit...)));

        row("sleep_for", WAIT(baton::sleep_for(1h, limit...)));
        row("sleep_until",
            WAIT(baton::sleep_until(std::chrono::steady_clock::now() + 1h, limit...)));

        baton::Promise<int> promise;
        const baton::Future<int> future = promise.get_future();
        row("Future::wait", WAIT(future.wait(limit...)));
        row("wait_all", WAIT(baton::wait_all(limit..., future)));
        row("wait_any", WAIT(baton::wait_any(limit..., future)));

        baton::TaskGroup tasks;
        tasks.set_limit(1);
        tasks.go([&] { (void)chan.recv(); });
        row("TaskGroup::wait", WAIT(tasks.wait(limit...)));
        row("TaskGroup::go", WAIT(tasks.go(limit..., [] { FAIL("it was given up"); })));
        chan.close();
        tasks.wait();
    });
}

TEST_CASE("a select has a limited wait") {
    baton::run([] {
        const baton::Chan<int> chan;
        std::stop_source stopped;
        stopped.request_stop();
        const auto end = [&](const Until& until) {
            std::error_code code;
            baton::select(baton::on_recv(chan, [](std::optional<int>) {}),
                          baton::on_until(until, [&](std::error_code ec) { code = ec; }));
            return code;
        };
        CHECK(end(1ms) == std::errc::timed_out);
        CHECK(end(stopped.get_token()) == std::errc::operation_canceled);
    });
}

TEST_CASE("connections have limited waits") {
    baton::run([] {
        auto pair = baton::Conn::pair(); // no bindings: clang++ 14 does not capture them
        baton::Conn& conn = pair.first;
        std::array<std::byte, 8> room{};
        const std::array<std::span<std::byte>, 1> rooms{room};
        std::vector<int> fds;
        row("Conn::read", WAIT(conn.read(room, limit...)));
        row("Conn::read of a pointer", WAIT(conn.read(room.data(), room.size(), limit...)));
        row("Conn::readv", WAIT(conn.readv(rooms, limit...)));
        row("Conn::recv_fds", WAIT(conn.recv_fds(room, fds, limit...)));

        fill(conn.fd());
        const std::array<std::span<const std::byte>, 1> texts{bytes("text")};
        const std::array<int, 1> sent{STDERR_FILENO};
        row("Conn::write", WAIT(conn.write(bytes("text"), limit...)));
        row("Conn::write of text", WAIT(conn.write("text", limit...)));
        row("Conn::writev", WAIT(conn.writev(texts, limit...)));
        const auto file = baton::File::open("/proc/self/exe", O_RDONLY);
        row("Conn::send_file", WAIT(conn.send_file(file.fd(), nullptr, 1, limit...)));
        row("Conn::send_fds", WAIT(conn.send_fds(bytes("text"), sent, limit...)));

        baton::Listener listener = baton::Listener::listen("tcp", "127.0.0.1:0");
        row("Listener::accept", WAIT(listener.accept(limit...)));
        baton::Conn tcp = baton::Conn::dial("tcp", listener.address());
        fill(tcp.fd());
        row("Conn::write_zero_copy", WAIT(tcp.write_zero_copy(bytes("text"), limit...)));
    });
}

TEST_CASE("datagrams have limited waits") {
    baton::run([] {
        auto pair = packet_pair();
        baton::PacketConn& conn = pair.first;
        std::array<std::byte, 8> room{};
        baton::SocketAddress from;
        std::array<baton::Packet, 1> packets{};
        packets[0].data = room;
        row("PacketConn::recv", WAIT(conn.recv(room, limit...)));
        row("PacketConn::recv_from", WAIT(conn.recv_from(room, from, limit...)));
        row("PacketConn::recv_batch", WAIT(conn.recv_batch(packets, limit...)));

        fill(conn.fd());
        row("PacketConn::send", WAIT(conn.send(room, limit...)));
        row("PacketConn::send_batch", WAIT(conn.send_batch(packets, limit...)));
        static_assert(requires(std::error_code & ec) { // to one that is connected it fails at once
            conn.send_to(room, from, Until());
            conn.send_to(room, from, Until(), ec);
        });
    });
}

TEST_CASE("what dials has a limited wait") {
    // Nobody accepts: a backlog of one is soon full, and the kernel answers no further call.
    baton::run([] {
        baton::Listener full = baton::Listener::listen("tcp", "127.0.0.1:0", {.backlog = 1});
        std::vector<baton::Conn> conns;
        std::error_code ec;
        while (!ec) conns.push_back(baton::Conn::dial("tcp", full.address(), 20ms, ec));
        REQUIRE(ec == std::errc::timed_out);
        row("Conn::dial", WAIT(baton::Conn::dial("tcp", full.address(), limit...)));
        const std::array addresses{baton::SocketAddress::parse("tcp", full.address())};
        row("Conn::dial of addresses", WAIT(baton::Conn::dial(std::span(addresses), limit...)));
    });
    static_assert(requires(std::error_code & ec) { // it waits for names alone
        baton::PacketConn::dial("udp", "localhost:1", Until());
        baton::PacketConn::dial("udp", "localhost:1", Until(), ec);
    });
}

TEST_CASE("other descriptors and children have limited waits") {
    baton::run([] {
        auto pipe = baton::AsyncFd::pipe();
        baton::AsyncFd& from = pipe.first;
        baton::AsyncFd& to = pipe.second;
        std::array<std::byte, 8> room{};
        row("AsyncFd::read", WAIT(from.read(room, limit...)));
        row("AsyncFd::read of a pointer", WAIT(from.read(room.data(), room.size(), limit...)));
        row("AsyncFd::wait_readable", WAIT(from.wait_readable(limit...)));
        fill(to.fd());
        row("AsyncFd::write", WAIT(to.write(bytes("text"), limit...)));
        row("AsyncFd::write of text", WAIT(to.write("text", limit...)));
        row("AsyncFd::wait_writable", WAIT(to.wait_writable(limit...)));

        const pid_t child = ::fork();
        if (child == 0) {
            ::pause();
            ::_exit(0);
        }
        row("wait_child", WAIT(baton::wait_child(child, limit...)));
        ::kill(child, SIGKILL);
        CHECK(WIFSIGNALED(baton::wait_child(child)));
    });
}

TEST_CASE("files have limited waits") {
    baton::run([] {
        int fds[2];
        REQUIRE(::pipe2(fds, O_CLOEXEC) == 0);
        baton::File from(fds[0]);
        baton::File to(fds[1]);
        std::array<std::byte, 8> room{};
        const std::array<iovec, 1> bufs{{{room.data(), room.size()}}};
        row("File::read", WAIT(from.read(room, limit...)));
        row("File::readv", WAIT(from.readv(bufs, limit...)));
        REQUIRE(::fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0);
        fill(fds[1]);
        REQUIRE(::fcntl(fds[1], F_SETFL, 0) == 0);
        row("File::write", WAIT(to.write(room, limit...)));
        row("File::writev", WAIT(to.writev(bufs, limit...)));
        static_assert(requires(std::error_code & ec) { // a pipe has no positions
            from.pread(room, 0, Until());
            from.pread(room, 0, Until(), ec);
            to.pwrite(room, 0, Until());
            to.pwrite(room, 0, Until(), ec);
        });
    });
}
