// SPDX-License-Identifier: Apache-2.0
//
// Which transfers between descriptors wait for a disk in their turn, and for a peer without one.
// run: tiers
#include "baton/file.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>
#include <functional>
#include <string>

#include <fcntl.h>
#include <sys/socket.h>

#include "support/child.hpp"
#include "support/files.hpp"
#include "support/procs.hpp"
#include "support/slow_pages.hpp"

using namespace std::chrono_literals;
using namespace files_test;
using procs_test::over_procs;

namespace {

using Offset = std::int64_t;

// A call that the kernel cannot begin before its offset has been read from a slow page.
struct Row {
    const char* name;
    bool in_turn;
    std::function<void(Offset*, std::error_code&)> call;
};

void check(const Row& row, const slow_pages::SlowPages& pages, const std::string& path) {
    auto* slow = reinterpret_cast<Offset*>(pages.page(0));
    baton::WaitGroup call, other;
    call.go([&] {
        std::error_code ec;
        row.call(slow, ec);
        CHECK_MESSAGE(ec != std::errc::bad_address, row.name);
    });
    baton::blocking([&] { pages.wait_asked(); });
    std::atomic<bool> done = false;
    other.go([&] {
        (void)baton::stat(path);
        done = true;
    });
    if (row.in_turn) {
        baton::sleep_for(20ms);
        CHECK_MESSAGE(!done, row.name);
        CHECK(baton::stats().file_calls == 1);
    } else {
        CHECK_NOTHROW(other.wait(10s));
        CHECK(done);
    }
    pages.give(0);
    call.wait();
    other.wait();
    pages.take_back();
}

} // namespace

TEST_CASE("child: turns" * doctest::skip()) {
    const Scratch scratch;
    const slow_pages::SlowPages pages(1);
    baton::run([&] {
        baton::set_max_procs(2);
        File from = File::open(scratch / "from", O_RDWR | O_CREAT);
        File to = File::open(scratch / "to", O_RDWR | O_CREAT);
        from.write(bytes("0123456789"));
        Pipe pipe, second;
        pipe.out.write(bytes("abc"));
        int sockets[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
        File socket(sockets[0]), peer(sockets[1]);
        const Row rows[] = {
            {"copy_file_range", true,
             [&](Offset* at, auto& ec) {
                 baton::copy_file_range(from.fd(), at, to.fd(), nullptr, 1, ec);
             }},
            {"sendfile to a file", true,
             [&](Offset* at, auto& ec) { baton::sendfile(to.fd(), from.fd(), at, 1, ec); }},
            {"sendfile to a pipe", true,
             [&](Offset* at, auto& ec) { baton::sendfile(second.out.fd(), from.fd(), at, 1, ec); }},
            {"splice to a pipe", true,
             [&](Offset* at, auto& ec) {
                 baton::splice(from.fd(), at, second.out.fd(), nullptr, 1, 0, ec);
             }},
            {"splice to a file", true,
             [&](Offset* at, auto& ec) {
                 baton::splice(pipe.in.fd(), nullptr, to.fd(), at, 1, 0, ec);
             }},
            {"sendfile to a socket", false,
             [&](Offset* at, auto& ec) { baton::sendfile(socket.fd(), from.fd(), at, 1, ec); }},
        };
        for (const Row& row : rows) check(row, pages, scratch / "from");
    });
    child_process::reached();
}

TEST_CASE("transfers from and to a disk take turns") {
    try {
        const slow_pages::SlowPages pages(1);
    } catch (const std::system_error& error) {
        std::printf("skip: no slow pages: %s\n", error.what());
        return;
    }
    child_process::check_works(child_process::run_child("turns", {"BATON_FILE_THREADS=1"}));
}

TEST_CASE("who waits in splice for a pipe keeps nobody from files") {
    over_procs([](int) {
        const Scratch scratch;
        File to = File::open(scratch / "to", O_WRONLY | O_CREAT | O_APPEND);
        Pipe pipe;
        const int n = static_cast<int>(baton::stats().file_threads);
        std::error_code ec;
        baton::splice(pipe.in.fd(), nullptr, to.fd(), nullptr, 1, 0,
                      ec); // not to a file to append to
        CHECK(ec == std::errc::invalid_argument);
        to = File::open(scratch / "to", O_WRONLY);
        std::atomic<std::size_t> moved = 0;
        baton::WaitGroup wg;
        for (int i = 0; i < n; i++)
            wg.go([&] { moved += baton::splice(pipe.in.fd(), nullptr, to.fd(), nullptr, 1); });
        while (baton::stats().file_calls < static_cast<std::uint64_t>(n)) baton::yield();
        baton::WaitGroup other;
        other.go([&] { CHECK(baton::stat(scratch / "to").stx_size == 0); });
        CHECK_NOTHROW(other.wait(10s));
        pipe.out.write(bytes(std::string(static_cast<std::size_t>(n), 'x')));
        wg.wait();
        other.wait();
        CHECK(moved == static_cast<std::size_t>(n));
    });
}

TEST_CASE("a full pipe is waited for, unless somebody asked not to") {
    over_procs([](int) {
        const Scratch scratch;
        File from = File::open(scratch / "from", O_RDWR | O_CREAT);
        const std::string page(4096, 'p');
        from.write(bytes(page));
        Pipe pipe;
        const auto room_for = static_cast<std::size_t>(::fcntl(pipe.out.fd(), F_SETPIPE_SZ, 4096));
        REQUIRE(room_for == 4096);
        Offset at = 0;
        CHECK(baton::splice(from.fd(), &at, pipe.out.fd(), nullptr, 4096) == 4096);
        std::error_code ec;
        at = 0;
        CHECK(baton::splice(from.fd(), &at, pipe.out.fd(), nullptr, 1, SPLICE_F_NONBLOCK, ec) == 0);
        CHECK(ec == std::errc::resource_unavailable_try_again);
        const int status = ::fcntl(pipe.out.fd(), F_GETFL);
        REQUIRE(::fcntl(pipe.out.fd(), F_SETFL, status | O_NONBLOCK) == 0);
        CHECK(baton::sendfile(pipe.out.fd(), from.fd(), &at, 1, ec) == 0);
        CHECK(ec == std::errc::resource_unavailable_try_again);
        REQUIRE(::fcntl(pipe.out.fd(), F_SETFL, status) == 0);
        std::atomic<int> moved = 0;
        baton::WaitGroup wg;
        wg.go(
            [&] { moved += static_cast<int>(baton::sendfile(pipe.out.fd(), from.fd(), &at, 4)); });
        baton::sleep_for(5ms);
        CHECK(moved == 0);
        std::string s(4096, '.');
        CHECK(pipe.in.read(room(s)) == 4096);
        wg.wait();
        CHECK(moved == 4);
        CHECK(at == 4);
        CHECK(pipe.in.read(room(s)) == 4);
    });
}
