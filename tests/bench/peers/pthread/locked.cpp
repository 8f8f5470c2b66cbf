// SPDX-License-Identifier: Apache-2.0
//
// What a round trip between two threads costs at the least, which is all that a locked goroutine's
// is made of: a value goes over to the other thread and comes back, and nothing else happens.
//
// cpus=2  both look for it without sleeping, each on a CPU of its own: the word that says so and
//         the value, a cache line each, move to the other CPU twice
// cpus=1  both on one CPU, asleep in a futex until the other one wakes them
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../../support/clock.hpp"
#include "threads.hpp"

namespace {

std::vector<int> allowed_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    ::sched_getaffinity(0, sizeof set, &set);
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    return cpus;
}

void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    const int rc = ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
    if (rc != 0) throw bench::Failure(std::string("pthread_setaffinity_np: ") + std::strerror(rc));
}

struct alignas(64) Box {
    std::atomic<std::uint32_t> turn{0}; // 0: the first one's. The futex, too
    alignas(64) std::uint64_t value = 0;
};

// acquire and release: the value goes with the turn.
void look_for(const Box& box, std::uint32_t mine) {
    while (box.turn.load(std::memory_order_acquire) != mine) {
    }
}
void give(Box& box, std::uint32_t to) { box.turn.store(to, std::memory_order_release); }

void sleep_for(Box& box, std::uint32_t mine) {
    while (box.turn.load(std::memory_order_acquire) != mine)
        ::syscall(SYS_futex, &box.turn, FUTEX_WAIT_PRIVATE, 1 - mine, nullptr, nullptr, 0);
}
void give_and_wake(Box& box, std::uint32_t to) {
    give(box, to);
    ::syscall(SYS_futex, &box.turn, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

template <auto Wait, auto Give>
std::int64_t exchange(int mine, int other, std::uint64_t n) {
    Box box;
    std::thread echo([&] {
        pin_to(other);
        for (std::uint64_t i = 0; i <= n; ++i) {
            Wait(box, 1);
            box.value = box.value + 1;
            Give(box, 0);
        }
    });
    pin_to(mine);
    Give(box, 1);
    Wait(box, 0); // it is there
    const std::int64_t start = bench::now_ns();
    for (std::uint64_t i = 0; i < n; ++i) {
        box.value = i;
        Give(box, 1);
        Wait(box, 0);
        if (box.value != i + 1) throw bench::Failure("a value came back wrong");
    }
    const std::int64_t took = bench::now_ns() - start;
    echo.join();
    return took;
}

} // namespace

void locked(const bench::KeyValues& args) {
    const std::vector<int> cpus = allowed_cpus();
    const bool two = args.number("cpus") == 2;
    if (two && cpus.size() < 2) throw bench::Failure("there is but one CPU");
    std::printf("ns_per_op=%.2f\n", bench::ns_each(args.number("ms"), [&](std::uint64_t n) {
                    return two ? exchange<look_for, give>(cpus[0], cpus[1], n)
                               : exchange<sleep_for, give_and_wake>(cpus[0], cpus[0], n);
                }));
}
