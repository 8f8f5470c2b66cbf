// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "kernel/clock.hpp"
#include "kernel/features.hpp"
#include "kernel/sched_class.hpp"
#include "kernel/syscall.hpp"

using namespace baton::kernel;

TEST_CASE("kernel syscall: a failed call returns -errno and leaves errno alone") {
    errno = 77;
    CHECK(raw_syscall(__NR_close, -1) == -EBADF);
    CHECK(errno == 77);
}

TEST_CASE("kernel syscall: every number of arguments arrives, in order") {
    CHECK(raw_syscall(__NR_getpid) == getpid());
    CHECK(raw_syscall(__NR_dup, -1) == -EBADF);
    CHECK(raw_syscall(__NR_getpgid, 0) == getpgid(0));

    int ends[2];
    REQUIRE(raw_syscall(__NR_pipe2, ends, O_CLOEXEC) == 0);
    const char sent[] = "baton";
    CHECK(raw_syscall(__NR_write, ends[1], sent, sizeof sent) == sizeof sent);
    char got[sizeof sent];
    CHECK(raw_syscall(__NR_read, ends[0], got, sizeof got) == sizeof got);
    CHECK(std::strcmp(got, sent) == 0);

    // pwrite64: four, mremap: five, mmap: six.
    const long file = raw_syscall(__NR_memfd_create, "baton-test", 0);
    REQUIRE(file >= 0);
    CHECK(raw_syscall(__NR_pwrite64, file, sent, sizeof sent, 4096) == sizeof sent);
    const long page = raw_syscall(__NR_mmap, nullptr, 4096, PROT_READ, MAP_SHARED, file, 4096);
    REQUIRE(page > 0);
    CHECK(std::strcmp(reinterpret_cast<const char*>(page), sent) == 0);
    const long moved = raw_syscall(__NR_mremap, page, 4096, 4096, MREMAP_MAYMOVE, nullptr);
    CHECK(moved == page);
    CHECK(raw_syscall(__NR_munmap, moved, 4096) == 0);
    raw_syscall(__NR_close, file);
    raw_syscall(__NR_close, ends[0]);
    raw_syscall(__NR_close, ends[1]);
}

TEST_CASE("kernel clock: nanotime never goes back and agrees with CLOCK_MONOTONIC") {
    timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    const std::int64_t before = ts.tv_sec * 1'000'000'000LL + ts.tv_nsec;
    std::int64_t last = nanotime();
    CHECK(last >= before);
    for (int i = 0; i < 10'000; ++i) {
        const std::int64_t now = nanotime();
        REQUIRE(now >= last);
        last = now;
    }
    CHECK(last - before < 1'000'000'000);
}

TEST_CASE("kernel clock: ticks convert to the nanoseconds that passed") {
    CHECK(ns_per_tick() > 0.01);
    CHECK(ns_per_tick() < 10);
    const std::uint64_t ticks = cputicks();
    const std::int64_t start = nanotime();
    while (nanotime() - start < 5'000'000) {
    }
    const std::int64_t by_ticks = ticks_to_ns(cputicks() - ticks);
    const std::int64_t by_clock = nanotime() - start;
    // Interrupted between the two reads on a busy machine: the tolerance is wide on purpose.
    CHECK(by_ticks > by_clock * 9 / 10);
    CHECK(by_ticks < by_clock * 11 / 10 + 1'000'000);
    CHECK(ticks_to_ns(0) == 0);
}

TEST_CASE("kernel clock: a duration too long for nanoseconds saturates") {
    if (ns_per_tick() <= 0.5) {
        // Less than half a nanosecond a tick: 2^64 ticks still fit.
        CHECK(ticks_to_ns(UINT64_MAX) > 0);
    } else {
        CHECK(ticks_to_ns(UINT64_MAX) == INT64_MAX);
    }
}

TEST_CASE("kernel sched_class: a thread names itself and sets its slack") {
    std::thread([] {
        CHECK(set_thread_name("baton-a-name-that-is-too-long") == 0);
        char name[16];
        prctl(PR_GET_NAME, name);
        CHECK(std::strcmp(name, "baton-a-name-th") == 0);
        CHECK(set_timer_slack(0) == -EINVAL);
        CHECK(set_timer_slack(1) == 0);
        CHECK(prctl(PR_GET_TIMERSLACK) == 1);
    }).join();
}

TEST_CASE("kernel sched_class: a thread becomes SCHED_IDLE, and no other does") {
    if (!features().sched_idle) {
        MESSAGE("SKIPPED: no SCHED_IDLE here, or switched off");
        return;
    }
    const int mine = sched_getscheduler(0);
    std::thread([] {
        CHECK(become_sched_idle() == 0);
        CHECK(sched_getscheduler(0) == SCHED_IDLE);
        if (leave_sched_idle() == 0) CHECK(sched_getscheduler(0) == SCHED_OTHER);
    }).join();
    CHECK(sched_getscheduler(0) == mine);
}

TEST_CASE("kernel sched_class: the slice of a thread in SCHED_IDLE is the shortest") {
    // size, policy, flags, nice and priority, runtime: that is the slice
    struct {
        std::uint32_t size, policy;
        std::uint64_t flags, nice_priority, runtime, deadline, period;
    } attr{};
    REQUIRE(raw_syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) == 0);
    if (attr.runtime == 0 || !features().sched_idle) {
        MESSAGE("SKIPPED: no SCHED_IDLE, or no slices of one's own before Linux 6.12");
        return;
    }
    std::thread([&attr] {
        CHECK(become_sched_idle() == 0);
        REQUIRE(raw_syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) == 0);
        CHECK(attr.policy == SCHED_IDLE);
        CHECK(attr.runtime == 100'000);
    }).join();
}
