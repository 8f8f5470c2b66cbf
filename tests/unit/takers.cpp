// SPDX-License-Identifier: Apache-2.0
//
// Each of those who take the Ps of blocked Ms does so: with the others at work as well, a dead one
// would not be missed, only time be lost.
// run: tiers
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>

#include "baton/baton.hpp"
#include "support/busy.hpp"

using namespace std::chrono_literals;
using baton::Assist;
using baton::Stats;

namespace {

/// `blockers` goroutines block again and again beside one that runs, on one processor, until a
/// counter has risen by so much. How far it got.
std::uint64_t risen(std::uint64_t Stats::*counter, std::uint64_t by, int blockers) {
    std::atomic<std::uint64_t> now = 0;
    baton::run([&] {
        baton::set_max_procs(1);
        const std::uint64_t before = baton::stats().*counter;
        const auto until = std::chrono::steady_clock::now() + 20s;
        const auto over = [&] { return now >= by || std::chrono::steady_clock::now() >= until; };
        baton::WaitGroup wg;
        for (int i = 0; i < blockers; i++)
            wg.go([&] {
                while (!over()) {
                    baton::blocking([] { std::this_thread::sleep_for(100us); });
                    baton::yield(); // so that it has the processor again
                }
            });
        while (!over()) {
            now = baton::stats().*counter - before;
            baton::yield();
        }
        wg.wait();
    });
    return now;
}

bool tier_is(Assist tier) { return baton::assist_tier() == tier; }

} // namespace

TEST_CASE("takers: the understudy") {
    if (tier_is(Assist::kSysmon)) {
        CHECK(risen(&Stats::handoffs, 10, 1) >= 10);
        CHECK(baton::stats().handoffs_understudy == 0);
        return;
    }
    CHECK(risen(&Stats::handoffs_understudy, 10, 1) >= 10);
    const auto until = std::chrono::steady_clock::now() + 20s;
    baton::run([&] {
        while (baton::stats().understudy_arms == 0 && std::chrono::steady_clock::now() < until) {
            baton::sleep_for(5ms); // it dozes
            baton::blocking([] { std::this_thread::sleep_for(100us); });
        }
    });
    CHECK(baton::stats().understudy_dozes > 0);
    CHECK(baton::stats().understudy_arms > 0);
}

TEST_CASE("takers: the scan, by those who come back to no processor") {
    if (!tier_is(Assist::kProbe)) {
        std::printf("skip: only the probe marks what a scan may take\n");
        return;
    }
    CHECK(risen(&Stats::handoffs_scan, 10, 8) >= 10);
}

TEST_CASE("takers: the ring buffer's wake, where the understudy starves") {
    if (!tier_is(Assist::kProbe)) {
        std::printf("skip: only the probe wakes anybody\n");
        return;
    }
    const busy::Processes busy(1);
    CHECK(risen(&Stats::handoffs_ringbuf, 10, 2) >= 10);
}

TEST_CASE("takers: sysmon, where nobody else is") {
    if (!tier_is(Assist::kSysmon)) {
        std::printf("skip: elsewhere the others are quicker\n");
        return;
    }
    CHECK(risen(&Stats::handoffs_sysmon, 10, 1) >= 10);
    const Stats stats = baton::stats();
    CHECK(stats.handoffs == stats.handoffs_sysmon);
}
