// SPDX-License-Identifier: Apache-2.0
#include "baton/stats.hpp"

#include <algorithm>

#include "kernel/features.hpp"
#include "runtime/file_calls.hpp"
#include "runtime/ring.hpp"
#include "runtime/sched.hpp"

namespace baton {

std::vector<KernelFeature> kernel_features() {
    std::vector<KernelFeature> list;
    for (const kernel::FeatureInfo& f : kernel::feature_list())
        list.push_back({f.name, f.usable, f.detail});
    return list;
}

Assist assist_tier() {
    rt::ensure_started();
    return rt::sched.tier;
}

const char* to_string(Assist tier) noexcept {
    switch (tier) {
    case Assist::kProbe:
        return "probe";
    case Assist::kUnderstudy:
        return "understudy";
    case Assist::kSysmon:
        return "sysmon";
    }
    return "?";
}

Stats stats() {
    using namespace rt;
    constexpr auto kCount = std::memory_order_relaxed; // counts for people
    Stats s{};
    s.threads_limit = max_threads();
    if (!started()) return s;
    auto by = [](By b) { return sched.handoffs[static_cast<int>(b)].load(kCount); };
    s.goroutines = static_cast<std::uint64_t>(std::max<std::int64_t>(0, gcount()));
    s.threads = sched.mcount.load(kCount);
    s.threads_idle = sched.midle.load(kCount);
    // A thread is counted before it is made, the peak is raised after.
    s.threads_peak = std::max<std::uint64_t>(s.threads, sched.mpeak.load(kCount));
    s.threads_refused = sched.mrefused.load(kCount);
    s.file_requests = rings_in_flight();
    s.file_calls = file_calls_now();
    s.file_threads = file_threads();
    s.handoffs_understudy = by(By::kUnderstudy);
    s.handoffs_scan = by(By::kScan);
    s.handoffs_ringbuf = by(By::kRingbuf);
    s.handoffs_sysmon = by(By::kSysmon);
    s.handoffs = s.handoffs_understudy + s.handoffs_scan + s.handoffs_ringbuf + s.handoffs_sysmon;
    for (std::uint32_t i = 0; i < assist::understudies.ncpu(); i++) {
        s.understudy_arms += assist::understudies.cpu(i).arms.load(kCount);
        s.understudy_dozes += assist::understudies.cpu(i).dozes.load(kCount);
    }
    s.handoff_samples = sched.handoff_ns.count();
    s.handoff_p50_ns = sched.handoff_ns.quantile(0.50);
    s.handoff_p99_ns = sched.handoff_ns.quantile(0.99);
    return s;
}

} // namespace baton
