// SPDX-License-Identifier: Apache-2.0
//
// mixed: the servers of `http`, but every tenth request blocks its goroutine in a raw nanosleep of
// 2 ms. With announced=1 the runtime is told: baton::blocking, Go's syscall.Syscall, tokio's
// block_in_place; plain threads need not say anything. With announced=0 it is not: a bare system
// call, which in Go is RawSyscall. What is measured is how much the others suffer.
//
// rps, p50_us, p99_us
//              of all requests, from a wrk whose script sends every tenth to /block?us=2000, or to
//              /nap?us=2000. p99_us has the sleep in it: 2,000 is the least.
// fast_p99_us  of requests that do not block: from a second wrk beside the first, with only such
//              requests over 4 connections, as wrk cannot tell its requests apart. Its load, the
//              same for all, is not in rps, but it shares the CPUs.
// cpu_us_each  the server process's time over the requests of both.
#include "support/http_load.hpp"

namespace {

/// Both requests are made once: the script costs the load generator little, and the same for all.
constexpr const char* kEveryTenth = R"lua(
local fast, slow
local n = 0
function init()
   fast = wrk.format("GET", "/")
   slow = wrk.format("GET", path)
end
function request()
   n = n + 1
   if n % 10 == 0 then return slow end
   return fast
end
)lua";

std::string script(bool announced) {
    return std::string("local path = \"/") + (announced ? "block" : "nap") + "?us=2000\"\n" +
           kEveryTenth;
}

bench::Figures measure(const bench::Command& command, int connections, bool announced,
                       int seconds) {
    const bench::Server server(command);
    const double cpu_before_us = server.cpu_us();
    bench::Wrk all(server.url() + "/", connections, seconds, script(announced));
    bench::Wrk fast(server.url() + "/", 4, seconds);
    const bench::WrkReport of_all = all.report(), of_fast = fast.report();
    const double cpu_us = server.cpu_us() - cpu_before_us;
    return {{"rps", of_all.requests_per_s},
            {"p50_us", of_all.p50_us},
            {"p99_us", of_all.p99_us},
            {"fast_p99_us", of_fast.p99_us},
            {"cpu_us_each", cpu_us / (of_all.requests + of_fast.requests)}};
}

void plan(bench::Plan& plan) {
    bench::require_wrk();
    const int seconds = plan.options().quick ? 1 : 3;
    for (const int connections : {64, 512}) {
        for (const char* impl : {"baton", "go", "tokio", "pthread"}) {
            const bench::Command command = bench::server_command(plan, impl);
            for (const bool announced : {true, false}) {
                if (!announced && impl == std::string_view("pthread")) continue; // no difference
                plan.add_own(
                    impl,
                    {{"conns", std::to_string(connections)}, {"announced", announced ? "1" : "0"}},
                    [=] { return measure(command, connections, announced, seconds); });
            }
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "mixed", .rounds = 3, .quick_rounds = 1, .plan = plan}, argc, argv);
}
