// SPDX-License-Identifier: Apache-2.0
//
// Files and directories: what each call does, and to whom.
// run: tiers
// run: rings
#include "baton/file.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/build.hpp"
#include "kernel/features.hpp"
#include "support/files.hpp"
#include "support/procs.hpp"
#include "support/rings.hpp"

using namespace std::chrono_literals;
using namespace files_test;
using procs_test::over_procs;

TEST_CASE("what is written is read: at the position, at an offset, from several buffers") {
    over_procs([](int) {
        const Scratch scratch;
        File file = File::open(scratch / "f", O_RDWR | O_CREAT | O_EXCL, 0600);
        CHECK((::fcntl(file.fd(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(file.write(bytes("hello ")) == 6);
        const std::string a = "wor", b = "ld";
        const iovec out[] = {{const_cast<char*>(a.data()), 3}, {const_cast<char*>(b.data()), 2}};
        CHECK(file.writev(out) == 5);
        CHECK(file.pwrite(bytes("H"), 0) == 1);
        std::string s(20, '\0');
        CHECK(file.pread(room(s), 0) == 11);
        CHECK(s.substr(0, 11) == "Hello world");
        CHECK(file.pread(room(s), 11) == 0);
        CHECK(read_some(file, 10).empty()); // it is at the end
        REQUIRE(::lseek(file.fd(), 6, SEEK_SET) == 6);
        char c[3], d[9];
        const iovec in[] = {{c, sizeof c}, {d, sizeof d}};
        CHECK(file.readv(in) == 5);
        CHECK(std::string_view(c, 3) == "wor");
        CHECK(std::string_view(d, 2) == "ld");
        std::error_code ec = code(std::errc::io_error);
        CHECK(file.pread(room(s), 6, ec) == 5);
        CHECK(!ec);
        CHECK(file.pread(room(s), 6, 1s, ec) == 5);
        CHECK(file.write({}, ec) == 0);
        CHECK(!ec);
    });
}

TEST_CASE("reads and writes of a direct file move its position") {
    over_procs([](int) {
        const Scratch scratch;
        const std::string path = scratch / "f";
        File file = direct(path);
        if (!file) return;
        const Page one, two;
        const iovec both[] = {{one.at, kPage}, {two.at, kPage}};
        for (const bool anew : {true, false}) { // a file that grows is another path in the kernel
            std::memset(one.at, anew ? 'a' : 'A', kPage);
            std::memset(two.at, anew ? 'b' : 'B', kPage);
            CHECK(file.write(one.span()) == kPage);
            CHECK(file.writev(both) == 2 * kPage);
            CHECK(file.write(two.span()) == kPage);
            CHECK(::lseek(file.fd(), 0, SEEK_CUR) == 4 * kPage);
            REQUIRE(::lseek(file.fd(), 0, SEEK_SET) == 0);
        }
        const char all[] = "AABB";
        for (int i = 0; i < 4; i++) CHECK(holds(path, i, all[i]));
        CHECK(file.read(one.span()) == kPage);
        CHECK(is_full_of(one, 'A'));
        CHECK(file.readv(both) == 2 * kPage);
        CHECK(is_full_of(one, 'A'));
        CHECK(is_full_of(two, 'B'));
        CHECK(file.read(one.span()) == kPage);
        CHECK(is_full_of(one, 'B'));
        CHECK(file.read(one.span()) == 0);
    });
}

TEST_CASE("goroutines that read on at one position get each page once, of the disk or the cache") {
    constexpr std::uint64_t kPages = 256;
    over_procs([](int) {
        const Scratch scratch;
        for (const bool past : {true, false}) {
            File file = numbered(scratch / "f", kPages, past);
            REQUIRE(::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_RANDOM) == 0); // none ahead
            REQUIRE(::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED) == 0);
            REQUIRE(::lseek(file.fd(), 0, SEEK_SET) == 0);
            std::vector<std::atomic<int>> seen(kPages);
            baton::WaitGroup wg;
            for (int i = 0; i < 16; i++) {
                wg.go([&] {
                    const Page page;
                    while (file.read(page.span()) == kPage) {
                        std::uint64_t number = 0;
                        std::memcpy(&number, page.at, sizeof number);
                        seen[number]++;
                    }
                });
            }
            wg.wait();
            CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }));
        }
    });
}

TEST_CASE("sizes, syncing, room and what is known of a file") {
    over_procs([](int) {
        const Scratch scratch;
        File file = File::open(scratch / "f", O_RDWR | O_CREAT);
        file.ftruncate(10'000);
        CHECK(file.stat().stx_size == 10'000);
        file.fallocate(0, 0, 20'000);
        CHECK(baton::stat(scratch / "f").stx_size == 20'000);
        CHECK(baton::stat(scratch / "f").stx_blocks > 0);
        file.fsync();
        file.fdatasync();
        std::error_code ec;
        file.ftruncate(-1, ec);
        CHECK(ec == code(std::errc::invalid_argument));
        CHECK_THROWS_AS(file.ftruncate(-1), std::system_error);
        file.fallocate(-1, 0, 1, ec);
        CHECK(ec);
        CHECK_THROWS_AS(file.fallocate(-1, 0, 1), std::system_error);
        Pipe pipe;
        pipe.in.fsync(ec);
        CHECK(ec == code(std::errc::invalid_argument));
        CHECK_THROWS_AS(pipe.in.fdatasync(), std::system_error);
    });
}

TEST_CASE("names: rename, unlink, mkdir, rmdir, readdir, and their errors") {
    over_procs([](int) {
        const Scratch scratch;
        std::error_code ec;
        baton::mkdir(scratch / "d");
        baton::mkdir(scratch / "d", 0700, ec);
        CHECK(ec == code(std::errc::file_exists));
        CHECK_THROWS_AS(baton::mkdir(scratch / "d"), std::system_error);
        constexpr int kFiles = 1000; // more than one call has room for
        for (int i = 0; i < kFiles; i++)
            File::open(scratch / "d/" + std::to_string(i), O_WRONLY | O_CREAT);
        baton::rename(scratch / "d/0", scratch / "d/zero");
        baton::rename(scratch / "d/0", scratch / "d/zero", 0, ec);
        CHECK(ec == code(std::errc::no_such_file_or_directory));
        CHECK_THROWS_AS(baton::rename(scratch / "x", scratch / "y"), std::system_error);
        std::set<std::string> names;
        baton::Directory dir = baton::Directory::open(scratch / "d");
        while (const auto entry = dir.readdir()) {
            CHECK((entry->type == DT_REG || entry->type == DT_UNKNOWN));
            names.insert(entry->name);
        }
        CHECK(names.size() == kFiles);
        CHECK(names.count("zero") == 1);
        CHECK(names.count("0") == 0);
        baton::rmdir(scratch / "d", ec);
        CHECK(ec == code(std::errc::directory_not_empty));
        CHECK_THROWS_AS(baton::rmdir(scratch / "d"), std::system_error);
        for (const std::string& name : names) baton::unlink(scratch / "d/" + name);
        baton::unlink(scratch / "d/zero", ec);
        CHECK(ec == code(std::errc::no_such_file_or_directory));
        CHECK_THROWS_AS(baton::unlink(scratch / "d/zero"), std::system_error);
        baton::rmdir(scratch / "d");
        CHECK_THROWS_AS(baton::Directory::open(scratch / "d"), std::system_error);
        CHECK_THROWS_AS(baton::stat(scratch / "d"), std::system_error);
        CHECK_THROWS_AS(File::open(scratch / "d"), std::system_error);
        baton::stat(scratch / "d", 0, ec);
        CHECK(ec == code(std::errc::no_such_file_or_directory));
        CHECK(!File::open(scratch / "d", O_RDONLY, 0, ec));
        CHECK(ec == code(std::errc::no_such_file_or_directory));
    });
}

TEST_CASE("copy_file_range, sendfile and splice move bytes between descriptors") {
    over_procs([](int) {
        const Scratch scratch;
        File from = File::open(scratch / "from", O_RDWR | O_CREAT);
        File to = File::open(scratch / "to", O_RDWR | O_CREAT);
        from.write(bytes("0123456789"));
        std::int64_t at = 5, there = 0;
        CHECK(baton::copy_file_range(from.fd(), &at, to.fd(), &there, 100) == 5);
        CHECK(at == 10);
        CHECK(there == 5);
        at = 2;
        Pipe pipe;
        CHECK(baton::sendfile(pipe.out.fd(), from.fd(), &at, 3) == 3);
        CHECK(baton::splice(pipe.in.fd(), nullptr, to.fd(), &there, 3) == 3);
        std::string s(20, '\0');
        CHECK(to.pread(room(s), 0) == 8);
        CHECK(s.substr(0, 8) == "56789234");
        std::error_code ec;
        CHECK(baton::splice(from.fd(), nullptr, to.fd(), nullptr, 1, 0, ec) == 0);
        CHECK(ec == code(std::errc::invalid_argument));
        CHECK_THROWS_AS(baton::sendfile(-1, -1, nullptr, 1), std::system_error);
        CHECK_THROWS_AS(baton::copy_file_range(-1, nullptr, -1, nullptr, 1), std::system_error);
    });
}

TEST_CASE("a closed or released file") {
    over_procs([](int) {
        const Scratch scratch;
        File file = File::open(scratch / "f", O_RDWR | O_CREAT);
        file.close();
        file.close();
        CHECK(!file);
        std::error_code ec;
        std::string s(1, '\0');
        File none;
        for (File* f : {&file, &none}) {
            f->read(room(s), ec);
            CHECK(ec == code(std::errc::bad_file_descriptor));
            f->write(bytes("x"), ec);
            CHECK(ec == code(std::errc::bad_file_descriptor));
            f->fsync(ec);
            CHECK(ec == code(std::errc::bad_file_descriptor));
            CHECK_THROWS_AS(f->read(room(s)), std::system_error);
            CHECK_THROWS_AS(f->stat(), std::system_error);
        }
        File other = File::open(scratch / "f");
        const int fd = other.release();
        CHECK(!other);
        CHECK(::fcntl(fd, F_GETFD) >= 0);
        File again(fd);
        File moved = std::move(again);
        CHECK(moved.fd() == fd);
    });
}

TEST_CASE("plain threads and goroutines inside blocking() make the call themselves") {
    const Scratch scratch;
    File file = File::open(scratch / "f", O_RDWR | O_CREAT);
    CHECK(file.write(bytes("plain")) == 5);
    std::string s(9, '\0');
    CHECK(file.pread(room(s), 0) == 5);
    baton::run([&] { CHECK(baton::blocking([&] { return file.pread(room(s), 1); }) == 4); });
    Pipe pipe;
    std::error_code ec;
    pipe.in.read(room(s), 20ms, ec);
    CHECK(ec == code(std::errc::timed_out));
    std::thread writer([&] { pipe.out.write(bytes("x")); });
    CHECK(pipe.in.read(room(s)) == 1);
    writer.join();
}

TEST_CASE("thousands of goroutines read one file, each its page") {
    const Scratch scratch;
    constexpr std::uint64_t kPages = 500;
    for (const bool direct : {true, false}) {
        File file = numbered(scratch / "f", kPages, direct);
        over_procs([&](int) {
            std::atomic<int> good = 0;
            baton::WaitGroup wg;
            for (std::uint64_t i = 0; i < 4000; i++)
                wg.go([&, i] { good += reads_page(file, i * 7919 % kPages); });
            wg.wait();
            CHECK(good == 4000);
        });
    }
}

namespace {

/// So many goroutines wait for a byte each, and all come at once. Were there more completions than
/// a ring has room for?
bool read_at_once(int readers, bool rings) {
    Pipe pipe;
    std::atomic<int> got = 0;
    baton::WaitGroup wg;
    const std::uint64_t all = rings_test::look().submitted + static_cast<std::uint64_t>(readers);
    std::atomic<int> begun = 0;
    for (int i = 0; i < readers; i++) {
        wg.go([&] {
            std::string s(1, '\0');
            begun++;
            got += static_cast<int>(pipe.in.read(room(s)));
        });
    }
    while (begun != readers || (rings && rings_test::look().submitted < all)) baton::yield();
    const std::string data(static_cast<std::size_t>(readers), 'x');
    REQUIRE(::write(pipe.out.fd(), data.data(), data.size()) == readers);
    const bool more = rings && rings_test::look().overflown;
    wg.wait();
    CHECK(got == readers);
    return more;
}

} // namespace

TEST_CASE("more requests at once than a ring has room for, and more completions") {
    // Without rings each keeps a thread.
    const bool rings = baton::kernel::features().io_uring;
    const int readers = rings ? 3000 : 100;
    over_procs([=](int procs) {
        bool more = read_at_once(readers, rings);
        if (!rings || procs != 1) return;
        // Where there is one processor hardly anybody takes any meanwhile.
        for (int round = 1; round < 50 && !more; round++) more = read_at_once(readers, rings);
        CHECK(more);
    });
}
