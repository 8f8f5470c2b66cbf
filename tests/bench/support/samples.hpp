// SPDX-License-Identifier: Apache-2.0
//
// Order statistics. Both reorder what they are given.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

namespace bench {

/// The value that a share `q` (0 to 1) of the samples lies below; 0 for no samples.
template <class T>
double percentile(std::span<T> samples, double q) {
    if (samples.empty()) return 0;
    const auto n = samples.size();
    const auto rank = std::min(n - 1, static_cast<std::size_t>(static_cast<double>(n) * q));
    const auto at = samples.begin() + static_cast<std::ptrdiff_t>(rank);
    std::nth_element(samples.begin(), at, samples.end());
    return static_cast<double>(*at);
}

/// The middle value, or the mean of the two middle ones.
template <class T>
double median(std::span<T> samples) {
    if (samples.empty()) return 0;
    std::sort(samples.begin(), samples.end());
    const auto half = samples.size() / 2;
    if (samples.size() % 2 == 1) return static_cast<double>(samples[half]);
    return (static_cast<double>(samples[half - 1]) + static_cast<double>(samples[half])) / 2;
}

} // namespace bench
