// SPDX-License-Identifier: Apache-2.0
//
// mutex: lock and unlock, nothing in between, by one task alone and by 64 on two processors.
//
// kind=mutex         ns_per_op is wall time over all operations
// kind=rwmutex_read  the same for a reader's lock, with nobody who writes
// kind=rwmutex_mix   the same, but every so many-th lock of each task (write_every) is a writer's;
//                    of 64 tasks alone
// blocked            so many tasks have blocked before (support/block.hpp)
// cpu_ns_each        CPU time of the process over all operations
//
// `floor` is what the processor itself takes for a compare-and-exchange and an exchange of a word
// that nobody else uses: the two atomic operations of a plain lock. It is measured in each round,
// as it changes with the machine's clock.
//
// Fair to know: nothing is done between the operations, so a lock that lets the holder come back
// again and again looks best; what that costs those who wait is not seen here. tokio's lock is
// first come first served, and its readers count on a semaphore; Boost.Fiber has no reader's lock.
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/block.hpp"
#include "support/clock.hpp"
#include "support/lock_mix.hpp"

namespace {

template <class Guard, class Lock>
std::int64_t measure(std::uint64_t tasks, std::uint64_t n) {
    return baton::run([&] {
        const std::uint64_t each = (n + tasks - 1) / tasks;
        Lock lock;
        baton::WaitGroup all;
        const std::int64_t start = bench::now_ns();
        for (std::uint64_t t = 0; t < tasks; ++t)
            all.go([&] {
                for (std::uint64_t i = 0; i < each; ++i) {
                    const Guard hold(lock);
                }
            });
        all.wait();
        return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
               static_cast<std::int64_t>(each * tasks);
    });
}

/// Readers and writers.
std::int64_t measure_mix(std::uint64_t tasks, std::uint64_t n, std::uint64_t write_every) {
    return baton::run([&] {
        const std::uint64_t each = (n + tasks - 1) / tasks;
        baton::RWMutex lock;
        baton::WaitGroup all;
        const std::int64_t start = bench::now_ns();
        for (std::uint64_t t = 0; t < tasks; ++t)
            all.go([&, t] { bench::lock_mix(lock, each, t, write_every); });
        all.wait();
        return (bench::now_ns() - start) * static_cast<std::int64_t>(n) /
               static_cast<std::int64_t>(each * tasks);
    });
}

std::int64_t work(const bench::KeyValues& args, std::uint64_t tasks, std::uint64_t n) {
    const std::string kind = args.text("kind");
    if (kind == "mutex") return measure<std::unique_lock<baton::Mutex>, baton::Mutex>(tasks, n);
    if (kind == "rwmutex_read")
        return measure<std::shared_lock<baton::RWMutex>, baton::RWMutex>(tasks, n);
    return measure_mix(tasks, n, static_cast<std::uint64_t>(args.number("write_every")));
}

void side(const bench::KeyValues& args) {
    const auto tasks = static_cast<std::uint64_t>(args.number("tasks"));
    baton::run([] {}); // what starting costs is not the lock's
    bench::block_once(args);
    double ops = 0;
    const double cpu_us = bench::process_cpu_us();
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            ops += static_cast<double>(n);
                            return work(args, tasks, n);
                        }));
    bench::print_figure("cpu_ns_each", (bench::process_cpu_us() - cpu_us) * 1000 / ops);
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=100" : "ms=500";
    for (const char* kind : {"mutex", "rwmutex_read"})
        for (const auto& [tasks, procs] : {std::pair{"1", "1"}, std::pair{"64", "2"}}) {
            const bench::Params params = {{"kind", kind}, {"tasks", tasks}, {"procs", procs}};
            for (const char* impl : {"baton", "go", "tokio", "boost", "pthread"}) {
                if (impl == std::string("boost") && kind != std::string("mutex")) continue;
                plan.add(impl, params, {ms}, {.env = {std::string("BATON_MAXPROCS=") + procs}});
            }
            if (tasks == std::string("1"))
                plan.add("floor", params, {ms, "floor=1"}, {}, "pthread");
        }
    for (const char* every : {"10", "100", "1000"})
        for (const char* impl : {"baton", "go", "tokio", "pthread"})
            plan.add(
                impl,
                {{"kind", "rwmutex_mix"}, {"tasks", "64"}, {"write_every", every}, {"procs", "2"}},
                {ms}, {.env = {"BATON_MAXPROCS=2"}});
    bench::Params mix = {{"kind", "rwmutex_mix"}, {"tasks", "64"}, {"write_every", "100"}};
    bench::Params mutex = {{"kind", "mutex"}, {"tasks", "64"}};
    for (bench::Params* params : {&mix, &mutex}) {
        params->insert(params->end(), {{"procs", "2"}, {"blocked", "30"}});
        for (const char* impl : {"baton", "go"})
            plan.add(impl, *params, {ms}, {.env = {"BATON_MAXPROCS=2"}});
    }
}

} // namespace

int main(int argc, char** argv) { return bench::run({"mutex", 7, 3, plan, side}, argc, argv); }
