// SPDX-License-Identifier: Apache-2.0
//
// Floor of handoff: two threads pinned to one CPU, so the kernel switches from the one that blocks
// to the one that is runnable, and nothing else happens. Dozing, the other sleeps on a futex and is
// woken right before the block: there must be one wake, and there is no more.
// handoff_load: a thread for each worker.
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
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

/// The other thread is runnable all the time.
void steady(bench::Duel& duel) {
    std::thread other([&] {
        while (!duel.over()) {
            if (!duel.look()) ::sched_yield();
        }
    });
    while (duel.begin()) duel.settle(duel.wait());
    other.join();
}

/// Nothing runs for a while; then the other thread is woken and this one blocks.
void dozing(bench::Duel& duel, std::chrono::microseconds pause) {
    sem_t turn; // of glibc: one futex call to post, one to wait, and no spinning
    ::sem_init(&turn, 0, 0);
    std::thread other([&] {
        do {
            while (::sem_wait(&turn) != 0) {
            }
        } while (duel.look()); // nothing to see: it is over
    });
    for (bool more = true; more;) {
        std::this_thread::sleep_for(pause);
        more = duel.begin();
        ::sem_post(&turn);
        if (more) duel.settle(duel.wait());
    }
    other.join();
    ::sem_destroy(&turn);
}

} // namespace

void floor_of_handoff(const bench::KeyValues& args) {
    pin_to_first_cpu();
    bench::Duel duel(args.number("rounds"), args.number("ms"));
    if (args.text("load") == "dozing") {
        dozing(duel, std::chrono::microseconds(args.number("pause_us")));
    } else {
        steady(duel);
    }
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
