// SPDX-License-Identifier: Apache-2.0
//
// Threads that are slow to come up, as on a full machine, or that the kernel refuses for a while:
// those that wait for one wait, and the work gets done once it is there. pthread_create here has
// them come up late, or refuses them.
// run: procs
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/child.hpp"

#if defined(BATON_TSAN) || defined(BATON_ASAN)
TEST_CASE("threads that come up late") {
    std::printf("skip: pthread_create is the sanitizer's here\n");
}
#else
using namespace child_process;

namespace {

using Clock = std::chrono::steady_clock;
using Start = void* (*)(void*);
struct Late {
    Start start;
    void* arg;
};

bool is_template() {
    char name[16] = {};
    return ::pthread_getname_np(::pthread_self(), name, sizeof name) == 0 &&
           name == std::string("baton/template");
}

std::atomic<int> template_tid{0};
std::atomic<bool> refuse{false};
std::atomic<int> refused{0};

void* start_late(void* given) {
    const Late late = *static_cast<Late*>(given);
    delete static_cast<Late*>(given);
    ::usleep(60'000);
    return late.start(late.arg);
}

/// How often the template thread has slept so far.
long template_sleeps() {
    std::ifstream status("/proc/self/task/" + std::to_string(template_tid) + "/status");
    const std::string key = "voluntary_ctxt_switches:";
    for (std::string line; std::getline(status, line);)
        if (line.starts_with(key)) return std::stol(line.substr(key.size()));
    return -1;
}

} // namespace

// Of those that the runtime makes for goroutines.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attr, Start start,
                              void* arg) noexcept {
    static auto* const real =
        reinterpret_cast<decltype(&::pthread_create)>(::dlsym(RTLD_NEXT, "pthread_create"));
    if (!is_template()) return real(thread, attr, start, arg);
    template_tid = ::gettid();
    if (refuse) {
        refused++;
        return EAGAIN;
    }
    return real(thread, attr, start_late, new Late{start, arg});
}

TEST_CASE("child: threads come up late" * doctest::skip()) {
    baton::run([] {
        baton::set_max_procs(2);
        std::atomic<bool> ran{false};
        baton::WaitGroup wg, held;
        // The threads that there are wait in calls, until one has to be made.
        auto begin = Clock::now();
        while (template_tid == 0 && Clock::now() < begin + 5s) {
            held.go([] { baton::blocking([] { ::usleep(300'000); }); });
            baton::yield();
        }
        REQUIRE(template_tid != 0);
        wg.go([&] { ran = true; });
        // This one does not let others run: the second P's is to be the new thread.
        begin = Clock::now();
        const long before = template_sleeps();
        while (Clock::now() < begin + 40ms) {
        }
        const long sleeps = template_sleeps() - before;
        INFO("the template thread slept " << sleeps << " times");
        CHECK(before >= 0);
        CHECK(sleeps < 300); // some: those that block meanwhile ask as well
        while (!ran && Clock::now() < begin + 5s) {
        }
        CHECK(ran);
        wg.wait();
        held.wait();
    });
    reached();
}

TEST_CASE("child: threads are refused" * doctest::skip()) {
    refuse = true;
    baton::run([] {
        baton::set_max_procs(2);
        std::atomic<int> ended{0};
        baton::WaitGroup held;
        const auto begin = Clock::now();
        for (int i = 0; i < 12; i++)
            held.go([&] {
                baton::blocking([] { ::usleep(100'000); });
                ended++;
            });
        while (refused == 0 && Clock::now() < begin + 5s) baton::yield();
        REQUIRE(refused > 0);
        const int before = refused;
        const auto counted = Clock::now();
        baton::blocking([] { ::usleep(100'000); });
        const std::chrono::duration<double> took = Clock::now() - counted;
        const int asked = refused - before;
        INFO("asked " << asked << " times in " << took.count() << " s");
        CHECK(asked < 20 + 200 * took.count()); // some: now and then the kernel is asked again
        refuse = false;
        held.wait();
        CHECK(ended == 12);
    });
    reached();
}

TEST_CASE("threads that are refused: the kernel is not asked again and again meanwhile") {
    for (const Child& child : run_on_tiers("threads are refused")) {
        check_works(child);
        CHECK(child.has("cannot start a thread (EAGAIN)"));
    }
}

TEST_CASE("threads that come up late: nobody asks again and again meanwhile") {
    for (const Child& child : run_on_tiers("threads come up late", {"BATON_PREEMPT=off"}))
        check_works(child);
}
#endif
