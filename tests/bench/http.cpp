// SPDX-License-Identifier: Apache-2.0
//
// http: a server that answers "Hello, World!" over kept-alive connections, under wrk with one
// thread on the same CPUs, so that server and load generator compete, as in any test on one
// machine.
//
// rps, p50_us, p99_us  as wrk reports them: a closed loop, where a slow answer delays the next
//                      request and so hides some of its own cost.
// cpu_us_each          the server process's user and system time over the requests answered.
//
// The servers: baton, build/examples/httpd; Go, tokio and plain threads, a goroutine, task or
// thread for each connection with a parser by hand (tests/bench/peers); epoll, an event loop on
// each CPU with httpd's parser, and nothing in between. All find the end of the headers, take the
// request line and the header lines apart and answer in one write; none is a framework. Each has
// its default number of processors, and is started afresh for each round.
#include "support/http_load.hpp"

namespace {

void plan(bench::Plan& plan) {
    bench::require_wrk();
    const int seconds = plan.options().quick ? 1 : 3;
    for (const int connections : {64, 512}) {
        for (const char* impl : {"baton", "go", "tokio", "pthread", "epoll"}) {
            const bench::Command command = bench::server_command(plan, impl);
            plan.add_own(impl, {{"conns", std::to_string(connections)}},
                         [=] { return bench::measure_hello(command, connections, seconds); });
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "http", .rounds = 5, .quick_rounds = 1, .plan = plan}, argc, argv);
}
