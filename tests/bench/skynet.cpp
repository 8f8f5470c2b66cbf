// SPDX-License-Identifier: Apache-2.0
//
// skynet: a goroutine starts ten, each of which starts ten, and so on to a million that send their
// number up through channels of the one that started them, which sums. Milliseconds for the whole,
// and the largest resident set.
//
// Fair to know: tokio's tasks are boxed futures on mpsc channels with room for ten, as it has no
// unbuffered one; Boost.Fiber maps a stack (16 KiB here, not its default of 128) for every fiber.
#include <cstdint>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

constexpr std::int64_t kLeaves = 1'000'000;
constexpr std::int64_t kChildren = 10;

void skynet(const baton::Chan<std::int64_t>& parent, std::int64_t first, std::int64_t size) {
    if (size == 1) {
        parent.send(first);
        return;
    }
    const baton::Chan<std::int64_t> own;
    const std::int64_t each = size / kChildren;
    for (std::int64_t i = 0; i < kChildren; ++i)
        baton::go([own, first, i, each] { skynet(own, first + i * each, each); });
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < kChildren; ++i) sum += *own.recv();
    parent.send(sum);
}

void side(const bench::KeyValues&) {
    const double ms = baton::run([] {
        const baton::Chan<std::int64_t> result;
        const std::int64_t start = bench::now_ns();
        baton::go([result] { skynet(result, 0, kLeaves); });
        if (*result.recv() != kLeaves * (kLeaves - 1) / 2) throw bench::Failure("the sum is wrong");
        return static_cast<double>(bench::now_ns() - start) / 1e6;
    });
    bench::print_figure("ms", ms);
    bench::print_figure("rss_mb", bench::peak_resident_mb());
}

void plan(bench::Plan& plan) {
    for (const char* impl : {"baton", "go", "tokio", "boost"})
        plan.add(impl, {{"procs", "2"}}, {}, {.env = {"BATON_MAXPROCS=2"}});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"skynet", 7, 3, plan, side}, argc, argv); }
