// SPDX-License-Identifier: Apache-2.0
//
// chan: what a value costs that goes through a channel.
//   roundtrip  there and back through two unbuffered channels; one operation is both ways
//   stream     from one goroutine to another through a buffer of 128
//   many       from 8 goroutines to 8 others through one buffer of 128
//   made       a channel with room for one is made, has a value sent and received, and is gone
// blocked      so many tasks have blocked before (support/block.hpp)
//
// Fair to know: tokio has no unbuffered channel; it gets mpsc with room for one, which never waits
// for the receiver to take the value; and no channel with several receivers: those share it under
// its mutex. Boost.Fiber has unbuffered_channel and buffered_channel. What is made in
// Go is gone when its collector comes by.
#include <atomic>
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/block.hpp"
#include "support/clock.hpp"

namespace {

using Chan = baton::Chan<std::uint64_t>;

void check(std::uint64_t sum, std::uint64_t n) {
    if (sum != n * (n - 1) / 2) throw bench::Failure("values were lost or doubled");
}

std::int64_t round_trips(std::uint64_t n) {
    Chan ping, pong;
    baton::WaitGroup echo;
    echo.go([&] {
        for (const std::uint64_t value : ping) pong.send(value);
    });
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) {
        ping.send(i);
        if (pong.recv() != i) throw bench::Failure("a value came back wrong");
    }
    const std::int64_t took = bench::now_ns() - start;
    ping.close();
    echo.wait();
    return took;
}

/// `sides` goroutines send what `sides` others receive; n values in all.
std::int64_t streams(std::uint64_t n, std::uint64_t sides) {
    Chan c(128);
    baton::WaitGroup senders, receivers;
    std::atomic<std::uint64_t> sum{0};
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t side = 0; side < sides; ++side) {
        senders.go([c, n, sides, side] {
            for (std::uint64_t i = side; i < n; i += sides) c.send(i);
        });
        receivers.go([c, &sum] {
            std::uint64_t own = 0;
            for (const std::uint64_t value : c) own += value;
            sum += own;
        });
    }
    senders.wait();
    c.close();
    receivers.wait();
    const std::int64_t took = bench::now_ns() - start;
    check(sum, n);
    return took;
}

std::int64_t makes(std::uint64_t n) {
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) {
        Chan c(1);
        c.send(i);
        if (c.recv() != i) throw bench::Failure("a value came back wrong");
    }
    return bench::now_ns() - start;
}

void side(const bench::KeyValues& args) {
    const std::string kind = args.text("kind");
    bench::block_once(args);
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            return baton::run([&] {
                                if (kind == "roundtrip") return round_trips(n);
                                if (kind == "made") return makes(n);
                                return streams(n, kind == "many" ? 8 : 1);
                            });
                        }));
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=150" : "ms=600";
    for (const char* kind : {"roundtrip", "stream", "many"})
        for (const char* procs : {"1", "2"})
            for (const char* impl : {"baton", "go", "tokio", "boost"})
                plan.add(impl, {{"kind", kind}, {"procs", procs}}, {ms},
                         {.env = {std::string("BATON_MAXPROCS=") + procs}});
    for (const char* impl : {"baton", "go"})
        plan.add(impl, {{"kind", "made"}, {"procs", "1"}}, {ms},
                 {.env = {std::string("BATON_MAXPROCS=1")}});
    for (const char* kind : {"roundtrip", "stream"})
        for (const char* impl : {"baton", "go"})
            plan.add(impl, {{"kind", kind}, {"procs", "2"}, {"blocked", "30"}}, {ms},
                     {.env = {"BATON_MAXPROCS=2"}});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"chan", 5, 3, plan, side}, argc, argv); }
