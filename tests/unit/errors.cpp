// SPDX-License-Identifier: Apache-2.0
//
// Every call of the library that has a form which throws and one which fills an error_code, by
// name: that both fail with the same code, the second one without throwing, and that it clears the
// code where it succeeds. A new such call belongs here. How waits are given up: until_table.cpp.
// run: engines
#include <array>
#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/files.hpp"
#include "support/net.hpp"

namespace {

using files_test::Scratch;
using std::errc;

/// `call` fails with `what`, whichever of its forms is taken.
template <class Call>
void fails(const char* name, errc what, Call call) {
    std::error_code thrown;
    try {
        call();
    } catch (const std::system_error& e) {
        thrown = e.code();
    }
    CHECK_MESSAGE(thrown == what, name, " threw ", thrown.message());
    std::error_code told;
    call(told);
    CHECK_MESSAGE(told == what, name, " told ", told.message());
}

/// Both forms of `call` succeed, and the one that tells says so whatever was told before.
template <class Call>
void works(const char* name, Call call) {
    try {
        call();
    } catch (const std::system_error& e) {
        CHECK_MESSAGE(false, name, " threw ", e.what());
    }
    std::error_code told = std::make_error_code(errc::io_error);
    call(told);
    CHECK_MESSAGE(!told, name, " told ", told.message());
}

/// No descriptor is to be had while one of these lives.
class NoDescriptors {
public:
    NoDescriptors() {
        REQUIRE(::getrlimit(RLIMIT_NOFILE, &before_) == 0);
        const rlimit none{0, before_.rlim_max};
        REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    }
    ~NoDescriptors() { (void)::setrlimit(RLIMIT_NOFILE, &before_); }
    NoDescriptors(const NoDescriptors&) = delete;
    NoDescriptors& operator=(const NoDescriptors&) = delete;

private:
    rlimit before_{};
};

std::pair<baton::PacketConn, baton::PacketConn> packet_pair() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) == 0);
    return {baton::PacketConn::adopt(fds[0]), baton::PacketConn::adopt(fds[1])};
}

const std::span<const std::byte> kX = files_test::bytes("x");

/// What the calls below read into and write from.
struct Room {
    std::array<std::byte, 8> bytes{};
    std::array<std::span<std::byte>, 1> into{std::span(bytes)};
    std::array<std::span<const std::byte>, 1> from{kX};
    std::array<iovec, 1> iov{{{bytes.data(), 1}}};
    std::vector<int> fds;
};

} // namespace

// The caller's argument after those written here: an error_code or none.
#define CALL(call_ec) [&](auto&... ec) { (void)(call_ec); }

TEST_CASE("channels: both forms say closed, full and done") {
    baton::run([] {
        const baton::Chan<int> full(1);
        const baton::SendChan<int> full_to = full;
        const int value = 1;
        full.send(value);
        std::error_code told;
        CHECK(!full.try_send(2, told));
        CHECK(told == errc::operation_would_block);
        CHECK(!full_to.try_send(value, told));
        CHECK(told == errc::operation_would_block);

        const baton::Chan<int> closed(1);
        const baton::SendChan<int> to = closed;
        works("Chan::send", [&](auto&... ec) {
            closed.send(1, ec...);
            (void)closed.recv();
        });
        works("SendChan::send of a constant", [&](auto&... ec) {
            to.send(value, ec...);
            (void)closed.recv();
        });
        works("Chan::try_send", [&](auto&... ec) {
            CHECK(closed.try_send(1, ec...));
            (void)closed.recv();
        });
        works("SendChan::try_send of a constant", [&](auto&... ec) {
            CHECK(to.try_send(value, ec...));
            (void)closed.recv();
        });
        told = std::make_error_code(errc::io_error);
        closed.close(told);
        CHECK(!told);
        fails("Chan::send", errc::broken_pipe, CALL(closed.send(1, ec...)));
        fails("Chan::send of a constant", errc::broken_pipe, CALL(closed.send(value, ec...)));
        fails("Chan::try_send", errc::broken_pipe, CALL(closed.try_send(1, ec...)));
        fails("Chan::try_send of a constant", errc::broken_pipe,
              CALL(closed.try_send(value, ec...)));
        fails("SendChan::send", errc::broken_pipe, CALL(to.send(1, ec...)));
        fails("SendChan::send of a constant", errc::broken_pipe, CALL(to.send(value, ec...)));
        fails("SendChan::try_send", errc::broken_pipe, CALL(to.try_send(1, ec...)));
        fails("SendChan::try_send of a constant", errc::broken_pipe,
              CALL(to.try_send(value, ec...)));
        fails("Chan::close", errc::broken_pipe, CALL(closed.close(ec...)));
        fails("SendChan::close", errc::broken_pipe, CALL(to.close(ec...)));
        CHECK_THROWS_AS(closed.send(value), baton::ChanClosed);
        // Of a closed and empty channel nothing comes, which is no error.
        works("Chan::recv", CALL(closed.recv(baton::Until(), ec...)));
        works("RecvChan::recv", [&](auto&... ec) {
            const baton::RecvChan<int> from = closed;
            CHECK(!from.recv(baton::Until(), ec...));
        });
    });
}

TEST_CASE("sockets that come to be: both forms say why not") {
    baton::run([] {
        using baton::Conn;
        using baton::Listener;
        using baton::PacketConn;
        fails("SocketAddress::parse", errc::invalid_argument,
              CALL(baton::SocketAddress::parse("tcp", "127.0.0.1:no", ec...)));
        fails("resolve", errc::invalid_argument,
              CALL(baton::resolve("tcp", "127.0.0.1:no", baton::Until(), ec...)));
        fails("Conn::adopt", errc::bad_file_descriptor, CALL(Conn::adopt(-1, ec...)));
        fails("Listener::adopt", errc::bad_file_descriptor, CALL(Listener::adopt(-1, ec...)));
        fails("PacketConn::adopt", errc::bad_file_descriptor, CALL(PacketConn::adopt(-1, ec...)));
        fails("AsyncFd::adopt", errc::bad_file_descriptor, CALL(baton::AsyncFd::adopt(-1, ec...)));
        fails("Listener::listen", errc::no_such_file_or_directory,
              CALL(Listener::listen("unix", "/nowhere/at/all", ec...)));
        fails("PacketConn::bind", errc::no_such_file_or_directory,
              CALL(PacketConn::bind("unixgram", "/nowhere/at/all", ec...)));
        fails("PacketConn::dial", errc::no_such_file_or_directory,
              CALL(PacketConn::dial("unixgram", "/nowhere/at/all", baton::Until(), ec...)));
        fails("Conn::dial", errc::no_such_file_or_directory,
              CALL(Conn::dial("unix", "/nowhere/at/all", baton::Until(), ec...)));
        const std::array there{baton::SocketAddress::parse("unix", "/nowhere/at/all")};
        fails("Conn::dial of addresses", errc::no_such_file_or_directory,
              CALL(Conn::dial(there, baton::Until(), ec...)));
        {
            const NoDescriptors none;
            fails("Conn::pair", errc::too_many_files_open, CALL(Conn::pair(ec...)));
            fails("AsyncFd::pipe", errc::too_many_files_open, CALL(baton::AsyncFd::pipe(ec...)));
        }

        Listener listener = Listener::listen("tcp", "127.0.0.1:0");
        works("Conn::dial, Listener::accept", [&](auto&... ec) {
            (void)Conn::dial("tcp", listener.address(), baton::Until(), ec...);
            (void)listener.accept(ec...);
        });
        works("Conn::pair", CALL(Conn::pair(ec...)));
        works("AsyncFd::pipe", CALL(baton::AsyncFd::pipe(ec...)));
        works("Listener::listen", CALL(Listener::listen("tcp", "127.0.0.1:0", ec...)));
        works("PacketConn::bind", CALL(PacketConn::bind("udp", "127.0.0.1:0", ec...)));
        works("PacketConn::dial",
              CALL(PacketConn::dial("udp", "127.0.0.1:9", baton::Until(), ec...)));
        works("SocketAddress::parse", CALL(baton::SocketAddress::parse("tcp", "[::1]:80", ec...)));
        works("resolve", CALL(baton::resolve("tcp", "127.0.0.1:80", baton::Until(), ec...)));
        listener.close();
        fails("Listener::accept", errc::bad_file_descriptor, CALL(listener.accept(ec...)));
        fails("wait_child", errc::no_child_process,
              CALL(baton::wait_child(::getpid(), baton::Until(), ec...)));
    });
}

TEST_CASE("connections: both forms say done and closed") {
    baton::run([] {
        auto conns = baton::Conn::pair();
        baton::Conn &conn = conns.first, &peer = conns.second; // clang 14 captures no binding
        Room room;
        char* const text = reinterpret_cast<char*>(room.bytes.data());
        const auto both = [&](auto check) {
            check("write", CALL(conn.write(kX, ec...)));
            check("write of text", CALL(conn.write("x", ec...)));
            check("writev", CALL(conn.writev(room.from, ec...)));
            check("send_fds", CALL(conn.send_fds(kX, {}, ec...)));
        };
        const auto reads = [&](auto check) {
            check("read", CALL(conn.read(room.bytes, ec...)));
            check("read of text", CALL(conn.read(text, 1, ec...)));
            check("readv", CALL(conn.readv(room.into, ec...)));
            check("recv_fds", CALL(conn.recv_fds(room.bytes, room.fds, ec...)));
        };
        both([](const char* name, auto call) { works(name, call); });
        reads([&](const char* name, auto call) {
            works(name, [&](auto&... ec) {
                peer.write("x");
                call(ec...);
            });
        });
        const Scratch scratch;
        const baton::File file = baton::File::open(scratch / "f", O_RDWR | O_CREAT);
        works("send_file", CALL(conn.send_file(file.fd(), nullptr, 1, ec...)));
        fails("write_zero_copy", errc::operation_not_supported,
              CALL(conn.write_zero_copy(kX, ec...))); // not by TCP
        net_test::Pair tcp = net_test::tcp_pair();
        works("write_zero_copy", CALL(tcp.client.write_zero_copy(kX, ec...)));
        tcp.client.close();
        fails("write_zero_copy", errc::bad_file_descriptor,
              CALL(tcp.client.write_zero_copy(kX, ec...)));
        works("shutdown_write", CALL(conn.shutdown_write(ec...)));
        works("shutdown_read", CALL(conn.shutdown_read(ec...)));
        conn.close();
        const auto is_closed = [](const char* name, auto call) {
            fails(name, errc::bad_file_descriptor, call);
        };
        both(is_closed);
        reads(is_closed);
        is_closed("send_file", CALL(conn.send_file(file.fd(), nullptr, 1, ec...)));
        is_closed("shutdown_write", CALL(conn.shutdown_write(ec...)));
        is_closed("shutdown_read", CALL(conn.shutdown_read(ec...)));
    });
}

TEST_CASE("datagrams and other descriptors: both forms say done and closed") {
    baton::run([] {
        auto packets = packet_pair();
        baton::PacketConn &one = packets.first, &other = packets.second;
        Room room;
        baton::SocketAddress from;
        std::array<baton::Packet, 1> in;
        in[0].data = room.bytes;
        const auto sends = [&](auto check) {
            check("send", CALL(one.send(kX, ec...)));
            check("send_batch", CALL(one.send_batch(in, ec...)));
        };
        const auto receives = [&](auto check) {
            check("recv", CALL(one.recv(room.bytes, ec...)));
            check("recv_from", CALL(one.recv_from(room.bytes, from, ec...)));
            check("recv_batch", CALL(one.recv_batch(in, ec...)));
        };
        sends([](const char* name, auto call) { works(name, call); });
        receives([&](const char* name, auto call) {
            works(name, [&](auto&... ec) {
                other.send(kX);
                call(ec...);
            });
        });
        baton::PacketConn udp = baton::PacketConn::bind("udp", "127.0.0.1:0");
        const auto to = baton::SocketAddress::parse("udp", "127.0.0.1:9");
        works("send_to", CALL(udp.send_to(kX, to, ec...)));

        auto ends = baton::AsyncFd::pipe();
        baton::AsyncFd &out = ends.first, &into = ends.second;
        char* const text = reinterpret_cast<char*>(room.bytes.data());
        works("AsyncFd::write and read", [&](auto&... ec) {
            into.write(kX, ec...);
            out.read(room.bytes, ec...);
        });
        works("AsyncFd::write and read of text", [&](auto&... ec) {
            into.write("x", ec...);
            out.read(text, 1, ec...);
        });

        one.close();
        udp.close();
        out.close();
        into.close();
        const auto is_closed = [](const char* name, auto call) {
            fails(name, errc::bad_file_descriptor, call);
        };
        sends(is_closed);
        receives(is_closed);
        is_closed("send_to", CALL(udp.send_to(kX, to, ec...)));
        is_closed("AsyncFd::read", CALL(out.read(room.bytes, ec...)));
        is_closed("AsyncFd::read of text", CALL(out.read(text, 1, ec...)));
        is_closed("AsyncFd::write", CALL(into.write(kX, ec...)));
        is_closed("AsyncFd::write of text", CALL(into.write("x", ec...)));
        is_closed("wait_readable", CALL(out.wait_readable(baton::Until(), ec...)));
        is_closed("wait_writable", CALL(into.wait_writable(baton::Until(), ec...)));
    });
}

TEST_CASE("files: both forms say done and closed") {
    baton::run([] {
        const Scratch scratch;
        const std::string path = scratch / "f";
        works("File::open", CALL(baton::File::open(path, O_RDWR | O_CREAT, 0600, ec...)));
        baton::File file = baton::File::open(path, O_RDWR);
        Room room;
        const auto calls = [&](auto check) {
            check("write", CALL(file.write(kX, ec...)));
            check("pwrite", CALL(file.pwrite(kX, 0, ec...)));
            check("writev", CALL(file.writev(room.iov, ec...)));
            check("read", CALL(file.read(room.bytes, ec...)));
            check("pread", CALL(file.pread(room.bytes, 0, ec...)));
            check("readv", CALL(file.readv(room.iov, ec...)));
            check("fsync", CALL(file.fsync(ec...)));
            check("fdatasync", CALL(file.fdatasync(ec...)));
            check("ftruncate", CALL(file.ftruncate(100, ec...)));
            check("fallocate", CALL(file.fallocate(0, 0, 100, ec...)));
            check("File::stat", CALL(file.stat(ec...)));
        };
        calls([](const char* name, auto call) { works(name, call); });
        std::int64_t at = 0;
        files_test::Pipe pipe;
        const auto moves = [&](int from, auto check) {
            check("copy_file_range",
                  CALL(baton::copy_file_range(from, &at, file.fd(), nullptr, 1, ec...)));
            check("sendfile", CALL(baton::sendfile(pipe.out.fd(), from, &at, 1, ec...)));
            check("splice", CALL(baton::splice(from, &at, pipe.out.fd(), nullptr, 1, 0, ec...)));
        };
        const baton::File other = baton::File::open(path, O_RDONLY);
        moves(other.fd(), [](const char* name, auto call) { works(name, call); });
        const auto is_closed = [](const char* name, auto call) {
            fails(name, errc::bad_file_descriptor, call);
        };
        moves(-1, is_closed);
        file.close();
        calls(is_closed);
    });
}

TEST_CASE("paths and directories: both forms say done and not there") {
    baton::run([] {
        const Scratch scratch;
        const auto not_there = [](const char* name, auto call) {
            fails(name, errc::no_such_file_or_directory, call);
        };
        const std::string none = scratch / "no/thing", here = scratch / "here";
        not_there("File::open", CALL(baton::File::open(none, O_RDONLY, 0, ec...)));
        not_there("stat", CALL(baton::stat(none, 0, ec...)));
        not_there("rename", CALL(baton::rename(none, here, 0, ec...)));
        not_there("unlink", CALL(baton::unlink(none, ec...)));
        not_there("mkdir", CALL(baton::mkdir(none, 0700, ec...)));
        not_there("rmdir", CALL(baton::rmdir(none, ec...)));
        not_there("Directory::open", CALL(baton::Directory::open(none, ec...)));

        const auto make = [&] { (void)baton::File::open(here, O_WRONLY | O_CREAT); };
        make();
        works("stat", CALL(baton::stat(here, 0, ec...)));
        works("rename", CALL(baton::rename(here, here, 0, ec...)));
        works("unlink", [&](auto&... ec) {
            make();
            baton::unlink(here, ec...);
        });
        works("mkdir and rmdir", [&](auto&... ec) {
            baton::mkdir(here, 0700, ec...);
            baton::rmdir(here, ec...);
        });
        works("Directory::open", CALL(baton::Directory::open(scratch.dir, ec...)));
        baton::Directory dir = baton::Directory::open(scratch.dir);
        works("Directory::readdir", CALL(dir.readdir(ec...)));
        baton::Directory closed;
        fails("Directory::readdir", errc::bad_file_descriptor, CALL(closed.readdir(ec...)));
    });
}
