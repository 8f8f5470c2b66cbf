// SPDX-License-Identifier: Apache-2.0
//
// The hooks linked in, as by -lbaton_preload, without LD_PRELOAD.
#include <doctest/doctest.h>

#include <cstdlib>

#include <unistd.h>

#include "baton/baton.hpp"

TEST_CASE("the hooks work linked in") {
    REQUIRE(std::getenv("LD_PRELOAD") == nullptr);
    CHECK_FALSE(baton::hooks_active()); // not before the runtime has started
    const bool active = baton::run([] { return baton::hooks_active(); });
    CHECK(active);
    baton::run([] {
        baton::set_max_procs(1);
        baton::WaitGroup wg;
        for (int i = 0; i < 100; i++) wg.go([] { ::usleep(50'000); });
        baton::sleep_for(std::chrono::milliseconds(20));
        const baton::Stats s = baton::stats();
        CHECK(s.threads - s.threads_idle <= 8);
        wg.wait();
    });
}
