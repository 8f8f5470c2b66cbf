// SPDX-License-Identifier: Apache-2.0
//
// handoff: one goroutine blocks in read(2) on an empty pipe; how long until another one, runnable
// on the same and only processor, runs? The blocked one stamps the time just before it announces
// the call, the other as soon as it sees the new round, and then writes the byte the first waits
// for. Each round has a number which goes through the pipe: a round lost, doubled or out of order
// ends the run. The write itself is a raw call, not announced, in every implementation.
//
// `--rounds N` makes exactly N rounds, in one process for each series. A million is best asked of a
// few series: `--only load=quiet`.
//
// tier       how baton notices the block (BATON_ASSIST).
// quiet      the two goroutines and nothing else.
// contended  a foreign busy process of our scheduling group pinned to each CPU.
// dozing     nothing runs for 2 ms before each round, so that the understudy has gone to sleep; the
//            other goroutine is started right before the block.
// floor      two plain threads pinned to one CPU: the kernel's own switch from one to the other.
//            No runtime can beat it by much. Dozing: the first wakes the other by a futex. All that
//            runs after a pause is slow, on a virtual machine most: it is several times the quiet
//            one. baton needs two wakes there, of the understudy and by it.
//
// Fair to know: Go polls for blocked threads by design and does not aim at this figure; tokio's
// block_in_place gives its worker away before each block, whether it blocks or not.

#include <chrono>
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"
#include "support/duel.hpp"

namespace {

/// Both goroutines are runnable all the time; the processor never idles.
void steady(bench::Duel& duel) {
    baton::run([&] {
        baton::WaitGroup other;
        other.go([&] {
            while (!duel.over()) {
                duel.look();
                baton::yield();
            }
        });
        while (duel.begin()) {
            duel.settle(baton::blocking([&] { return duel.wait(); }));
            baton::yield(); // so that it has the processor again: on credit there is none to pass
        }
        other.wait();
    });
}

/// Nothing runs for a while, then the second goroutine is started and the first blocks.
void dozing(bench::Duel& duel, std::chrono::microseconds pause) {
    baton::run([&] {
        for (;;) {
            baton::sleep_for(pause);
            baton::WaitGroup other;
            other.go([&] {
                while (!duel.over() && !duel.look()) baton::yield();
            });
            const bool more = duel.begin();
            if (more) duel.settle(baton::blocking([&] { return duel.wait(); }));
            other.wait();
            if (!more) return;
        }
    });
}

void side(const bench::KeyValues& args) {
    bench::Duel duel(args.number("rounds"), args.number("ms"));
    if (args.text("load") == "dozing") {
        dozing(duel, std::chrono::microseconds(args.number("pause_us")));
    } else {
        steady(duel);
    }
    duel.report();
}

void plan(bench::Plan& plan) {
    const auto& options = plan.options();
    std::vector<std::string> more = {options.quick ? "ms=200" : "ms=1200", "rounds=200000",
                                     "pause_us=2000"};
    if (options.rounds > 0)
        more = {"ms=0", "rounds=" + std::to_string(options.rounds), "pause_us=2000"};
    for (const char* load : {"quiet", "contended", "dozing"}) {
        const std::string name = load;
        const auto neighbours =
            name == "contended" ? bench::Neighbours::kSameGroup : bench::Neighbours::kNone;
        for (const std::string& tier : bench::kTiers)
            plan.add(
                "baton", {{"load", name}, {"tier", tier}}, more,
                {.env = {"BATON_MAXPROCS=1", "BATON_ASSIST=" + tier}, .neighbours = neighbours});
        for (const char* impl : {"go", "tokio"})
            plan.add(impl, {{"load", name}}, more, {.neighbours = neighbours});
        plan.add("floor", {{"load", name}}, more, {.neighbours = neighbours}, "pthread");
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "handoff",
                       .rounds = 5,
                       .quick_rounds = 3,
                       .plan = plan,
                       .side = side,
                       .takes_rounds = true},
                      argc, argv);
}
