// SPDX-License-Identifier: Apache-2.0
//
// neighbour: the servers of `http` while a foreign process burns CPU 0 (or the lowest CPU we may
// use): a thread that computes there is taken off the CPU by the kernel at any moment, with
// whatever it holds, and nothing should wait for that.
//
// rps, p50_us, p99_us, cpu_us_each  as in `http`.
//
// group: same, the busy process is of the servers' and wrk's own scheduling group, the harness's:
//   it has no more claim to its CPU than any one of their threads. other: it is the leader of a
//   session, so that with autogroups it is of a group of its own, and has as much claim to its CPU
//   as all of their threads together, as a process of another control group would. Without
//   autogroups the two are the same. Control groups are left as they are: all are of one.
// It is of the ordinary class, starts before the server and ends after it.
#include <cstdio>

#include "support/http_load.hpp"

namespace {

using bench::Neighbours;

bench::Figures measure(const bench::Command& command, int connections, Neighbours neighbours,
                       int seconds) {
    const bench::BusyNeighbours busy(neighbours, 1);
    return bench::measure_hello(command, connections, seconds);
}

void plan(bench::Plan& plan) {
    bench::require_wrk();
    if (!bench::autogroups_enabled())
        std::fprintf(stderr, "neighbour: autogroups are off: group=other is group=same\n");
    const int seconds = plan.options().quick ? 1 : 3;
    const std::pair<const char*, Neighbours> groups[] = {{"same", Neighbours::kSameGroup},
                                                         {"other", Neighbours::kOtherGroup}};
    for (const int connections : {64, 512}) {
        if (connections != 64 && plan.options().quick) continue; // to be done in 20 s
        for (const auto& [group, neighbours] : groups) {
            for (const char* impl : {"baton", "go", "tokio", "pthread"}) {
                const bench::Command command = bench::server_command(plan, impl);
                plan.add_own(impl, {{"conns", std::to_string(connections)}, {"group", group}},
                             [command, connections, neighbours = neighbours, seconds] {
                                 return measure(command, connections, neighbours, seconds);
                             });
            }
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "neighbour", .rounds = 3, .quick_rounds = 1, .plan = plan}, argc,
                      argv);
}
