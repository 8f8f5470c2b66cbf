// SPDX-License-Identifier: Apache-2.0
//
// How long places stand empty: the figure of handoff_load.
//
// There are as many places as processors. An item that is about to block leaves its place; an item
// that starts, or goes on after its block, fills one. A place is empty from the moment fewer items
// than places are in progress until another starts. That needs no processor's number, which neither
// Go nor plain threads would tell: the k-th leaving is ended by the (k + places)-th start, the
// first `places` starts filling places that were never left.
//
// With baton and Go, whose processors run one item at a time, every block is such an emptiness, but
// for those few while an item that was preempted, which happens after 10 ms, waits to go on. It
// does not fit plain threads, of which the kernel keeps many in the middle of an item: they have
// places of their own (peers/pthread/cpu_places.hpp).
//
// Threads: any may call leave() and start(). Each index is written once, by whoever drew it.
// Ordering: `left_` is stored with release and read with acquire, but nothing else travels with it;
// a start that comes between the drawing of an index and its store finds 0 and takes no sample.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "clock.hpp"

namespace bench {

class Vacancies {
public:
    explicit Vacancies(std::uint64_t places)
        : left_(new std::atomic<std::int64_t>[kMost]()), took_ns_(new std::uint32_t[kMost]()),
          places_(places) {}

    void leave() {
        const std::uint64_t k = leavings_.fetch_add(1, std::memory_order_relaxed);
        if (k < kMost) left_[k].store(now_ns(), std::memory_order_release);
    }
    void start() {
        const std::uint64_t s = starts_.fetch_add(1, std::memory_order_relaxed);
        if (s < places_ || s - places_ >= kMost) return;
        const std::int64_t since = left_[s - places_].load(std::memory_order_acquire);
        if (since == 0) return;
        const std::int64_t took = now_ns() - since;
        took_ns_[s - places_] = static_cast<std::uint32_t>(
            std::min<std::int64_t>(std::max<std::int64_t>(took, 1), UINT32_MAX));
    }

    /// Called within items, for places that cannot tell an item from its start.
    void glance() {}

    /// Leavings so far: the index from which a window of samples begins.
    [[nodiscard]] std::uint64_t mark() const {
        return std::min(kMost, leavings_.load(std::memory_order_relaxed));
    }
    /// The emptinesses that began in a window, in nanoseconds.
    [[nodiscard]] std::vector<std::uint32_t> between(std::uint64_t from, std::uint64_t to) const {
        std::vector<std::uint32_t> all;
        for (std::uint64_t i = from; i < to; ++i)
            if (took_ns_[i] != 0) all.push_back(took_ns_[i]);
        return all;
    }

private:
    static constexpr std::uint64_t kMost = 1 << 20;
    std::unique_ptr<std::atomic<std::int64_t>[]> left_;
    std::unique_ptr<std::uint32_t[]> took_ns_;
    std::uint64_t places_;
    alignas(64) std::atomic<std::uint64_t> leavings_{0};
    alignas(64) std::atomic<std::uint64_t> starts_{0};
};

} // namespace bench
