// SPDX-License-Identifier: Apache-2.0
//
// Floor of handoff: two threads pinned to one CPU, so the kernel switches from the one that blocks
// to the one that is runnable, and nothing else happens. handoff_load: a thread for each worker.
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "../../support/duel.hpp"
#include "../../support/items.hpp"
#include "cpu_places.hpp"
#include "threads.hpp"

namespace {

/// Pins the calling thread, and those it starts, to the first CPU it may run on.
void pin_to_first_cpu() {
    cpu_set_t set;
    CPU_ZERO(&set);
    ::sched_getaffinity(0, sizeof set, &set);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &set)) ++cpu;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0)
        throw bench::Failure(std::string("sched_setaffinity: ") + std::strerror(errno));
}

} // namespace

void floor_of_handoff(const bench::KeyValues& args) {
    pin_to_first_cpu();
    bench::Duel duel(args.number("rounds"), args.number("ms"));
    std::thread other([&] {
        while (!duel.over()) {
            if (!duel.look()) ::sched_yield();
        }
    });
    while (duel.begin()) duel.settle(duel.wait());
    other.join();
    duel.report();
}

void handoff_load(const bench::KeyValues& args) {
    auto& items = *new bench::Items<CpuPlaces>(args); // for good: the workers never end
    for (int worker = 0; worker < items.workers(); ++worker)
        std::thread([&items, worker] {
            items.work(worker, [](const timespec& t) { ::syscall(SYS_nanosleep, &t, nullptr); });
        }).detach();
    items.measure();
}
