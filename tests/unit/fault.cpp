// SPDX-License-Identifier: Apache-2.0
//
// Page faults: a goroutine that waits for a page does not keep its processor waiting, where the
// probe is; a fault inside the runtime keeps it, everywhere. The pages come late by userfaultfd.
// run: tiers
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/syscall.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "support/probe.hpp"
#include "support/slow_pages.hpp"

using namespace std::chrono_literals;
using namespace baton;
using Clock = std::chrono::steady_clock;
using probe_test::read_shared;
using slow_pages::kByte;
using slow_pages::kPage;
using slow_pages::PageServer;
using slow_pages::SlowPages;

namespace {

bool pages_here() {
    try {
        const SlowPages pages(1);
        return true;
    } catch (const std::system_error& error) {
        std::printf("skip: no slow pages: %s\n", error.what());
        return false;
    }
}

bool probe_here() {
    if (baton::assist_tier() == baton::Assist::kProbe) return true;
    std::printf("skip: no probe in this tier: nobody tells a fault from a call\n");
    return false;
}

/// How many faults the probe has seen, of all threads.
std::uint64_t faults_seen() {
    std::uint64_t sum = 0;
    for (std::uint32_t slot = 1; slot < BATON_MAX_M; slot++)
        sum += read_shared(rt::sched.records.m[slot].faults);
    return sum;
}

/// Yields until it holds; false if it never did.
template <class F>
bool yield_until(F holds) {
    for (const auto end = Clock::now() + 20s; !holds();) {
        if (Clock::now() > end) return false;
        baton::yield();
    }
    return true;
}

} // namespace

TEST_CASE("fault: the only P passes on, and who faulted goes on at once when the page is there") {
    if (!pages_here() || !probe_here()) return;
    const SlowPages pages(1);
    baton::run([&] {
        baton::set_max_procs(1);
        for (int round = 0; round < 20; round++) {
            std::atomic<rt::M*> reader{nullptr};
            std::atomic<bool> back{false};
            std::uint32_t faults = 0;
            char byte = 0;
            shared::m_state state_back = shared::M_DEAD, state_settled = shared::M_DEAD;
            baton::WaitGroup wg;
            wg.go([&] {
                rt::M* m = rt::getm();
                faults = m->rec->faults;
                reader = m;
                byte = pages.touch(0);
                state_back = rt::state_of(m);
                back = true;
                baton::yield();
                state_settled = rt::state_of(rt::getm());
            });
            REQUIRE(yield_until([&] { return reader != nullptr; }));
            shared::m_rec& rec = *reader.load()->rec;
            REQUIRE(yield_until([&] { return read_shared(rec.state) == shared::M_OFFCPU; }));
            CHECK(rt::getm() != reader); // the only P is ours
            CHECK(read_shared(rec.cause) == shared::M_BY_FAULT);
            CHECK(read_shared(rec.sysno) == -1);
            CHECK(read_shared(rec.faults) > faults);
            for (int i = 0; i < 1000; i++) baton::yield();
            CHECK(!back);

            pages.give(0);
            // No call of the runtime, so the P stays ours: who comes back does without.
            for (const auto end = Clock::now() + 20s; !back && Clock::now() < end;) {
            }
            CHECK(back);
            wg.wait();
            CHECK(byte == kByte);
            CHECK(state_back == shared::M_CREDIT);
            CHECK(state_settled == shared::M_RUNNING);
            pages.take_back();
        }
    });
}

TEST_CASE("fault: a raw system call is told from it, with its number") {
    if (!probe_here()) return;
    baton::run([] {
        baton::set_max_procs(1);
        const timespec ts{0, 5'000'000};
        rt::M* m = rt::getm();
        (void)kernel::raw_syscall(SYS_nanosleep, &ts, nullptr);
        CHECK(m->rec->cause == shared::M_BY_SYSCALL);
        CHECK(m->rec->sysno == SYS_nanosleep);
    });
}

TEST_CASE("fault: in an announced call the P passes on as from any") {
    if (!pages_here()) return;
    const bool probed = baton::assist_tier() == baton::Assist::kProbe;
    const SlowPages pages(1);
    baton::run([&] {
        baton::set_max_procs(1);
        std::atomic<bool> reading{false}, given{false};
        baton::WaitGroup wg;
        wg.go([&] {
            rt::M* m = rt::getm();
            shared::m_cause cause = shared::M_NEVER; // read before it sleeps again
            const char byte = baton::blocking([&] {
                reading = true;
                const char touched = pages.touch(0);
                cause = m->rec->cause;
                return touched;
            });
            CHECK(byte == kByte);
            CHECK(given);
            if (probed) CHECK(cause == shared::M_BY_FAULT);
        });
        wg.go([&] { // has no P until the other one's is free
            CHECK(yield_until([&] { return reading.load(); }));
            pages.wait_asked();
            given = true;
            pages.give(0);
        });
        wg.wait();
    });
}

TEST_CASE("fault: many goroutines wait for many pages, on any number of Ps") {
    if (!pages_here()) return;
    const bool probed = baton::assist_tier() == baton::Assist::kProbe;
    constexpr std::size_t kGs = 16, kEach = 16;
    const SlowPages pages(kGs * kEach);
    const PageServer server(pages, 1ms);
    for (int procs : {1, 2, 4, 8}) {
        const std::uint64_t faults = faults_seen();
        Clock::duration took = Clock::duration::max();
        std::atomic<std::size_t> right{0};
        for (int i = 0; i < 3; i++) {
            const auto start = Clock::now();
            baton::run([&] {
                baton::set_max_procs(procs);
                baton::WaitGroup wg;
                for (std::size_t g = 0; g < kGs; g++)
                    wg.go([&, g] {
                        for (std::size_t k = 0; k < kEach; k++)
                            right += pages.touch(k * kGs + g) == kByte;
                        baton::yield();
                    });
                wg.wait();
            });
            took = std::min(took, Clock::now() - start);
            pages.take_back();
        }
        CHECK(right == 3 * kGs * kEach);
        if (probed) {
            CHECK(faults_seen() - faults >= 3 * kGs);
            if (procs == 1) CHECK(took < kGs * kEach * 1ms * 3 / 4); // one by one: all of it
        } else {
            CHECK(faults_seen() == 0); // nobody is there to see them
        }
    }
}

TEST_CASE("fault: in the middle of memcpy, with the preemption signal on top") {
    if (!pages_here()) return;
    const bool probed = baton::assist_tier() == baton::Assist::kProbe;
    constexpr std::size_t kPages = 48;
    const SlowPages pages(kPages);
    const PageServer server(pages, 1ms);
    for (int procs : {1, 2, 4, 8}) {
        std::vector<char> copy(kPages * kPage);
        std::atomic<bool> done{false};
        long steps = 0;
        baton::run([&] {
            baton::set_max_procs(procs);
            baton::WaitGroup wg;
            wg.go([&] {
                std::memcpy(copy.data(), pages.page(0), copy.size());
                done = true;
            });
            for (baton::yield(); !done; baton::yield()) steps++;
            wg.wait();
        });
        CHECK(std::all_of(copy.begin(), copy.end(), [](char c) { return c == kByte; }));
        if (probed) CHECK(steps > 1000);
        pages.take_back();
    }
}

TEST_CASE("fault: inside the runtime the P stays where it is") {
    if (!pages_here()) return;
    const SlowPages pages(1);
    std::atomic<rt::M*> inside{nullptr};
    std::atomic<long> steps{0};
    std::atomic<bool> done{false};
    std::thread giver([&] {
        pages.wait_asked();
        rt::M* m = inside;
        CHECK(probe_test::sleeps(m->rec->tid));
        CHECK(read_shared(m->rec->state) == shared::M_RUNTIME);
        CHECK(read_shared(m->prec->word) == m->run);
        const long before = steps;
        std::this_thread::sleep_for(30ms); // sysmon looks, too
        CHECK(steps == before);
        CHECK(read_shared(m->prec->word) == m->run);
        pages.give(0);
    });
    baton::run([&] {
        baton::set_max_procs(1);
        baton::WaitGroup wg;
        wg.go([&] {
            for (; !done; baton::yield()) steps++;
        });
        CHECK(yield_until([&] { return steps > 100; }));
        {
            const rt::Entry entry;
            rt::M* m = rt::getm();
            const auto blocks = m->rec->blocks;
            inside = m;
            CHECK(pages.touch(0) == kByte);
            CHECK(m->rec->blocks == blocks);
            CHECK(rt::holds_p(m));
        }
        done = true;
        wg.wait();
    });
    giver.join();
}
