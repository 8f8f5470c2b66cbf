// SPDX-License-Identifier: Apache-2.0
//
// Boost.Fiber's side of yield, spawn, pingpong, chan, mutex, skynet and parked. One thread runs the
// default scheduler (round_robin); with procs=2 both threads run work_stealing, spinning when idle,
// its default. `boost BENCH key=value...` prints `figure=value` lines.
#include <boost/fiber/all.hpp>
#include <boost/version.hpp>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "../../support/clock.hpp"
#include "../../support/key_values.hpp"
#include "../../support/memory.hpp"

namespace fibers = boost::fibers;

namespace {

/// The threads besides main that run fibers; they end with the process.
void use_threads(long procs) {
    if (procs == 1) return;
    const auto n = static_cast<std::uint32_t>(procs);
    for (long t = 1; t < procs; ++t)
        std::thread([n] {
            fibers::use_scheduling_algorithm<fibers::algo::work_stealing>(n);
            fibers::mutex never;
            never.lock();
            fibers::condition_variable_any().wait(never, [] { return false; });
        }).detach();
    fibers::use_scheduling_algorithm<fibers::algo::work_stealing>(n);
}

std::int64_t yields(std::uint64_t n, std::uint64_t tasks) {
    const std::uint64_t each = (n + tasks - 1) / tasks;
    std::vector<fibers::fiber> all;
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t t = 0; t < tasks; ++t)
        all.emplace_back([each] {
            for (std::uint64_t i = 0; i < each; ++i) boost::this_fiber::yield();
        });
    for (auto& fiber : all) fiber.join();
    return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
           static_cast<std::int64_t>(each * tasks);
}

std::int64_t spawns(std::uint64_t n) {
    constexpr std::uint64_t kBatch = 100;
    const std::int64_t start = bench::now_ns();
    std::vector<fibers::fiber> batch;
    for (std::uint64_t done = 0; done < n; done += kBatch) {
        batch.clear();
        for (std::uint64_t i = 0; i < kBatch; ++i) batch.emplace_back([] {});
        for (auto& fiber : batch) fiber.join();
    }
    return bench::now_ns() - start;
}

std::int64_t round_trips(std::uint64_t n) {
    fibers::unbuffered_channel<std::uint64_t> ping, pong;
    fibers::fiber echo([&] {
        for (std::uint64_t value = 0; ping.pop(value) == fibers::channel_op_status::success;)
            pong.push(value);
    });
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) {
        ping.push(i);
        if (pong.value_pop() != i) throw bench::Failure("a value came back wrong");
    }
    const std::int64_t took = bench::now_ns() - start;
    ping.close();
    echo.join();
    return took;
}

/// `sides` fibers send what `sides` others receive. Its capacity is a power of two, less one.
std::int64_t streams(std::uint64_t n, std::uint64_t sides) {
    fibers::buffered_channel<std::uint64_t> c(128);
    std::vector<fibers::fiber> senders, receivers;
    std::atomic<std::uint64_t> sum{0};
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t side = 0; side < sides; ++side) {
        senders.emplace_back([&c, n, sides, side] {
            for (std::uint64_t i = side; i < n; i += sides) c.push(i);
        });
        receivers.emplace_back([&c, &sum] {
            std::uint64_t own = 0;
            for (const std::uint64_t value : c) own += value;
            sum += own;
        });
    }
    for (auto& fiber : senders) fiber.join();
    c.close();
    for (auto& fiber : receivers) fiber.join();
    const std::int64_t took = bench::now_ns() - start;
    if (sum != n * (n - 1) / 2) throw bench::Failure("values were lost or doubled");
    return took;
}

void skynet(fibers::unbuffered_channel<std::int64_t>& parent, std::int64_t first,
            std::int64_t size) {
    if (size == 1) {
        parent.push(first);
        return;
    }
    fibers::unbuffered_channel<std::int64_t> own;
    const std::int64_t each = size / 10;
    for (std::int64_t i = 0; i < 10; ++i)
        fibers::fiber(std::allocator_arg, fibers::fixedsize_stack(16 * 1024),
                      [&own, first, i, each] { skynet(own, first + i * each, each); })
            .detach();
    std::int64_t sum = 0;
    for (int i = 0; i < 10; ++i) sum += own.value_pop();
    parent.push(sum);
}

void skynet_of_a_million() {
    constexpr std::int64_t kLeaves = 1'000'000;
    fibers::unbuffered_channel<std::int64_t> result;
    const std::int64_t start = bench::now_ns();
    fibers::fiber([&] { skynet(result, 0, kLeaves); }).detach();
    if (result.value_pop() != kLeaves * (kLeaves - 1) / 2) throw bench::Failure("the sum is wrong");
    std::printf("ms=%.2f\nrss_mb=%.1f\n", static_cast<double>(bench::now_ns() - start) / 1e6,
                bench::peak_resident_mb());
}

std::int64_t locks(std::uint64_t n, std::uint64_t tasks) {
    const std::uint64_t each = (n + tasks - 1) / tasks;
    fibers::mutex mutex;
    std::vector<fibers::fiber> all;
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t t = 0; t < tasks; ++t)
        all.emplace_back([&mutex, each] {
            for (std::uint64_t i = 0; i < each; ++i) {
                mutex.lock();
                mutex.unlock();
            }
        });
    for (auto& fiber : all) fiber.join();
    return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
           static_cast<std::int64_t>(each * tasks);
}

/// Stacks of 16 KiB: with the default of 128 KiB each fiber costs as much, but more address space.
double parked_bytes(long n) {
    static fibers::unbuffered_channel<int> gate; // static: the parked never leave it
    fibers::fixedsize_stack stack(16 * 1024);
    static long begun = 0; // one thread runs them all
    const auto wait = [] {
        int value = 0;
        ++begun;
        (void)gate.pop(value);
    };
    const double before = bench::resident_bytes();
    for (long i = 0; i < n; ++i) fibers::fiber(std::allocator_arg, stack, wait).detach();
    while (begun < n) boost::this_fiber::yield();
    boost::this_fiber::yield(); // the last one is between count and park
    return (bench::resident_bytes() - before) / static_cast<double>(n);
}

void measure(const std::string& what, const bench::KeyValues& args) {
    if (what == "version") {
        std::printf("version=%d.%d\n", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000);
        return;
    }
    if (what == "parked") {
        std::printf("bytes_each=%.1f\n", parked_bytes(args.number("n")));
        return;
    }
    const long procs = args.number("procs");
    use_threads(procs);
    if (what == "skynet") {
        skynet_of_a_million();
        return;
    }
    const long ms = args.number("ms");
    double ns = 0;
    if (what == "yield") {
        const auto tasks = static_cast<std::uint64_t>(8 * procs);
        ns = bench::ns_each(ms, [tasks](std::uint64_t n) { return yields(n, tasks); });
    } else if (what == "spawn") {
        ns = bench::ns_each(ms, spawns);
    } else if (what == "chan" && args.text("kind") != "roundtrip") {
        const std::uint64_t sides = args.text("kind") == "many" ? 8 : 1;
        ns = bench::ns_each(ms, [sides](std::uint64_t n) { return streams(n, sides); });
    } else if (what == "pingpong" || what == "chan") {
        ns = bench::ns_each(ms, round_trips);
    } else if (what == "mutex") {
        const auto tasks = static_cast<std::uint64_t>(args.number("tasks"));
        double ops = 0;
        const double cpu_us = bench::process_cpu_us();
        ns = bench::ns_each(ms, [&](std::uint64_t n) {
            ops += static_cast<double>(n);
            return locks(n, tasks);
        });
        std::printf("cpu_ns_each=%.2f\n", (bench::process_cpu_us() - cpu_us) * 1000 / ops);
    } else {
        throw bench::Failure("unknown benchmark '" + what + "'");
    }
    std::printf("ns_per_op=%.2f\n", ns);
}

} // namespace

int main(int argc, char** argv) {
    try {
        measure(argc > 1 ? argv[1] : "",
                bench::KeyValues(std::span(argv + 2, argc > 2 ? argc - 2 : 0)));
    } catch (const std::exception& error) {
        std::fprintf(stderr, "boost: %s\n", error.what());
        std::_Exit(1);
    }
    std::fflush(stdout);
    std::_Exit(0); // without tearing down schedulers that other threads are in
}
