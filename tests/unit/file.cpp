// SPDX-License-Identifier: Apache-2.0
// run: tiers
// run: rings
#include "baton/file.hpp"

#include <doctest/doctest.h>

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
#include "support/procs.hpp"

using namespace std::chrono_literals;
using baton::File;
using procs_test::over_procs;

namespace {

/// A directory that goes with all that is in it.
struct Scratch {
    std::string dir = "/var/tmp/baton-file-XXXXXX";
    Scratch() { REQUIRE(::mkdtemp(dir.data()) != nullptr); }
    ~Scratch() { (void)std::system(("rm -rf " + dir).c_str()); }
    std::string operator/(const char* name) const { return dir + '/' + name; }
};

std::span<const std::byte> bytes(std::string_view s) { return std::as_bytes(std::span(s)); }
std::span<std::byte> room(std::string& s) { return std::as_writable_bytes(std::span(s)); }

std::string read_some(File& file, std::size_t n) {
    std::string s(n, '\0');
    s.resize(file.read(room(s)));
    return s;
}

constexpr std::size_t kPage = 4096;

/// `pages` pages, each of which begins with its number, past the page cache if that can be.
File numbered(const std::string& path, std::uint64_t pages, bool direct) {
    File file = File::open(path, O_RDWR | O_CREAT | O_TRUNC);
    std::string page(kPage, '\0');
    for (std::uint64_t i = 0; i < pages; i++) {
        std::memcpy(page.data(), &i, sizeof i);
        file.pwrite(bytes(page), static_cast<std::int64_t>(i * kPage));
    }
    file.fsync();
    if (!direct) return file;
    std::error_code ec;
    File past = File::open(path, O_RDONLY | O_DIRECT, 0, ec);
    return ec ? std::move(file) : std::move(past);
}

struct Page {
    Page() : at(static_cast<std::byte*>(std::aligned_alloc(kPage, kPage))) {}
    ~Page() { std::free(at); }
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
    std::span<std::byte> span() const { return {at, kPage}; }
    std::byte* at;
};

bool reads_page(File& file, std::uint64_t i) {
    const Page page;
    std::uint64_t number = ~i;
    if (file.pread(page.span(), static_cast<std::int64_t>(i * kPage)) != kPage) return false;
    std::memcpy(&number, page.at, sizeof number);
    return number == i;
}

struct Pipe {
    File in;
    File out;
    Pipe() {
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        in = File(ends[0]);
        out = File(ends[1]);
    }
};

std::error_code code(std::errc e) { return std::make_error_code(e); }

} // namespace

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

TEST_CASE("more requests at once than a ring has room for, and more completions") {
    // Without rings each keeps a thread.
    const int readers = baton::kernel::features().io_uring ? 3000 : 100;
    over_procs([readers](int) {
        Pipe pipe;
        std::atomic<int> got = 0;
        std::atomic<int> begun = 0;
        baton::WaitGroup wg;
        for (int i = 0; i < readers; i++) {
            wg.go([&] {
                std::string s(1, '\0');
                begun++;
                got += static_cast<int>(pipe.in.read(room(s)));
            });
        }
        while (begun != readers) baton::yield();
        pipe.out.write(bytes(std::string(static_cast<std::size_t>(readers), 'x')));
        wg.wait();
        CHECK(got == readers);
    });
}

TEST_CASE("a read of a pipe is given up at its deadline or by a stop, and takes nothing") {
    over_procs([](int) {
        Pipe pipe;
        std::string s(4, '.');
        std::error_code ec;
        CHECK(pipe.in.read(room(s), 10ms, ec) == 0);
        CHECK(ec == code(std::errc::timed_out));
        CHECK_THROWS_AS(pipe.in.read(room(s), 1ms), std::system_error);
        std::stop_source source;
        baton::WaitGroup wg;
        wg.go([&] {
            CHECK(pipe.in.read(room(s), source.get_token(), ec) == 0);
            CHECK(ec == code(std::errc::operation_canceled));
        });
        baton::sleep_for(5ms);
        source.request_stop();
        wg.wait();
        // Over already: nothing is waited for.
        CHECK(pipe.in.read(room(s), source.get_token(), ec) == 0);
        CHECK(ec == code(std::errc::operation_canceled));
        // The buffer is nobody's now, and what comes is for the next.
        pipe.out.write(bytes("data"));
        baton::sleep_for(5ms);
        CHECK(s == "....");
        CHECK(pipe.in.read(room(s), 10s, ec) == 4);
        CHECK(s == "data");
        // A write that finds no room says how much it has written.
        const std::string much(1 << 20, 'x');
        const std::size_t n = pipe.out.write(bytes(much), 10ms, ec);
        CHECK(ec == code(std::errc::timed_out));
        std::size_t left = n;
        std::string sink(1 << 16, '\0');
        while (left > 0) left -= pipe.in.read(room(sink));
        CHECK(pipe.in.read(room(sink), 1ms, ec) == 0);
        CHECK(n > 0);
    });
}

TEST_CASE("deadlines that pass just as data comes lose none of it") {
    over_procs([](int) {
        Pipe pipe;
        static constexpr int kBytes = 2000;
        int got = 0;
        baton::WaitGroup wg;
        wg.go([&] {
            for (int i = 0; i < kBytes; i++) {
                pipe.out.write(bytes("x"));
                if (i % 8 == 0) baton::sleep_for(std::chrono::microseconds(i % 200));
            }
        });
        std::string s(1, '\0');
        for (int i = 0; got < kBytes; i++) {
            std::error_code ec;
            got += static_cast<int>(pipe.in.read(room(s), std::chrono::microseconds(i % 150), ec));
            if (ec) CHECK(ec == code(std::errc::timed_out));
        }
        wg.wait();
        CHECK(got == kBytes);
    });
}

TEST_CASE("closing a file ends the reads that wait there") {
    over_procs([](int) {
        for (int round = 0; round < 20; round++) {
            Pipe pipe;
            std::atomic<int> failed = 0;
            baton::WaitGroup wg;
            for (int i = 0; i < 8; i++) {
                wg.go([&] {
                    std::string s(1, '\0');
                    std::error_code ec;
                    pipe.in.read(room(s), ec);
                    failed += ec == code(std::errc::bad_file_descriptor);
                });
            }
            if (round % 2 == 0) baton::sleep_for(1ms);
            pipe.in.close();
            wg.wait();
            CHECK(failed == 8);
        }
    });
}

TEST_CASE("closing a file while others read it is no harm") {
    const Scratch scratch;
    File keep = numbered(scratch / "f", 64, false);
    over_procs([&](int) {
        for (int round = 0; round < 10; round++) {
            File file = File::open(scratch / "f", O_RDONLY | O_DIRECT);
            baton::WaitGroup wg;
            std::atomic<int> wrong = 0;
            for (int g = 0; g < 16; g++) {
                wg.go([&] {
                    const Page page;
                    std::error_code ec;
                    while (!ec) {
                        const std::size_t n = file.pread(page.span(), 0, ec);
                        wrong += !ec && n != kPage;
                    }
                    wrong += ec != code(std::errc::bad_file_descriptor);
                });
            }
            baton::sleep_for(2ms);
            file.close();
            wg.wait();
            CHECK(wrong == 0);
        }
    });
}

TEST_CASE("reads go on while the number of processors changes") {
    const Scratch scratch;
    File file = numbered(scratch / "f", 256, true);
    baton::run([&] {
        std::atomic<bool> stop = false;
        std::atomic<int> wrong = 0;
        std::atomic<int> reads = 0;
        baton::WaitGroup wg;
        for (int g = 0; g < 64; g++) {
            wg.go([&, g] {
                for (std::uint64_t i = static_cast<std::uint64_t>(g); !stop; i++, reads++)
                    wrong += !reads_page(file, i % 256);
            });
        }
        Pipe pipe; // whose read outlives the P it was made on
        wg.go([&] { CHECK(read_some(pipe.in, 4) == "late"); });
        for (int round = 0; round < 60; round++) {
            baton::set_max_procs(std::array{8, 1, 4, 2}[static_cast<std::size_t>(round % 4)]);
            const int before = reads;
            while (reads < before + 50) baton::yield();
        }
        stop = true;
        baton::set_max_procs(1);
        pipe.out.write(bytes("late"));
        wg.wait();
        CHECK(wrong == 0);
    });
}

TEST_CASE("a thread that ends does not take the requests along that it handed over") {
    over_procs([](int) {
        Pipe pipe;
        std::atomic<bool> got = false;
        baton::WaitGroup wg;
        wg.go([&] { got = read_some(pipe.in, 4) == "data"; });
        for (int i = 0; i < 16; i++) {
            baton::WaitGroup one;
            one.go([] { // which ends its thread
                baton::lock_os_thread();
                baton::yield();
            });
            one.wait();
            baton::sleep_for(1ms);
        }
        pipe.out.write(bytes("data"));
        wg.wait();
        CHECK(got);
    });
}

namespace {
std::atomic<int> signals_taken = 0;
}

TEST_CASE("signals disturb no read") {
    const Scratch scratch;
    File file = numbered(scratch / "f", 64, true);
    struct sigaction action {};
    action.sa_handler = [](int) { signals_taken++; }; // without SA_RESTART

    ::sigaction(SIGUSR2, &action, nullptr); // for good: one may still be pending
    over_procs([&](int) {
        Pipe pipe;
        std::atomic<bool> stop = false;
        std::atomic<int> wrong = 0;
        baton::WaitGroup wg;
        for (int g = 0; g < 8; g++) {
            wg.go([&] {
                for (std::uint64_t i = 0; !stop; i++) wrong += !reads_page(file, i % 64);
            });
        }
        wg.go([&] { wrong += read_some(pipe.in, 1) != "x"; });
        for (int i = 0; i < 200; i++) {
            DIR* tasks = ::opendir("/proc/self/task");
            while (const dirent* task = ::readdir(tasks)) {
                const int tid = std::atoi(task->d_name);
                if (tid > 0) (void)::tgkill(::getpid(), tid, SIGUSR2);
            }
            ::closedir(tasks);
            baton::sleep_for(100us);
        }
        stop = true;
        pipe.out.write(bytes("x"));
        wg.wait();
        CHECK(wrong == 0);
    });
    CHECK(signals_taken > 0);
}

TEST_CASE("a forked child has rings of its own, and leaves its parent's alone") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    std::puts("skip: a sanitizer cannot do much in the child of a threaded process");
    return;
#endif
    const Scratch scratch;
    File file = numbered(scratch / "f", 64, true);
    Pipe pipe;
    baton::run([&] {
        baton::WaitGroup wg;
        wg.go([&] { CHECK(read_some(pipe.in, 6) == "parent"); });
        baton::sleep_for(2ms);
        CHECK(reads_page(file, 3));
        const pid_t child = ::fork();
        if (child == 0) {
            bool good = false;
            baton::run([&] {
                Pipe own;
                baton::WaitGroup both;
                both.go([&] { good = read_some(own.in, 5) == "child"; });
                baton::sleep_for(2ms);
                own.out.write(bytes("child"));
                both.wait();
                for (std::uint64_t i = 0; i < 64; i++) good = good && reads_page(file, i);
            });
            ::_exit(good ? 7 : 8);
        }
        int status = 0;
        CHECK(baton::blocking([&] { return ::waitpid(child, &status, 0); }) == child);
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 7);
        for (std::uint64_t i = 0; i < 64; i++) CHECK(reads_page(file, i));
        pipe.out.write(bytes("parent"));
        wg.wait();
    });
}

TEST_CASE("statistics tell of what is under way") {
    over_procs([](int) {
        Pipe pipe;
        CHECK(baton::stats().file_threads > 0);
        baton::WaitGroup wg;
        wg.go([&] { CHECK(read_some(pipe.in, 1) == "x"); });
        while (baton::stats().file_requests + baton::stats().file_calls == 0) baton::yield();
        pipe.out.write(bytes("x"));
        wg.wait();
        while (baton::stats().file_requests + baton::stats().file_calls != 0) baton::yield();
    });
}
