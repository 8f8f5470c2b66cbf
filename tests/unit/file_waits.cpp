// SPDX-License-Identifier: Apache-2.0
//
// Reads that wait: given up, closed, and with all that may happen to a process meanwhile.
// run: tiers
// run: rings
// run: engines
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
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/procs.hpp"
#include "support/slow_pages.hpp"

using namespace std::chrono_literals;
using namespace files_test;
using procs_test::over_procs;

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

TEST_CASE("closing a file just as a read of it begins") {
    baton::run([] {
        baton::set_max_procs(4);
        int wrong = 0;
        for (int round = 0; round < 300; round++) {
            Pipe pipe;
            std::atomic<int> there = 0;
            std::error_code ec;
            const auto together = [&] {
                for (there++; there < 2;) baton::yield();
            };
            baton::WaitGroup wg;
            wg.go([&] {
                std::string s(1, '\0');
                together();
                pipe.in.read(room(s), 5s, ec);
            });
            together();
            for (int i = 0; i < round % 64; i++) there++;
            pipe.in.close();
            wg.wait();
            wrong += ec != code(std::errc::bad_file_descriptor);
        }
        CHECK(wrong == 0);
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

// By the memory read to, whose pages are slow to come: a disk's queue cannot be had full at will.
TEST_CASE("child: reads from the cache that block" * doctest::skip()) {
    static constexpr std::uint64_t kReaders = 64;
    const Scratch scratch;
    const slow_pages::SlowPages pages(kReaders);
    const slow_pages::PageServer server(pages, 10ms);
    baton::run([&] {
        baton::set_max_procs(2);
        File file = numbered(scratch / "f", kReaders, false);
        for (int round = 0; round < 2; round++) {
            std::atomic<int> wrong = 0;
            baton::WaitGroup wg;
            for (std::uint64_t i = 0; i < kReaders; i++) {
                wg.go([&, i] {
                    auto* page = reinterpret_cast<std::byte*>(pages.page(i));
                    const auto at = static_cast<std::int64_t>(i * kPage);
                    std::uint64_t number = ~i;
                    File own;
                    if (round == 0) own = File::open(scratch / "f", O_RDONLY);
                    if ((round == 0 ? own : file).pread({page, kPage}, at) == kPage)
                        std::memcpy(&number, page, sizeof number);
                    wrong += number != i;
                });
            }
            wg.wait();
            CHECK(wrong == 0);
            // The second time all of one file, which was known to be in the cache.
            pages.take_back();
            for (std::uint64_t i = 0; i < 4 * kReaders; i++) CHECK(reads_page(file, i % kReaders));
        }
    });
    const baton::Stats stats = baton::stats();
    CHECK(stats.file_threads == 4);
    CHECK(stats.threads_peak < 4 + 16);
    child_process::reached();
}

TEST_CASE("readers whose reads block hold no more threads than BATON_FILE_THREADS") {
    try {
        const slow_pages::SlowPages pages(1);
    } catch (const std::system_error& error) {
        std::printf("skip: no slow pages: %s\n", error.what());
        return;
    }
    child_process::check_works(
        child_process::run_child("reads from the cache that block", {"BATON_FILE_THREADS=4"}));
}
