// SPDX-License-Identifier: Apache-2.0
//
// handoff_load: the saturated server. Two processors and always work: 128 goroutines go from item
// to item; an item computes for 8 us, and one in ten, drawn by chance, blocks in a raw nanosleep of
// blk_us between two halves of its computing. Every block must pass its processor on.
//
// items_per_s    items finished; 250,000 would be the two CPUs' computing and nothing else.
// p50_ns, p99_ns from a block to the next item that starts or goes on in its place
//                (support/vacancies.hpp says how that is told without asking for a processor's
//                name). A nanosleep's own system call, arming the timer, is in it: 1 to 5 us.
// cpu_us_each    CPU time of the process per item beyond the 8 us.
//
// env: quiet; contended_same, a busy process pinned to each CPU in our own scheduling group;
//   contended_other, the same from another group. There items_per_s mostly shows which share of the
//   CPUs was taken from those processes, not how well it was used: read it with cpu_us_each.
// pthread: 128 plain threads for the same items, as many as the goroutines; the kernel places them,
//   nobody limits how many compute at once, and under contention 128 threads claim a larger share.
//   p50 and p99 are from a block to the next of the threads that runs on that CPU.
// Fair to know: timer slack is 1 ns for all. Each process calibrates its own computing loop.
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/items.hpp"
#include "support/vacancies.hpp"

namespace {

void side(const bench::KeyValues& args) {
    auto& items = *new bench::Items<bench::Vacancies>(args); // for good: the workers never end
    for (int worker = 0; worker < items.workers(); ++worker)
        baton::go([&items, worker] {
            items.work(worker, [](const timespec& t) {
                baton::blocking([&t] { return ::syscall(SYS_nanosleep, &t, nullptr); });
            });
        });
    items.measure();
}

void plan(bench::Plan& plan) {
    const std::vector<std::string> more = {"procs=2", "workers=128",
                                           plan.options().quick ? "ms=200" : "ms=1000"};
    if (!bench::autogroups_enabled())
        std::fprintf(stderr,
                     "handoff_load: autogroups are off: contended_other is contended_same\n");
    using bench::Neighbours;
    const std::pair<const char*, Neighbours> surroundings[] = {
        {"quiet", Neighbours::kNone},
        {"contended_same", Neighbours::kSameGroup},
        {"contended_other", Neighbours::kOtherGroup}};
    for (const char* blk_us : {"2000", "50"}) {
        for (const auto& [env, neighbours] : surroundings) {
            const bench::Params params = {{"blk_us", blk_us}, {"env", env}};
            for (const std::string& tier : bench::kTiers) {
                bench::Params tiered = params;
                tiered.emplace_back("tier", tier);
                plan.add("baton", tiered, more,
                         {{"BATON_MAXPROCS=2", "BATON_ASSIST=" + tier}, neighbours, true});
            }
            plan.add("go", params, more, {{}, neighbours, true});
            plan.add("pthread", params, more, {{}, neighbours, true});
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({"handoff_load", 3, 1, plan, side}, argc, argv);
}
