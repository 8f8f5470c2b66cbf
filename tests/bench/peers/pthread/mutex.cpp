// SPDX-License-Identifier: Apache-2.0
//
// std::mutex and std::shared_mutex between threads, and the floor of them all: a compare-and-
// exchange and an exchange of a word that nobody else uses.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "../../support/clock.hpp"
#include "../../support/lock_mix.hpp"
#include "threads.hpp"

namespace {

std::int64_t two_atomics(std::uint64_t, std::uint64_t n) {
    std::atomic<std::uint32_t> word{0};
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) {
        std::uint32_t free = 0;
        if (word.compare_exchange_strong(free, 1)) word.exchange(0);
    }
    return bench::now_ns() - start;
}

template <class Guard, class Lock>
std::int64_t locks(std::uint64_t tasks, std::uint64_t n) {
    const std::uint64_t each = (n + tasks - 1) / tasks;
    Lock lock;
    std::vector<std::jthread> all;
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t t = 0; t < tasks; ++t)
        all.emplace_back([&lock, each] {
            for (std::uint64_t i = 0; i < each; ++i) const Guard hold(lock);
        });
    all.clear();
    return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
           static_cast<std::int64_t>(each * tasks);
}

/// Of so many locks of each thread one in write_every is a writer's.
std::int64_t mixed(std::uint64_t tasks, std::uint64_t n, std::uint64_t write_every) {
    const std::uint64_t each = (n + tasks - 1) / tasks;
    std::shared_mutex lock;
    std::vector<std::jthread> all;
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t t = 0; t < tasks; ++t)
        all.emplace_back([&, t] { bench::lock_mix(lock, each, t, write_every); });
    all.clear();
    return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
           static_cast<std::int64_t>(each * tasks);
}

std::int64_t work(const bench::KeyValues& args, std::uint64_t tasks, std::uint64_t n) {
    const std::string kind = args.text("kind");
    if (args.number("floor", 0) != 0) return two_atomics(tasks, n);
    if (kind == "mutex") return locks<std::unique_lock<std::mutex>, std::mutex>(tasks, n);
    if (kind == "rwmutex_read")
        return locks<std::shared_lock<std::shared_mutex>, std::shared_mutex>(tasks, n);
    return mixed(tasks, n, static_cast<std::uint64_t>(args.number("write_every")));
}

} // namespace

void mutex(const bench::KeyValues& args) {
    const auto tasks = static_cast<std::uint64_t>(args.number("tasks"));
    double ops = 0;
    const double cpu_us = bench::process_cpu_us();
    const double ns = bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
        ops += static_cast<double>(n);
        return work(args, tasks, n);
    });
    std::printf("ns_per_op=%.2f\ncpu_ns_each=%.2f\n", ns,
                (bench::process_cpu_us() - cpu_us) * 1000 / ops);
}
