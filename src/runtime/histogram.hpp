// SPDX-License-Identifier: Apache-2.0
//
// A histogram of durations: four buckets per power of two, so a quantile is within 12 % of the
// truth.
//
// Threads: any.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace baton::rt {

class Histogram {
public:
    void add(std::int64_t ns) noexcept {
        const std::uint64_t v = ns < 1 ? 1 : static_cast<std::uint64_t>(ns);
        // relaxed: counts for people, read as they are.
        counts_[bucket(v)].fetch_add(1, std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t count() const noexcept {
        std::uint64_t n = 0;
        // relaxed: as in add
        for (const auto& c : counts_) n += c.load(std::memory_order_relaxed);
        return n;
    }
    /// The value below which a share q of the samples lies; 0 without samples.
    [[nodiscard]] std::uint64_t quantile(double q) const noexcept {
        const std::uint64_t n = count();
        if (n == 0) return 0;
        const auto rank = std::min(n - 1, static_cast<std::uint64_t>(q * static_cast<double>(n)));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); i++) {
            seen += counts_[i].load(std::memory_order_relaxed); // relaxed: as in add
            if (seen > rank) return middle(i);
        }
        return middle(counts_.size() - 1);
    }

private:
    static constexpr std::size_t kBuckets = 256;
    static std::size_t bucket(std::uint64_t v) noexcept {
        const int log = std::bit_width(v) - 1;
        const std::uint64_t quarter = log < 2 ? 0 : (v >> (log - 2)) & 3;
        return static_cast<std::size_t>(log) * 4 + quarter;
    }
    static std::uint64_t middle(std::size_t i) noexcept {
        const std::uint64_t base = std::uint64_t{1} << (i / 4);
        return base + base * (i % 4) / 4 + base / 8;
    }
    std::array<std::atomic<std::uint64_t>, kBuckets> counts_{};
};

} // namespace baton::rt
