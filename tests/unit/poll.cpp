// SPDX-License-Identifier: Apache-2.0
// run: engines
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/features.hpp"
#include "runtime/entry.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/polldesc.hpp"
#include "runtime/pollengine.hpp"
#include "support/child.hpp"
#include "support/files.hpp"
#include "support/net.hpp"
#include "support/rings.hpp"
#include "support/seccomp.hpp"

using namespace child_process;

namespace {

/// Is this the engine in force, and does it work?
void check_engine(const char* name) {
    baton::run([] {
        net_test::Pair pair = net_test::tcp_pair();
        baton::WaitGroup wg;
        char c = 0;
        wg.go([&] { CHECK(pair.server.read(&c, 1) == 1); });
        baton::sleep_for(std::chrono::milliseconds(2));
        pair.client.write("x");
        wg.wait();
        CHECK(c == 'x');
    });
    CHECK(std::string(baton::rt::netpoll_engine()) == name);
}

void check_quiet(const Child& child) {
    check_works(child);
    CHECK(child.said().empty());
}

void check_says(const Child& child, const std::string& line) {
    check_works(child);
    const Strings said = child.said();
    REQUIRE(said.size() == 1);
    CHECK(said[0].substr(0, line.size()) == line);
}

/// From here on io_uring_setup answers `err` on every thread, as in a container that filters it;
/// for EPERM also as where the sysctl kernel.io_uring_disabled is 2.
void refuse_io_uring(int err) {
    seccomp_test::refuse(__NR_io_uring_setup, err);
    REQUIRE(::syscall(__NR_io_uring_setup, 1, nullptr) == -1);
    REQUIRE(errno == err);
}

void check_files() {
    const files_test::Scratch scratch;
    baton::run([&] {
        baton::File file = files_test::numbered(scratch / "f", 64, true);
        std::atomic<int> wrong = 0;
        baton::WaitGroup wg;
        for (std::uint64_t i = 0; i < 64; i++)
            wg.go([&, i] { wrong += !files_test::reads_page(file, i); });
        wg.wait();
        CHECK(wrong == 0);
        files_test::Pipe pipe;
        wg.go([&] { CHECK(files_test::read_some(pipe.in, 4) == "pipe"); });
        while (baton::stats().file_calls == 0) baton::yield(); // no ring has it
        pipe.out.write(files_test::bytes("pipe"));
        wg.wait();
    });
}

} // namespace

TEST_CASE("child: epoll" * doctest::skip()) {
    check_engine("epoll");
    reached();
}
TEST_CASE("child: uring" * doctest::skip()) {
    check_engine("uring");
    reached();
}
TEST_CASE("child: no io_uring" * doctest::skip()) {
    check_engine("epoll");
    for (const baton::KernelFeature& f : baton::kernel_features()) {
        if (f.name == "io_uring") CHECK(!f.usable);
    }
    reached();
}

TEST_CASE("child: io_uring refused" * doctest::skip()) {
    refuse_io_uring(std::atoi(std::getenv("REFUSED_WITH")));
    check_engine("epoll");
    check_files();
    reached();
}
TEST_CASE("child: io_uring refused once it runs" * doctest::skip()) {
    check_engine("epoll");
    refuse_io_uring(EPERM);
    check_files();
    reached();
}

TEST_CASE("child: io_uring without something" * doctest::skip()) {
    const int err = std::atoi(std::getenv("REFUSED_WITH"));
    const int what = std::atoi(std::getenv("REFUSED"));
    seccomp_test::refuse(__NR_io_uring_register, err, static_cast<std::uint32_t>(what));
    check_engine("epoll");
    check_files();
    for (const baton::KernelFeature& f : baton::kernel_features()) {
        if (f.name != "io_uring") continue;
        CHECK(!f.usable);
        CHECK(f.detail == std::getenv("DETAIL"));
    }
    reached();
}

TEST_CASE("BATON_POLL chooses the engine; auto is epoll") {
    check_quiet(run_child("epoll"));
    check_quiet(run_child("epoll", {"BATON_POLL=auto"}));
    check_quiet(run_child("epoll", {"BATON_POLL=epoll"}));
    check_says(run_child("epoll", {"BATON_POLL=select"}),
               "baton: BATON_POLL=select: not one of epoll, uring, auto; using auto");
    if (!baton::kernel::features().io_uring) {
        std::puts("skip: no io_uring here");
        return;
    }
    check_quiet(run_child("uring", {"BATON_POLL=uring"}));
}

TEST_CASE("without io_uring epoll stands in; only who asked for it is told") {
    check_quiet(run_child("no io_uring", {"BATON_DISABLE=io_uring"}));
    check_quiet(run_child("no io_uring", {"BATON_DISABLE=io_uring", "BATON_POLL=auto"}));
    check_says(run_child("no io_uring", {"BATON_DISABLE=io_uring", "BATON_POLL=uring"}),
               "baton: BATON_POLL=uring: no io_uring (switched off by BATON_DISABLE); using epoll");
}

TEST_CASE("a kernel or a sandbox that refuses io_uring: epoll, and files by calls") {
    const std::string eperm = "REFUSED_WITH=" + std::to_string(EPERM);
    const std::string enosys = "REFUSED_WITH=" + std::to_string(ENOSYS);
    check_quiet(run_child("io_uring refused", {eperm}));
    check_quiet(run_child("io_uring refused", {enosys}));
    check_quiet(run_child("io_uring refused once it runs"));
    check_says(run_child("io_uring refused", {eperm, "BATON_POLL=uring"}),
               "baton: BATON_POLL=uring: no io_uring (io_uring_setup: EPERM (not permitted)); "
               "using epoll");
}

TEST_CASE("a kernel whose io_uring lacks an operation or cannot cancel: the same") {
    if (!baton::kernel::features().io_uring) {
        std::puts("skip: no io_uring here");
        return;
    }
    const auto without = [](int what, int err, const std::string& detail) {
        const Strings variables = {"REFUSED=" + std::to_string(what),
                                   "REFUSED_WITH=" + std::to_string(err), "DETAIL=" + detail};
        check_quiet(run_child("io_uring without something", variables));
        Strings asked = variables;
        asked.emplace_back("BATON_POLL=uring");
        check_says(run_child("io_uring without something", asked),
                   "baton: BATON_POLL=uring: no io_uring (" + detail + "); using epoll");
    };
    const std::string operations = "io_uring, operations: EINVAL (not known to this kernel)";
    without(IORING_REGISTER_PROBE, EINVAL, operations); // one that does not even tell
    without(IORING_REGISTER_PROBE, 0, operations);      // one that says it knows none
    without(IORING_REGISTER_SYNC_CANCEL, EINVAL,
            "io_uring, cancelling: EINVAL (not known to this kernel)");
}

namespace {

namespace rt = baton::rt;
using rt::PollMode;

rt::PollDesc* opened(int fd) {
    int err = 0;
    rt::PollDesc* pd = rt::poll_open(fd, &err);
    REQUIRE(pd != nullptr);
    return pd;
}

void close(rt::PollDesc* pd) {
    rt::poll_evict(pd);
    rt::poll_close(pd);
}

} // namespace

TEST_CASE("an event of a former use of a poll descriptor is nobody's") {
    baton::run([] {
        const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        rt::PollDesc* former = opened(fd);
        const std::uint64_t tag = rt::tag_of(former);
        close(former);
        rt::PollDesc* pd = opened(fd);
        REQUIRE(pd == former);
        REQUIRE(rt::poll_reset(pd, PollMode::kRead) == 0); // what epoll said at once is gone
        rt::GList list;
        rt::netpollready(list, tag, EPOLLIN | EPOLLRDHUP);
        CHECK(!rt::poll_hangup(pd));
        CHECK(pd->rg.load() == rt::kPdNil);
        rt::netpollready(list, rt::tag_of(pd), EPOLLIN | EPOLLRDHUP);
        CHECK(rt::poll_hangup(pd));
        CHECK(pd->rg.load() != rt::kPdNil);
        close(pd);
        ::close(fd);
    });
}

TEST_CASE("a limit that is late gives up no later wait, and the first one counts") {
    baton::run([] {
        const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        rt::PollDesc* pd = opened(fd);
        for (const PollMode mode : {PollMode::kRead, PollMode::kWrite}) {
            const rt::Entry entry; // as whoever cuts a wait has one
            const std::uint64_t former = rt::poll_limit_begin(pd, mode);
            rt::poll_limit_end(pd, mode);
            rt::poll_cut(pd, mode, former, ETIMEDOUT); // nobody waits
            CHECK(rt::poll_reset(pd, mode) == 0);
            const std::uint64_t number = rt::poll_limit_begin(pd, mode);
            rt::poll_cut(pd, mode, former, ETIMEDOUT);
            CHECK(rt::poll_reset(pd, mode) == 0);
            rt::poll_cut(pd, mode, number, ECANCELED);
            rt::poll_cut(pd, mode, number, ETIMEDOUT);
            CHECK(rt::poll_reset(pd, mode) == ECANCELED);
            rt::poll_limit_end(pd, mode);
            CHECK(rt::poll_reset(pd, mode) == 0);
        }
        close(pd);
        ::close(fd);
    });
}

TEST_CASE("more events at once than an engine has room for: none is lost") {
    static constexpr std::size_t kFds = 6500; // a ring has room for 4096
    rlimit limit{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = std::max(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, 7000));
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 7000) {
        std::puts("skip: no 7,000 descriptors (ulimit -n)");
        return;
    }
    baton::run([] {
        const int before = baton::set_max_procs(1); // so that hardly anybody else polls
        const int event = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        std::vector<baton::AsyncFd> fds;
        for (std::size_t i = 0; i < kFds; i++) fds.push_back(baton::AsyncFd::adopt(::dup(event)));
        // All wait, and are told at once. Were there more events than room for them?
        const auto told_at_once = [&] {
            std::atomic<std::size_t> waiting = 0, got = 0;
            baton::WaitGroup wg;
            for (baton::AsyncFd& fd : fds) {
                wg.go([&] {
                    waiting++;
                    fd.wait_readable();
                    got++;
                });
            }
            while (waiting < kFds) baton::yield();
            std::uint64_t n = 1;
            REQUIRE(::write(event, &n, sizeof n) == sizeof n);
            const bool more = rings_test::look().overflown;
            wg.wait();
            CHECK(got == kFds);
            REQUIRE(::read(event, &n, sizeof n) == sizeof n);
            return more || std::string_view(rt::netpoll_engine()) != "uring";
        };
        bool more = told_at_once();
        for (int round = 1; round < 50 && !more; round++) more = told_at_once();
        CHECK(more);
        told_at_once(); // those as well whose requests have ended for want of room
        ::close(event);
        baton::set_max_procs(before);
    });
}
