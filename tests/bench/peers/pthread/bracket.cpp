// SPDX-License-Identifier: Apache-2.0
//
// The floor of `bracket`: a call before and one after the system call, which say by plain stores
// what any runtime has to if others are to find its processor: that the thread is away, that the
// processor may be taken, and both back if nobody took it. Nobody listens, and nothing keeps two
// from taking it at once.
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>

#include "../../support/extra.hpp"
#include "threads.hpp"

namespace {

constexpr std::uint64_t kOwn = 1, kFree = 2;

struct Thread {
    std::atomic<std::uint32_t> away{0};
    std::atomic<std::uint64_t> processor{kOwn};
};
thread_local Thread me;

// Plain loads and stores, the least that can be had: release, relaxed; no other thread is there.
[[gnu::noinline]] bool leave() {
    me.away.store(1, std::memory_order_release);
    if (me.processor.load(std::memory_order_relaxed) != kOwn) return false;
    me.processor.store(kFree, std::memory_order_release);
    return true;
}

[[gnu::noinline]] bool come_back() {
    if (me.processor.load(std::memory_order_relaxed) != kFree) return false;
    me.processor.store(kOwn, std::memory_order_release);
    me.away.store(0, std::memory_order_release);
    return true;
}

} // namespace

void floor_of_bracket(const bench::KeyValues& args) {
    std::printf("extra_ns=%.2f\n", bench::extra_ns(args.number("ms"), [] {
                    const bool left = leave();
                    ::syscall(SYS_getppid);
                    if (!left || !come_back()) throw bench::Failure("somebody took the processor");
                }));
}
