// SPDX-License-Identifier: Apache-2.0
//
// spawn: start a goroutine that does nothing and wait for it, in batches of a hundred through a
// WaitGroup; one goroutine starts them all, so a second processor can only help by stealing.
//
// Fair to know: tokio's task has no stack to find; it joins through its handles. Boost.Fiber maps
// its default stack (128 KiB, not pooled) for every fiber.
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

constexpr std::uint64_t kBatch = 100;

void side(const bench::KeyValues& args) {
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            return baton::run([&] {
                                const std::int64_t start = bench::now_ns();
                                for (std::uint64_t done = 0; done < n; done += kBatch) {
                                    baton::WaitGroup batch;
                                    for (std::uint64_t i = 0; i < kBatch; ++i) batch.go([] {});
                                    batch.wait();
                                }
                                return bench::now_ns() - start;
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

int main(int argc, char** argv) { return bench::run({"spawn", 7, 3, plan, side}, argc, argv); }
