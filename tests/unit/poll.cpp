// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "baton/baton.hpp"
#include "kernel/features.hpp"
#include "runtime/netpoll.hpp"
#include "support/child.hpp"
#include "support/net.hpp"

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
