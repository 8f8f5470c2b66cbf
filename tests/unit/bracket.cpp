// SPDX-License-Identifier: Apache-2.0
//
// What an M remembers of the CPU of its last call (src/runtime/syscall.cpp) holds for the next one
// only if that is entered there as well. And what a P remembers of its last wakes from idleness.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "baton/baton.hpp"
#include "kernel/cpus.hpp"
#include "runtime/sched.hpp"

using namespace baton;
using namespace std::chrono_literals;

namespace {

struct Entered {
    bool mine = false; // the P was still there to look at
    int cpu = -1;
    bool armed_here = false;
};

/// One call by the M of this goroutine, which is locked to it, on `cpu`; left on `left_on`.
Entered call_on(int cpu, int left_on) {
    REQUIRE(kernel::pin_thread(cpu) == 0);
    return blocking([&] {
        const rt::M* m = rt::getm();
        const assist::Word w = assist::load(*m->prec);
        const Entered entered{.mine = w.owner == m->slot && w.state == shared::P_SYSCALL,
                              .cpu = w.cpu,
                              .armed_here =
                                  m->armed ==
                                  &assist::understudies.cpu(static_cast<std::uint32_t>(cpu)).armed};
        if (left_on != cpu) REQUIRE(kernel::pin_thread(left_on) == 0);
        return entered;
    });
}

/// How often an understudy was woken.
std::uint64_t armings() {
    std::uint64_t sum = 0;
    for (std::uint32_t cpu = 0; cpu < assist::understudies.ncpu(); cpu++)
        sum += assist::understudies.cpu(cpu).arms.load();
    return sum;
}

/// This goroutine wakes from idleness and blocks at once, with another one waiting for the P.
/// Whether the understudy of the CPU was awake before that.
bool wake_and_block() {
    sleep_for(2ms);
    const bool awake = assist::understudies.cpu(rt::current_cpu(rt::getm())).armed.load() != 0;
    WaitGroup other;
    other.go([] {});
    blocking([] { std::this_thread::sleep_for(200us); });
    other.wait();
    return awake;
}

} // namespace

TEST_CASE("bracket: a call names the CPU it is entered on, whichever the last one was on") {
    const std::vector<int> cpus = kernel::allowed_cpus();
    if (cpus.size() < 2) {
        std::printf("skip: one CPU: no call is entered on another\n");
        return;
    }
    int looked = 0;
    run([&] {
        lock_os_thread();
        for (int i = 0; i < 200; i++) {
            const int cpu = cpus[static_cast<std::size_t>(i / 2 % 2)]; // each twice in a row
            const int left_on = i % 5 == 0 ? cpus[static_cast<std::size_t>(i % 2)] : cpu;
            const Entered entered = call_on(cpu, left_on);
            CHECK(entered.armed_here);
            yield(); // has a P again
            if (!entered.mine) continue;
            CHECK(entered.cpu == cpu);
            looked++;
        }
        (void)kernel::set_affinity(cpus);
        unlock_os_thread();
    });
    CHECK(looked > 50); // the premise
}

TEST_CASE("bracket: the understudy is woken before a block if one followed on the last two wakes") {
    std::uint64_t in_vain = 0; // of the best of some rounds: on a busy machine blocks do follow
    run([&] {
        set_max_procs(1);
        if (assist_tier() == Assist::kSysmon) {
            std::printf("skip: no understudies\n");
            return;
        }
        int awake = 0;
        for (int i = 0; i < 400 && awake < 20; i++) awake += wake_and_block() ? 1 : 0;
        CHECK(awake == 20);
        in_vain = ~0ULL;
        for (int round = 0; round < 5 && in_vain > 1; round++) {
            for (int i = 0; i < 3; i++) sleep_for(2ms); // after these it knows that none follows
            const std::uint64_t before = armings();
            for (int i = 0; i < 20; i++) sleep_for(2ms);
            in_vain = std::min(in_vain, armings() - before);
        }
    });
    CHECK(in_vain <= 1);
}
