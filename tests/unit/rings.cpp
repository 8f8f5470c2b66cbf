// SPDX-License-Identifier: Apache-2.0
//
// What goes by a ring, by the kernel's own word; and that it goes on where the thread that handed
// it over sleeps.
// run: tiers
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/features.hpp"
#include "runtime/netpoll.hpp"
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/procs.hpp"
#include "support/rings.hpp"

using namespace std::chrono_literals;
using namespace files_test;
using procs_test::over_procs;

namespace {

bool no_rings() {
    if (baton::kernel::features().io_uring) return false;
    std::puts("skip: no io_uring here");
    return true;
}

/// Does f() move so many bytes, and by a ring?
template <class F>
bool by_ring(std::size_t bytes, F f) {
    const std::uint64_t before = rings_test::look().completed;
    return f() == bytes && rings_test::look().completed > before;
}

} // namespace

TEST_CASE("reads and writes at an offset of a direct file go by the ring") {
    if (no_rings()) return;
    over_procs([](int) {
        const Scratch scratch;
        const std::string path = scratch / "f";
        File file = direct(path);
        if (!file) return;
        const Page page;
        for (const char c : {'a', 'b', 'c', 'd'}) {
            std::memset(page.at, c, kPage);
            const auto at = static_cast<std::int64_t>(kPage) * (c - 'a');
            CHECK(by_ring(kPage, [&] { return file.pwrite(page.span(), at); }));
            CHECK(holds(path, c - 'a', c));
        }
        CHECK(by_ring(kPage, [&] { return file.pread(page.span(), kPage); }));
        CHECK(is_full_of(page, 'b'));
        CHECK(by_ring(0, [&] { return file.pread(page.span(), 4 * kPage); }));

        std::error_code ec;
        file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPage, 2 * kPage, ec);
        if (ec == std::errc::operation_not_supported) {
            std::puts("skip: no holes in files here");
            return;
        }
        CHECK_FALSE(ec);
        CHECK(file.stat().stx_size == 4 * kPage);
        CHECK(file.pread(page.span(), kPage) == kPage);
        CHECK(is_full_of(page, '\0'));
        CHECK(holds(path, 2, '\0'));
        CHECK(holds(path, 3, 'd'));
    });
}

TEST_CASE("reads and writes of a pipe go by the ring, of one buffer and of several") {
    if (no_rings()) return;
    over_procs([](int) {
        Pipe pipe;
        CHECK(by_ring(5, [&] { return pipe.out.write(bytes("Hello")); }));
        std::string a = " wor", b = "ld";
        const iovec out[] = {{a.data(), a.size()}, {b.data(), b.size()}};
        CHECK(by_ring(6, [&] { return pipe.out.writev(out); }));
        std::string c(3, '.'), d(9, '.');
        CHECK(by_ring(3, [&] { return pipe.in.read(room(c)); }));
        CHECK(c == "Hel");
        const iovec in[] = {{c.data(), c.size()}, {d.data(), d.size()}};
        CHECK(by_ring(8, [&] { return pipe.in.readv(in); }));
        CHECK(c + d == "lo world....");
    });
}

namespace {

constexpr auto kBlock = 250ms;

/// Has goroutines, as many as there are processors, sleep in the kernel, which nobody was told of.
class Blocked {
public:
    explicit Blocked(int n) {
        for (int i = 0; i < n; i++) {
            wg_.go([this] {
                tid_ = ::gettid();
                const timespec ts{0, std::chrono::nanoseconds(kBlock).count()};
                ::syscall(SYS_nanosleep, &ts, nullptr);
                over_ = true;
            });
        }
        while (tid_ == 0) baton::sleep_for(1ms);
    }
    ~Blocked() { wg_.wait(); }
    Blocked(const Blocked&) = delete;
    Blocked& operator=(const Blocked&) = delete;
    pid_t thread() const { return tid_; }
    /// Has the first of them come back?
    bool over() const { return over_; }

private:
    std::atomic<pid_t> tid_{0};
    std::atomic<bool> over_{false};
    baton::WaitGroup wg_;
};

/// Yields until f(): the thread this is on, -1 if it was not the same all the time.
template <class F>
pid_t yield_until(F f) {
    const pid_t thread = ::gettid();
    bool same = true;
    while (!f()) {
        baton::yield();
        same = same && ::gettid() == thread;
    }
    return same ? thread : -1;
}

} // namespace

TEST_CASE("a pipe's read completes while the thread that handed it over sleeps") {
    if (no_rings()) return;
    for (const int procs : {1, 4}) {
        baton::run([procs] {
            baton::set_max_procs(procs);
            bool met = false; // was it that thread?
            for (int round = 0; round < 10 && !met; round++) {
                Pipe pipe;
                std::atomic<bool> late = false, got = false;
                baton::WaitGroup wg;
                const auto readers = static_cast<std::uint64_t>(procs);
                const std::uint64_t before = rings_test::look().submitted;
                std::atomic<const Blocked*> blocked = nullptr;
                for (int i = 0; i < procs; i++) {
                    wg.go([&] {
                        got = read_some(pipe.in, 1) == "x";
                        late = late || blocked.load()->over();
                    });
                }
                const pid_t thread =
                    yield_until([&] { return rings_test::look().submitted >= before + readers; });
                const Blocked asleep(procs);
                blocked = &asleep;
                REQUIRE(::write(pipe.out.fd(), "xxxxxxxx", readers) == procs);
                wg.wait();
                CHECK(got);
                CHECK_FALSE(late);
                met = procs != 1 || asleep.thread() == thread;
            }
            CHECK(met);
        });
    }
}

TEST_CASE("a disk's reads complete while the thread that handed them over sleeps") {
    if (no_rings()) return;
    constexpr std::size_t kReaders = 16, kEach = 256 << 10;
    const Scratch scratch;
    File file;
    baton::run([&] {
        baton::set_max_procs(1);
        { (void)numbered(scratch / "f", kReaders * kEach / kPage, false); }
        file = direct(scratch / "f");
        if (!file) return;
        bool met = false; // were some under way?
        for (int round = 0; round < 10 && !met; round++) {
            std::atomic<bool> late = false;
            std::atomic<std::size_t> good = 0;
            std::atomic<const Blocked*> blocked = nullptr;
            const std::uint64_t before = rings_test::look().submitted;
            baton::WaitGroup wg;
            for (std::size_t i = 0; i < kReaders; i++) {
                wg.go([&, i] {
                    auto* room = static_cast<std::byte*>(std::aligned_alloc(kPage, kEach));
                    const std::size_t n =
                        file.pread({room, kEach}, static_cast<std::int64_t>(i * kEach));
                    std::uint64_t number = 0;
                    std::memcpy(&number, room, sizeof number);
                    std::free(room);
                    good += n == kEach && number == i * kEach / kPage;
                    const Blocked* b = blocked;
                    late = late || (b && b->over());
                });
            }
            (void)yield_until([&] { return rings_test::look().submitted >= before + kReaders; });
            const std::uint64_t left = baton::stats().file_requests;
            const Blocked asleep(1);
            blocked = &asleep;
            wg.wait();
            CHECK(good == kReaders);
            CHECK_FALSE(late);
            met = left > 0;
        }
        CHECK(met);
    });
}

TEST_CASE("child: a socket that a sleeping thread made" * doctest::skip()) {
    baton::run([] {
        CHECK(std::string(baton::rt::netpoll_engine()) == "uring");
        baton::set_max_procs(1);
        bool met = false;
        for (int round = 0; round < 10 && !met; round++) {
            auto ends = baton::Conn::pair();
            baton::Conn &one = ends.first, &other = ends.second;
            std::atomic<bool> reads = false, got = false;
            baton::WaitGroup wg;
            wg.go([&] {
                char c = 0;
                reads = true;
                got = one.read(&c, 1) == 1 && c == 'x';
            });
            const pid_t thread = yield_until([&] { return reads.load(); });
            const Blocked asleep(1);
            other.write("x");
            wg.wait();
            CHECK(got);
            CHECK_FALSE(asleep.over());
            met = asleep.thread() == thread;
        }
        CHECK(met);
    });
    child_process::reached();
}

TEST_CASE("the event of a socket is told while the thread that asked for it sleeps") {
    if (no_rings()) return;
    for (const auto& child :
         child_process::run_on_tiers("a socket that a sleeping thread made", {"BATON_POLL=uring"}))
        child_process::check_works(child);
}
