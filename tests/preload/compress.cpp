// SPDX-License-Identifier: Apache-2.0
//
// zlib and zstd, which compute for long and call nothing, beside goroutines that sleep for 5 ms at
// a time: those are not kept waiting until a compression ends, but for the 10 ms after which who
// computes is preempted, and for those that are before them.
#if !__has_include(<zstd.h>) || !__has_include(<zlib.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("compression") { std::printf("skip: libzstd-dev or zlib1g-dev is not installed\n"); }
#else
#include <algorithm>

#include <zlib.h>
#include <zstd.h>

#include "preload/components.hpp"

namespace {

using namespace components;
using Clock = std::chrono::steady_clock;

constexpr int kCompress = 4;
constexpr int kSleep = 40;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string text_for(int i) {
    std::string text;
    for (int j = 0; text.size() < 800'000; j++)
        text += std::to_string(static_cast<unsigned>(j) * 2654435761u % 9973 * (i + 1)) + " ";
    return text;
}

std::string by_zlib(const std::string& text) {
    std::string packed(::compressBound(text.size()), '\0'), back(text.size(), '\0');
    uLongf n = packed.size(), size = back.size();
    ::compress2(reinterpret_cast<Bytef*>(packed.data()), &n,
                reinterpret_cast<const Bytef*>(text.data()), text.size(), 9);
    ::uncompress(reinterpret_cast<Bytef*>(back.data()), &size,
                 reinterpret_cast<const Bytef*>(packed.data()), n);
    return std::to_string(n) + (back == text ? " same" : " different");
}

std::string by_zstd(const std::string& text) {
    std::string packed(::ZSTD_compressBound(text.size()), '\0'), back(text.size(), '\0');
    const std::size_t n =
        ::ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 15);
    ::ZSTD_decompress(back.data(), back.size(), packed.data(), n);
    return std::to_string(n) + (back == text ? " same" : " different");
}

TEST_CASE("child: compress" * doctest::skip()) {
    std::atomic<int> left{kCompress};
    std::vector<double> calls_ms(kCompress), late_ms[kSleep];
    run_workers({.workers = kCompress + kSleep}, [&](int i) {
        if (i < kCompress) {
            const std::string text = text_for(i);
            const auto start = Clock::now();
            std::string answer = i % 2 ? by_zlib(text) : by_zstd(text);
            calls_ms[static_cast<std::size_t>(i)] = ms_since(start);
            left--;
            return answer;
        }
        while (left > 0) {
            const auto start = Clock::now();
            ::usleep(5000);
            late_ms[i - kCompress].push_back(ms_since(start) - 5);
        }
        return std::string("slept");
    });
    std::vector<double> all;
    for (const auto& some : late_ms) all.insert(all.end(), some.begin(), some.end());
    REQUIRE(!all.empty());
    std::sort(all.begin(), all.end());
    std::printf("late p50 %.2f p99 %.2f ms of %zu\nmost late: %.0f ms\nlongest call: %.0f ms\n",
                all[all.size() / 2], all[all.size() * 99 / 100], all.size(), all.back(),
                *std::max_element(calls_ms.begin(), calls_ms.end()));
}

/// The number after `key`.
double number_in(const std::string& output, const std::string& key) {
    const auto at = output.find(key);
    REQUIRE(at != std::string::npos);
    return std::atof(output.c_str() + at + key.size());
}
TEST_CASE("compression beside sleepers: they are woken in time") {
    const std::string plain = run_child_by("compress", false);
    const std::string ours = run_child_by("compress", true);
    compare_outcomes("compression", plain, ours, 20);
    const double late = number_in(ours, "most late: "), call = number_in(ours, "longest call: ");
    std::printf(
        "the most late of 40 that sleep: threads %.0f ms, goroutines %.0f of a call's %.0f\n",
        number_in(plain, "most late: "), late, call);
    CHECK(call > 200);
    CHECK(late < call / 3);
}

} // namespace
#endif
