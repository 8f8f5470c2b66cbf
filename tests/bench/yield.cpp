// SPDX-License-Identifier: Apache-2.0
//
// yield: wall time over all yields done, with eight goroutines a processor that do nothing else.
// With two processors an ideal runtime halves the figure.
//
// Fair to know: tokio's task is a state machine without a stack, so its switch saves nothing, but a
// yield puts it behind its whole scheduler; Boost.Fiber runs round_robin on one thread and
// work_stealing, spinning, on two.
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

void side(const bench::KeyValues& args) {
    const auto tasks = static_cast<std::uint64_t>(8 * args.number("procs"));
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            return baton::run([&] {
                                const std::uint64_t each = (n + tasks - 1) / tasks;
                                baton::WaitGroup all;
                                const std::int64_t start = bench::now_ns();
                                for (std::uint64_t t = 0; t < tasks; ++t)
                                    all.go([each] {
                                        for (std::uint64_t i = 0; i < each; ++i) baton::yield();
                                    });
                                all.wait();
                                return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
                                       static_cast<std::int64_t>(each * tasks);
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

int main(int argc, char** argv) { return bench::run({"yield", 7, 3, plan, side}, argc, argv); }
