// SPDX-License-Identifier: Apache-2.0
//
// How long a CPU goes without one of our threads after a block: a thread about to block stamps the
// CPU it is on, and the next thread that finds itself on a stamped CPU takes the stamp. A thread
// that was preempted within an item looks after each microsecond of computing, so half a
// microsecond of the figure is the looking.
//
// Threads: any. A thread that migrates between asking for its CPU and using the answer spoils one
// sample; migrations are some thousands of times rarer than looks.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "../../support/clock.hpp"

class CpuPlaces {
public:
    explicit CpuPlaces(std::uint64_t) : took_ns_(new std::uint32_t[kMost]()) {}

    void leave() { here().store(bench::now_ns(), std::memory_order_relaxed); }
    void start() { glance(); }
    void glance() {
        auto& left = here();
        if (left.load(std::memory_order_relaxed) == 0) return;
        // relaxed: the exchange itself decides who has the stamp, and nothing else travels with it.
        const std::int64_t since = left.exchange(0, std::memory_order_relaxed);
        if (since == 0) return;
        const std::int64_t took = bench::now_ns() - since;
        const std::uint64_t i = samples_.fetch_add(1, std::memory_order_relaxed);
        if (i < kMost)
            took_ns_[i] = static_cast<std::uint32_t>(std::min<std::int64_t>(took, UINT32_MAX));
    }

    [[nodiscard]] std::uint64_t mark() const {
        return std::min(kMost, samples_.load(std::memory_order_relaxed));
    }
    [[nodiscard]] std::vector<std::uint32_t> between(std::uint64_t from, std::uint64_t to) const {
        return {took_ns_.get() + from, took_ns_.get() + to};
    }

private:
    static constexpr std::uint64_t kMost = 1 << 20;
    static constexpr unsigned kCpus = 1024;
    struct alignas(64) Cpu {
        std::atomic<std::int64_t> left{0};
    };
    std::atomic<std::int64_t>& here() {
        return cpus_[static_cast<unsigned>(::sched_getcpu()) % kCpus].left;
    }

    Cpu cpus_[kCpus];
    std::unique_ptr<std::uint32_t[]> took_ns_;
    std::atomic<std::uint64_t> samples_{0};
};
