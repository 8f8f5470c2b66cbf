// SPDX-License-Identifier: Apache-2.0
//
// understudy: what the understudies take from others.
//
// from=foreign  a busy process of another scheduling group on each CPU. cpu_percent: the CPU time
//               of all understudies over the time of all CPUs, while the runtime blocks 1,000 times
//               a second on each processor (armed), or does nothing (dozing).
// from=own      a goroutine that computes on each CPU, and arms the understudy there every 20 ms by
//               an announced call. ns_per_turn of the computation; floor: the same on plain
//               threads, in a process without the runtime.
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

using namespace std::chrono_literals;

std::uint64_t understudies_cpu_ns() {
    std::uint64_t sum = 0;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::string name;
        std::uint64_t ns = 0;
        std::ifstream(task.path() / "comm") >> name;
        std::ifstream(task.path() / "schedstat") >> ns;
        if (name.starts_with("baton/us")) sum += ns;
    }
    return sum;
}

void foreign(bool armed, std::int64_t ms) {
    baton::run([&] {
        const std::int64_t start = bench::now_ns(), end = start + ms * 1'000'000;
        const std::uint64_t before = understudies_cpu_ns();
        baton::WaitGroup wg;
        for (int i = 0; armed && i < baton::max_procs(); ++i)
            wg.go([&] {
                while (bench::now_ns() < end)
                    baton::blocking([] { std::this_thread::sleep_for(1ms); });
            });
        wg.wait();
        if (!armed) baton::sleep_for(std::chrono::milliseconds(ms));
        const auto took = static_cast<double>(bench::now_ns() - start);
        const auto used = static_cast<double>(understudies_cpu_ns() - before);
        bench::print_figure("cpu_percent", used / took / baton::max_procs() * 100);
    });
}

/// Turns until `end`, with an announced call every 20 ms.
template <class Call>
std::uint64_t compute(std::int64_t end, Call call) {
    std::uint64_t turns = 0, x = 1;
    for (std::int64_t now = bench::now_ns(); now < end; now = bench::now_ns()) {
        call();
        for (const std::int64_t chunk = now + 20'000'000; bench::now_ns() < chunk;) {
            for (int i = 0; i < 10'000; ++i) asm volatile("imul %0, %0" : "+r"(x));
            turns += 10'000;
        }
    }
    return turns;
}

void own(bool floor, std::int64_t ms) {
    const auto n = std::thread::hardware_concurrency();
    std::vector<std::uint64_t> turns(n);
    const std::int64_t start = bench::now_ns(), end = start + ms * 1'000'000;
    if (floor) {
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < n; ++i)
            threads.emplace_back([&, i] { turns[i] = compute(end, [] { ::getppid(); }); });
        for (std::thread& thread : threads) thread.join();
    } else {
        baton::run([&] {
            baton::WaitGroup wg;
            for (unsigned i = 0; i < n; ++i)
                wg.go([&, i] {
                    turns[i] = compute(end, [] { baton::blocking([] { ::getppid(); }); });
                });
            wg.wait();
        });
    }
    std::uint64_t sum = 0;
    for (const std::uint64_t t : turns) sum += t;
    const auto took = static_cast<double>(bench::now_ns() - start);
    bench::print_figure("ns_per_turn", took * n / static_cast<double>(sum));
}

void side(const bench::KeyValues& args) {
    if (args.text("from") == "foreign")
        foreign(args.text("state") == "armed", args.number("ms"));
    else
        own(args.number("floor") != 0, args.number("ms"));
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=500" : "ms=2000";
    for (const char* state : {"armed", "dozing"})
        plan.add("baton", {{"from", "foreign"}, {"state", state}}, {ms},
                 {.neighbours = bench::Neighbours::kOtherGroup});
    plan.add("baton", {{"from", "own"}}, {ms, "floor=0"});
    plan.add("floor", {{"from", "own"}}, {ms, "floor=1"}, {}, "baton");
}

} // namespace

int main(int argc, char** argv) { return bench::run({"understudy", 7, 3, plan, side}, argc, argv); }
