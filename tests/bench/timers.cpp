// SPDX-License-Identifier: Apache-2.0
//
// timers, in three kinds:
//   sleep    a hundred thousand goroutines sleep ten times each, 1 to 100 ms: on average two
//            million wake-ups a second. How late each comes, and what CPU all of it took. They
//            begin within 100 ms, a second after the first was started.
//   setstop  a million timers with a function to call are set, for an hour later in mixed order,
//   and
//            then stopped, in the order they were set: what one of them costs.
//   atonce   the same, but each is stopped right after it was set, as a time limit that was kept.
//
// Fair to know: tokio's timers count whole milliseconds, so that its sleeps are up to one late by
// design, and have no function: its setstop is a Sleep that was polled and dropped. Go's time.Timer
// with a channel is not armed at all while nobody receives, so its AfterFunc is what is compared.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"
#include "support/samples.hpp"

namespace {

using std::chrono::nanoseconds;

std::uint64_t step(std::uint64_t& x) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

void sleepers(const bench::KeyValues& args) {
    const auto n = static_cast<std::size_t>(args.number("n"));
    const auto rounds = static_cast<std::size_t>(args.number("rounds"));
    std::vector<std::uint32_t> late_us(n * rounds);
    double cpu_us = 0;
    baton::run([&] {
        const std::int64_t begin = bench::now_ns() + 1'000'000'000;
        baton::WaitGroup all;
        for (std::size_t i = 0; i < n; ++i)
            all.go([&, i] {
                std::uint64_t chance = 88172645463325252ULL * (2 * i + 1);
                baton::sleep_for(
                    nanoseconds(begin - bench::now_ns() +
                                static_cast<std::int64_t>(step(chance) % 100'000'000)));
                for (std::size_t r = 0; r < rounds; ++r) {
                    const auto ns =
                        static_cast<std::int64_t>(1'000'000 + step(chance) % 99'000'000);
                    const std::int64_t due = bench::now_ns() + ns;
                    baton::sleep_for(nanoseconds(ns));
                    late_us[i * rounds + r] =
                        static_cast<std::uint32_t>((bench::now_ns() - due) / 1000);
                }
            });
        baton::sleep_for(nanoseconds(begin - bench::now_ns()));
        const double before_us = bench::process_cpu_us();
        all.wait();
        cpu_us = bench::process_cpu_us() - before_us;
    });
    const std::span samples(late_us);
    bench::print_figure("p50_us", bench::percentile(samples, 0.5));
    bench::print_figure("p99_us", bench::percentile(samples, 0.99));
    bench::print_figure("cpu_s", cpu_us / 1e6);
}

/// Mixed: an hour and what comes of a multiplication with a prime.
nanoseconds an_hour_on(std::uint64_t i, std::uint64_t n) {
    return std::chrono::hours(1) + std::chrono::microseconds(i * 7919 % n);
}

void set_and_stop(const bench::KeyValues& args, bool at_once) {
    const auto n = static_cast<std::uint64_t>(args.number("n"));
    const std::int64_t took = baton::run([&] {
        std::vector<baton::Timer> timers;
        timers.reserve(n);
        std::uint64_t stopped = 0;
        std::int64_t start = 0;
        for (int round = 0; round < 2; ++round) { // the first one warms up
            timers.clear();
            stopped = 0;
            start = bench::now_ns();
            for (std::uint64_t i = 0; i < n; ++i) {
                timers.push_back(baton::after_func(an_hour_on(i, n), [] {}));
                if (at_once) stopped += timers.back().stop() ? 1 : 0;
            }
            if (!at_once)
                for (baton::Timer& t : timers) stopped += t.stop() ? 1 : 0;
        }
        const std::int64_t end = bench::now_ns();
        if (stopped != n) throw bench::Failure("a timer was not stopped");
        return end - start;
    });
    bench::print_figure("ns_per_op", static_cast<double>(took) / static_cast<double>(n));
}

void side(const bench::KeyValues& args) {
    const std::string kind = args.text("kind", "");
    if (kind == "sleep") {
        sleepers(args);
    } else {
        set_and_stop(args, kind == "atonce");
    }
}

void plan(bench::Plan& plan) {
    for (const char* impl : {"baton", "go", "tokio"})
        plan.add(impl, {{"kind", "sleep"}}, {"n=100000", "rounds=10"});
    for (const char* kind : {"setstop", "atonce"})
        for (const char* impl : {"baton", "go", "tokio"})
            plan.add(impl, {{"kind", kind}}, {"n=1000000"});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"timers", 7, 3, plan, side}, argc, argv); }
