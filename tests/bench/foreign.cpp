// SPDX-License-Identifier: Apache-2.0
//
// foreign: what a call costs on a plain thread, and the same on a goroutine.
//
// op=entry     try_recv on an empty channel: into the runtime and out
// op=buffered  a value into a buffered channel and out again
// op=pingpong  a value to a goroutine through an unbuffered channel and back through a second one
//
// Fair to know: what Go does for a thread of C's is a call into Go, which gets the thread an M and
// a P; here the thread gets neither. A pingpong with a plain thread is two wake-ups by the kernel.
#include <cstdint>
#include <string>
#include <thread>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

template <class Op>
std::int64_t timed(std::uint64_t n, Op op) {
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) op(i);
    return bench::now_ns() - start;
}

std::int64_t measure(const std::string& op, std::uint64_t n) {
    baton::Chan<std::uint64_t> c(1);
    if (op == "entry") return timed(n, [&](std::uint64_t) { (void)c.try_recv(); });
    if (op == "buffered")
        return timed(n, [&](std::uint64_t i) {
            c.send(i);
            if (c.recv() != i) throw bench::Failure("a value came back wrong");
        });
    baton::Chan<std::uint64_t> ping, pong;
    baton::WaitGroup echo;
    echo.go([&] {
        while (const auto value = ping.recv()) pong.send(*value);
    });
    const std::int64_t took = timed(n, [&](std::uint64_t i) {
        ping.send(i);
        if (pong.recv() != i) throw bench::Failure("a value came back wrong");
    });
    ping.close();
    echo.wait();
    return took;
}

void side(const bench::KeyValues& args) {
    const std::string op = args.text("op");
    const bool plain = args.text("on") == "thread";
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            std::int64_t took = 0;
                            if (plain) {
                                std::thread([&] { took = measure(op, n); }).join();
                            } else {
                                baton::run([&] { took = measure(op, n); });
                            }
                            return took;
                        }));
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=200" : "ms=1000";
    for (const char* op : {"entry", "buffered", "pingpong"})
        for (const char* on : {"thread", "goroutine"})
            plan.add("baton", {{"op", op}, {"on", on}}, {ms}, {.env = {"BATON_MAXPROCS=2"}});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"foreign", 7, 3, plan, side}, argc, argv); }
