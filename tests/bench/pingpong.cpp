// SPDX-License-Identifier: Apache-2.0
//
// pingpong: a value goes to another goroutine through an unbuffered channel and comes back through
// a second one; one operation is the round trip, two channel handovers.
//
// Fair to know: tokio has no unbuffered channel; it gets mpsc with room for one, which never waits
// for the receiver to take the value. Boost.Fiber has unbuffered_channel.
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

void side(const bench::KeyValues& args) {
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            return baton::run([&] {
                                baton::Chan<std::uint64_t> ping, pong;
                                baton::WaitGroup echo;
                                echo.go([&] {
                                    while (const auto value = ping.recv()) pong.send(*value);
                                });
                                const std::int64_t start = bench::now_ns();
                                for (std::uint64_t i = 0; i < n; ++i) {
                                    ping.send(i);
                                    if (pong.recv() != i)
                                        throw bench::Failure("a value came back wrong");
                                }
                                const std::int64_t took = bench::now_ns() - start;
                                ping.close();
                                echo.wait();
                                return took;
                            });
                        }));
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=200" : "ms=1000";
    for (const char* procs : {"1", "2"})
        for (const char* impl : {"baton", "go", "tokio", "boost"})
            plan.add(impl, {{"procs", procs}}, {ms},
                     {.env = {std::string("BATON_MAXPROCS=") + procs}});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"pingpong", 7, 3, plan, side}, argc, argv); }
