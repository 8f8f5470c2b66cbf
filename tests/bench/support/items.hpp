// SPDX-License-Identifier: Apache-2.0
//
// The workload of handoff_load, for baton's side and the plain threads alike; `Places` tells how
// long the place of an item that blocks stands empty.
#pragma once

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>

#include "clock.hpp"
#include "key_values.hpp"
#include "samples.hpp"

namespace bench {

template <class Places>
class Items {
public:
    explicit Items(const KeyValues& args)
        : workers_(static_cast<int>(args.number("workers"))),
          ms_(args.number("ms")), sleep_{args.number("blk_us") / 1'000'000,
                                         args.number("blk_us") % 1'000'000 * 1000},
          places_(static_cast<std::uint64_t>(args.number("procs"))),
          done_(new Count[static_cast<std::size_t>(workers_)]) {}

    [[nodiscard]] int workers() const { return workers_; }

    /// A worker, for as long as the process lives; `block(timespec)` is the announced nanosleep.
    template <class Block>
    [[noreturn]] void work(int worker, Block block) {
        std::uint64_t chance = 88172645463325252ULL * static_cast<std::uint64_t>(2 * worker + 1);
        places_.start();
        for (;;) {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            if ((chance >> 20) % 10 != 0) {
                compute(kItemUs);
            } else {
                compute(kItemUs / 2);
                places_.leave();
                block(sleep_);
                places_.start();
                compute(kItemUs / 2);
            }
            // relaxed: read for statistics only, and this worker is the only writer.
            auto& count = done_[worker].items;
            count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        }
    }

    /// Lets it run in for a fifth of the window, then measures; by a plain thread.
    void measure() const {
        sleep_ms(ms_ / 5);
        const double items0 = done(), cpu0 = process_cpu_us();
        const std::int64_t start = now_ns();
        const std::uint64_t from = places_.mark();
        sleep_ms(ms_);
        const double items = done() - items0, cpu_us = process_cpu_us() - cpu0;
        const double seconds = static_cast<double>(now_ns() - start) / 1e9;
        auto empty_ns = places_.between(from, places_.mark());
        std::printf("items_per_s=%.0f\np50_ns=%.0f\np99_ns=%.0f\ncpu_us_each=%.3f\n",
                    items / seconds, percentile(std::span(empty_ns), 0.5),
                    percentile(std::span(empty_ns), 0.99),
                    items > 0 ? cpu_us / items - kItemUs : 0);
    }

private:
    static constexpr int kItemUs = 8;
    struct alignas(64) Count {
        std::atomic<std::uint64_t> items{0};
    };

    void compute(int us) {
        for (; us > 0; --us) {
            computing_.us(1);
            places_.glance();
        }
    }
    [[nodiscard]] double done() const {
        std::uint64_t sum = 0;
        for (int i = 0; i < workers_; ++i) sum += done_[i].items.load(std::memory_order_relaxed);
        return static_cast<double>(sum);
    }
    static void sleep_ms(long ms) { ::usleep(static_cast<useconds_t>(ms * 1000)); }

    int workers_;
    long ms_;
    timespec sleep_;
    Work computing_;
    Places places_;
    std::unique_ptr<Count[]> done_;
};

} // namespace bench
