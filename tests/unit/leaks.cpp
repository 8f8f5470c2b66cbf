// SPDX-License-Identifier: Apache-2.0
//
// BATON_DEBUG=leak=1: who is reported at exit, and who is not. Each case is a process of its own.
#include <doctest/doctest.h>

#include <cstdlib>

#include "baton/baton.hpp"
#include "support/child.hpp"

using namespace child_process;
using baton::Chan;

TEST_CASE("child: leaks" * doctest::skip()) {
    baton::run([] {
        Chan<int> c, answered;
        baton::go([c] { (void)c.recv(); });
        baton::go([c] { (void)c.recv(); });
        baton::go([] { baton::sleep_for(1000s); });
        baton::go([c, answered] { answered.send(1); });
        (void)answered.recv();
        baton::sleep_for(20ms);
    });
    if (std::getenv("BATON_TEST_EXIT_ON_G") != nullptr) baton::run([] { std::exit(3); });
    reached();
}

TEST_CASE("leaks: BATON_DEBUG=leak=1 shows who waits for ever when the process ends") {
    const Child child = run_child("leaks", {"BATON_DEBUG=leak=1"});
    INFO(child.output);
    CHECK(child.exited(0));
    check_shows(child, "\nbaton: leak: at exit 2 goroutines wait for a channel or a lock\n\n"
                       "goroutine ");
    CHECK(count(child.output, "\ngoroutine ") == 2);
    CHECK(count(child.output, "\ncreated by ") == 2);
    const Child on_g = run_child("leaks", {"BATON_DEBUG=leak=1", "BATON_TEST_EXIT_ON_G=1"});
    CHECK(on_g.exited(3));
    check_shows(on_g, "\nbaton: leak: at exit 2 goroutines wait");
    check_hides(run_child("leaks"), "leak:");
    check_hides(run_child("leaks", {"BATON_DEBUG=leak=0"}), "leak:");
    check_shows(run_child("leaks", {"BATON_DEBUG=leak=1,warp=9"}),
                "baton: BATON_DEBUG: unknown name 'warp'; known: leak\n");
    check_shows(run_child("leaks", {"BATON_DEBUG=leak=x"}),
                "baton: BATON_DEBUG: leak=x: not 0 or 1; using 0\n");
}
