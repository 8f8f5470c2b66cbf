// SPDX-License-Identifier: Apache-2.0
//
// parked: memory of a goroutine that waits for a channel: growth of the process's resident set
// while n of them are started and park, over n. The kernel's own tables are not in it.
//
// Fair to know: tokio's task has no stack, only what lives across its one await, so it shows what a
// stackless design saves at its best. Boost.Fiber gets stacks of 16 KiB, since its 128 KiB default
// would fit a million times into few machines; it sits out the million where memory is short.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <string>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/memory.hpp"

namespace {

void side(const bench::KeyValues& args) {
    const long n = args.number("n");
    static std::atomic<long> begun{0};
    const double bytes = baton::run([n] {
        static auto& gate = *new baton::Chan<int>; // for good: the parked never leave it
        baton::go([] { begun.fetch_add(1); });
        while (begun.load() < 1) baton::yield();
        const double before = bench::resident_bytes();
        for (long i = 0; i < n; ++i)
            baton::go([] {
                begun.fetch_add(1);
                (void)gate.recv();
            });
        while (begun.load() < n + 1) baton::sleep_for(std::chrono::milliseconds(5));
        baton::sleep_for(std::chrono::milliseconds(50)); // the last ones are between count and park
        return (bench::resident_bytes() - before) / static_cast<double>(n);
    });
    bench::print_figure("bytes_each", bytes);
}

/// Room for a million of the largest (Boost.Fiber, about 10 KiB) with as much to spare.
bool million_fits() {
    std::ifstream info("/proc/meminfo");
    std::string key, unit;
    for (double kib = 0; info >> key >> kib; std::getline(info, unit))
        if (key == "MemAvailable:") return kib > 20.0 * 1024 * 1024;
    return false;
}

void plan(bench::Plan& plan) {
    for (const char* impl : {"baton", "go", "tokio", "boost"})
        plan.add(impl, {{"n", "100000"}}, {});
    if (plan.options().quick) return;
    for (const char* impl : {"baton", "go", "tokio", "boost"}) {
        if (std::string(impl) == "boost" && !million_fits()) continue;
        plan.add(impl, {{"n", "1000000"}}, {});
    }
}

} // namespace

int main(int argc, char** argv) { return bench::run({"parked", 3, 3, plan, side}, argc, argv); }
