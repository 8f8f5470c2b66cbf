// SPDX-License-Identifier: Apache-2.0
//
// select: what choosing among channels costs, on one processor.
//   ready   a receive from one of 4 channels that all have values
//   one_of_16  from the one of 16 that has
//   woken   a value is sent to one of 4 channels that another goroutine waits for in a select,
//           which then answers through a fifth; one operation is the round trip
//   nothing, closed  a receive or else nothing, from a channel that has nothing, or is closed
//
// Fair to know: tokio's channels are mpsc, with room for one in `woken`; Boost.Fiber has no select.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

using Chan = baton::Chan<std::uint64_t>;
constexpr std::uint64_t kBatch = 64; // selects between two looks at the clock

template <std::size_t N, class Receive, std::size_t... I>
void select_over(const std::array<Chan, N>& c, Receive& receive, std::index_sequence<I...>) {
    baton::select(baton::on_recv(c[I], receive)...);
}

/// The first `ready` of N channels always have values.
template <std::size_t N>
std::int64_t receives(std::uint64_t n, std::size_t ready) {
    std::array<Chan, N> c;
    for (Chan& each : c) each = Chan(kBatch);
    std::uint64_t got = 0;
    std::int64_t took = 0;
    auto receive = [&](std::optional<std::uint64_t> value) { got += *value; };
    for (std::uint64_t done = 0; done < n; done += kBatch) {
        for (std::size_t k = 0; k < ready; ++k)
            while (c[N - 1 - k].try_send(1)) {
            }
        const std::int64_t start = bench::now_ns();
        for (std::uint64_t i = 0; i < kBatch; ++i)
            select_over(c, receive, std::make_index_sequence<N>());
        took += bench::now_ns() - start;
    }
    if (got < n) throw bench::Failure("a select received nothing");
    return took * static_cast<std::int64_t>(n) /
           static_cast<std::int64_t>((n + kBatch - 1) / kBatch * kBatch);
}

std::int64_t wakes(std::uint64_t n) {
    std::array<Chan, 4> c;
    Chan answer;
    baton::WaitGroup waiter;
    waiter.go([&] {
        std::uint64_t value = 0;
        auto receive = [&](std::optional<std::uint64_t> v) { value = *v; };
        for (std::uint64_t i = 0; i < n; ++i) {
            select_over(c, receive, std::make_index_sequence<4>());
            answer.send(value);
        }
    });
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) {
        c[i % 4].send(i);
        if (answer.recv() != i) throw bench::Failure("a value came back wrong");
    }
    const std::int64_t took = bench::now_ns() - start;
    waiter.wait();
    return took;
}

std::int64_t looks(std::uint64_t n, bool closed) {
    const Chan c;
    if (closed) c.close();
    std::uint64_t nothing = 0;
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i)
        nothing += baton::select(baton::on_recv(c), baton::otherwise());
    const std::int64_t took = bench::now_ns() - start;
    if (nothing != (closed ? 0 : n)) throw bench::Failure("a select chose wrongly");
    return took;
}

void side(const bench::KeyValues& args) {
    const std::string kind = args.text("kind");
    bench::print_figure("ns_per_op", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                            return baton::run([&] {
                                if (kind == "ready") return receives<4>(n, 4);
                                if (kind == "one_of_16") return receives<16>(n, 1);
                                if (kind == "woken") return wakes(n);
                                return looks(n, kind == "closed");
                            });
                        }));
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=200" : "ms=1000";
    for (const char* kind : {"ready", "one_of_16", "woken"})
        for (const char* impl : {"baton", "go", "tokio"})
            plan.add(impl, {{"kind", kind}, {"procs", "1"}}, {ms},
                     {.env = {std::string("BATON_MAXPROCS=1")}});
    for (const char* kind : {"nothing", "closed"})
        for (const char* impl : {"baton", "go"})
            plan.add(impl, {{"kind", kind}, {"procs", "1"}}, {ms},
                     {.env = {std::string("BATON_MAXPROCS=1")}});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"select", 7, 3, plan, side}, argc, argv); }
