// SPDX-License-Identifier: Apache-2.0
//
// bracket: what announcing a blocking call costs when it does not block: getppid inside
// baton::blocking less getppid alone, both raw system calls. One process measures both in turns of
// 500 calls, about 80 us, too short for most disturbances; the median over all turns is the figure.
//
// Fair to know: Go's pair is syscall.Syscall and syscall.RawSyscall; tokio's block_in_place hands
// its whole worker to another thread first and was never meant for short calls. All on one
// processor. The floor is two calls that store where the thread is, and that nobody hears.
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/extra.hpp"

namespace {

void side(const bench::KeyValues& args) {
    baton::run([&] {
        bench::print_figure("extra_ns", bench::extra_ns(args.number("ms"), [] {
                                baton::blocking([] { return ::syscall(SYS_getppid); });
                            }));
    });
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=300" : "ms=2000";
    for (const std::string& tier : bench::kTiers)
        plan.add("baton", {{"tier", tier}}, {ms},
                 {.env = {"BATON_MAXPROCS=1", "BATON_ASSIST=" + tier}});
    plan.add("go", {}, {ms});
    plan.add("tokio", {}, {ms});
    plan.add("floor", {}, {ms}, {}, "pthread");
}

} // namespace

int main(int argc, char** argv) { return bench::run({"bracket", 7, 3, plan, side}, argc, argv); }
