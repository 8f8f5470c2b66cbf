// SPDX-License-Identifier: Apache-2.0
//
// locked: the round trip of pingpong between a goroutine that is locked to its thread (locked=1) or
// is not (locked=0), and an ordinary one. Locked, each of the two handovers is one between threads.
//
// floor    the same value handed over and back by two bare threads that look for it without
//          sleeping, each on a CPU of its own
// pthread  ... by two that sleep in a futex until woken, both on one CPU
//
// Neither has a channel, a queue or a third goroutine to see to. With locked=1 it is they that
// say what can be had; locked=0 needs no second thread.
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

void side(const bench::KeyValues& args) {
    const bool locked = args.number("locked") != 0;
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            return baton::run([&] {
                                baton::Chan<std::uint64_t> ping, pong;
                                baton::WaitGroup echo;
                                echo.go([&] {
                                    while (const auto value = ping.recv()) pong.send(*value);
                                });
                                if (locked) baton::lock_os_thread();
                                const std::int64_t start = bench::now_ns();
                                for (std::uint64_t i = 0; i < n; ++i) {
                                    ping.send(i);
                                    if (pong.recv() != i)
                                        throw bench::Failure("a value came back wrong");
                                }
                                const std::int64_t took = bench::now_ns() - start;
                                if (locked) baton::unlock_os_thread();
                                ping.close();
                                echo.wait();
                                return took;
                            });
                        }));
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=200" : "ms=1000";
    for (const char* procs : {"1", "2"})
        for (const char* locked : {"0", "1"})
            for (const char* impl : {"baton", "go"})
                plan.add(impl, {{"procs", procs}, {"locked", locked}}, {ms},
                         {.env = {std::string("BATON_MAXPROCS=") + procs}});
    for (const char* procs : {"1", "2"}) {
        const bench::Params params = {{"procs", procs}, {"locked", "1"}};
        plan.add("floor", params, {ms, "cpus=2"}, {}, "pthread");
        plan.add("pthread", params, {ms, "cpus=1"});
    }
}

} // namespace

int main(int argc, char** argv) { return bench::run({"locked", 7, 3, plan, side}, argc, argv); }
