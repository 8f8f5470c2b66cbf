// SPDX-License-Identifier: Apache-2.0
//
// The histogram behind stats(), and that what stats() says of handoffs agrees with itself.
// run: tiers
#include "runtime/histogram.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>

#include <unistd.h>

#include "baton/baton.hpp"

using baton::rt::Histogram;

namespace {

/// Within an eighth: half a bucket.
bool near(std::uint64_t got, std::uint64_t truth) {
    return std::abs(static_cast<double>(got) / static_cast<double>(truth) - 1) <= 0.125;
}

} // namespace

TEST_CASE("histogram: a single value is every quantile, within an eighth") {
    for (std::int64_t v = 4; v < std::int64_t{1} << 60; v += v / 7 + 1) {
        Histogram h;
        h.add(v);
        CHECK(h.count() == 1);
        for (const double q : {0.0, 0.5, 0.99}) {
            CAPTURE(v);
            CHECK(near(h.quantile(q), static_cast<std::uint64_t>(v)));
        }
    }
}

TEST_CASE("histogram: quantiles of 1 to 10,000") {
    Histogram h;
    CHECK(h.count() == 0);
    CHECK(h.quantile(0.5) == 0);
    for (std::int64_t v = 10'000; v > 0; v--) h.add(v);
    CHECK(h.count() == 10'000);
    for (const double q : {0.01, 0.1, 0.25, 0.5, 0.9, 0.99}) {
        CAPTURE(q);
        CHECK(near(h.quantile(q), static_cast<std::uint64_t>(q * 10'000)));
    }
    CHECK(h.quantile(0) == 1);
    CHECK(near(h.quantile(1), 10'000));
}

TEST_CASE("histogram: a quantile is that of the rank, not of the value") {
    Histogram h;
    for (int i = 0; i < 98; i++) h.add(1'000);
    h.add(1'000'000);
    h.add(1'000'000);
    CHECK(near(h.quantile(0.50), 1'000));
    CHECK(near(h.quantile(0.97), 1'000));
    CHECK(near(h.quantile(0.98), 1'000'000));
    CHECK(near(h.quantile(0.99), 1'000'000));
}

TEST_CASE("histogram: what is no duration counts as the shortest, the longest has a bucket") {
    Histogram h;
    for (const std::int64_t v : {std::int64_t{0}, std::int64_t{-5}, std::int64_t{1}}) h.add(v);
    CHECK(h.count() == 3);
    CHECK(h.quantile(0.99) == 1);
    Histogram longest;
    longest.add(std::numeric_limits<std::int64_t>::max());
    CHECK(near(longest.quantile(0.5), std::numeric_limits<std::int64_t>::max()));
}

// The one processor is in a call each time, so whoever ends the call runs by a handoff.
TEST_CASE("histogram: known handoffs are in stats(), with their times where the probe has them") {
    constexpr std::uint64_t kBlocks = 200;
    const bool stamped = baton::assist_tier() == baton::Assist::kProbe; // the runtime has started
    const baton::Stats before = baton::stats();
    const auto start = std::chrono::steady_clock::now();
    std::atomic<int> wrong{0};
    baton::run([&] {
        baton::set_max_procs(1);
        int fds[2];
        REQUIRE(::pipe(fds) == 0);
        baton::Chan<int> turns;
        baton::WaitGroup wg;
        wg.go([&] {
            for (const int i : turns) wrong += ::write(fds[1], &i, sizeof i) != sizeof i;
        });
        for (std::uint64_t i = 0; i < kBlocks; i++) {
            int came = 0;
            turns.send(1); // now the other one waits for the processor
            baton::blocking([&] { wrong += ::read(fds[0], &came, sizeof came) != sizeof came; });
            baton::yield(); // has it again: on credit there is none to pass
        }
        turns.close();
        wg.wait();
        for (const int fd : fds) ::close(fd);
    });
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    const baton::Stats after = baton::stats();
    const std::uint64_t handoffs = after.handoffs - before.handoffs;
    const std::uint64_t samples = after.handoff_samples - before.handoff_samples;
    std::fprintf(stderr, "  %lu handoffs, %lu samples, p50 %lu, p99 %lu ns\n", handoffs, samples,
                 after.handoff_p50_ns, after.handoff_p99_ns);
    CHECK(wrong.load() == 0);
    CHECK(handoffs >= kBlocks / 2);
    if (!stamped) {
        CHECK(samples == 0);
        CHECK(after.handoff_p50_ns == 0);
        CHECK(after.handoff_p99_ns == 0);
        return;
    }
    CHECK(samples <= handoffs);
    CHECK(samples >= kBlocks / 2);
    CHECK(after.handoff_p50_ns > 0);
    CHECK(after.handoff_p50_ns <= after.handoff_p99_ns);
    // Half of them took at least this long, one after another.
    CHECK(static_cast<double>(after.handoff_p50_ns * (samples / 2)) <= 1.125 * took.count());
}
