// SPDX-License-Identifier: Apache-2.0
//
// foreign: what a call costs on a plain thread, and the same on a goroutine.
//
// op=entry     try_recv on an empty channel: into the runtime and out
// op=buffered  a value into a buffered channel and out again
// op=pingpong  a value to a goroutine through an unbuffered channel and back through a second one
//
// on=two_threads is the pingpong of two plain threads that sleep on semaphores: what it takes when
// each word is a sleep and a wake-up by the kernel.
//
// Fair to know: what Go does for a thread of C's is a call into Go, which gets the thread an M and
// a P; here the thread gets neither. cpu_ns_each is the CPU time of the process over all
// operations: staying awake costs some, but so does the kernel.
#include <semaphore.h>

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

std::int64_t two_threads(std::uint64_t n) {
    struct Semaphore {
        sem_t sem{};
        Semaphore() { ::sem_init(&sem, 0, 0); }
        ~Semaphore() { ::sem_destroy(&sem); }
    } ping, pong;
    std::thread echo([&] {
        for (std::uint64_t i = 0; i < n; ++i) {
            ::sem_wait(&ping.sem);
            ::sem_post(&pong.sem);
        }
    });
    const std::int64_t took = timed(n, [&](std::uint64_t) {
        ::sem_post(&ping.sem);
        ::sem_wait(&pong.sem);
    });
    echo.join();
    return took;
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
    const std::string op = args.text("op"), on = args.text("on");
    double ops = 0;
    const double cpu_us = bench::process_cpu_us();
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            ops += static_cast<double>(n);
                            if (on == "two_threads") return two_threads(n);
                            std::int64_t took = 0;
                            if (on == "thread") {
                                std::thread([&] { took = measure(op, n); }).join();
                            } else {
                                baton::run([&] { took = measure(op, n); });
                            }
                            return took;
                        }));
    bench::print_figure("cpu_ns_each", (bench::process_cpu_us() - cpu_us) * 1000 / ops);
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=200" : "ms=1000";
    for (const char* op : {"entry", "buffered", "pingpong"})
        for (const char* on : {"thread", "goroutine"})
            plan.add("baton", {{"op", op}, {"on", on}}, {ms}, {.env = {"BATON_MAXPROCS=2"}});
    plan.add("baton", {{"op", "pingpong"}, {"on", "two_threads"}}, {ms});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"foreign", 7, 3, plan, side}, argc, argv); }
