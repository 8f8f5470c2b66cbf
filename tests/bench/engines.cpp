// SPDX-License-Identifier: Apache-2.0
//
// engines: `http`'s server and load on each of the poller's engines: what BATON_POLL=auto means is
// decided here, for the kernel it runs on. baton: auto; uring: the same server with
// BATON_POLL=uring.
#include "support/http_load.hpp"

namespace {

void plan(bench::Plan& plan) {
    bench::require_wrk();
    const int seconds = plan.options().quick ? 1 : 3;
    for (const int connections : {64, 512}) {
        for (const char* impl : {"baton", "uring"}) {
            bench::Command command = bench::server_command(plan, "baton");
            if (impl == std::string("uring")) command.env = {"BATON_POLL=uring"};
            plan.add_own(
                impl, {{"conns", std::to_string(connections)}},
                [=] { return bench::measure_hello(command, connections, seconds); }, "baton");
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "engines", .rounds = 9, .quick_rounds = 2, .plan = plan}, argc,
                      argv);
}
