// SPDX-License-Identifier: Apache-2.0
//
// Local: a value for each goroutine and each plain thread.
// run: tiers
#include "baton/local.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Chan;
using baton::Local;
using procs_test::eventually;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

/// Counts its living.
struct Counted {
    static inline std::atomic<int> alive{0};
    Counted() { alive.fetch_add(1, kRelaxed); }
    Counted(const Counted&) = delete;
    ~Counted() { alive.fetch_sub(1, kRelaxed); }
    int n = 0;
};
Local<Counted> counted([]() -> Counted { return {}; });
Local<int> number;

} // namespace

TEST_CASE("each goroutine has its own value, also after it changed threads") {
    over_procs([](int) {
        baton::WaitGroup wg;
        for (int i = 1; i <= 50; i++) {
            wg.go([i] {
                CHECK_FALSE(number.find());
                CHECK(*number == 0);
                *number = i;
                int* at = &*number;
                for (int k = 0; k < 20; k++) {
                    if (k % 5 == 0) baton::sleep_for(10us);
                    baton::yield();
                    CHECK(*number == i);
                    CHECK(&number.get() == at);
                }
            });
        }
        wg.wait();
    });
}

TEST_CASE("values are destroyed as their goroutine ends, on it, the last made first") {
    over_procs([](int) {
        struct Tells {
            Tells(Chan<int> c, int i) : told(std::move(c)), id(i) {}
            Tells(const Tells&) = delete;
            ~Tells() {
                baton::sleep_for(10us); // it may park
                if (number.find()) *number += 1;
                told.send(baton::goid() == goid ? id + *number : -1);
            }
            Chan<int> told;
            int id;
            std::uint64_t goid = baton::goid();
        };
        const Chan<int> told;
        Local<Tells> a([=]() -> Tells { return {told, 1000}; });
        Local<Tells> b([=]() -> Tells { return {told, 2000}; });
        const Local<Tells> never([=]() -> Tells { return {told, 3000}; });
        baton::go([&] {
            *number = 40;
            (void)*b;
            (void)*a;
            (void)*counted;
        });
        CHECK(told.recv() == 1041);
        CHECK(told.recv() == 2042);
        while (Counted::alive.load(kRelaxed) != 0) baton::sleep_for(100us);
    });
}

TEST_CASE("ten thousand goroutines leave no value behind") {
    over_procs([](int) {
        baton::WaitGroup wg;
        for (int i = 0; i < 10'000; i++) {
            wg.go([i] {
                counted->n = i;
                if (i % 10 == 0) baton::yield();
                CHECK(counted->n == i);
            });
        }
        wg.wait();
        while (Counted::alive.load(kRelaxed) != 0) baton::sleep_for(100us);
    });
}

TEST_CASE("a plain thread has a value too, destroyed when it ends") {
    std::atomic<int> n{0};
    std::thread([&] {
        *number = 5;
        counted->n = 1;
        n.store(Counted::alive.load(kRelaxed), kRelaxed);
        CHECK(*number == 5);
    }).join();
    CHECK(n.load(kRelaxed) == 1);
    CHECK(Counted::alive.load(kRelaxed) == 0);
    CHECK_FALSE(number.find()); // this thread's
}

TEST_CASE("a Local that takes the place of another does not find its values") {
    over_procs([](int) {
        auto held = std::make_shared<int>(1);
        for (int i = 0; i < 10'000; i++) {
            Local<std::shared_ptr<int>> local; // far more than there may be at a time
            CHECK_FALSE(local.find());
            *local = held;
            if (i % 100 == 0) CHECK(held.use_count() <= 3);
        }
        std::vector<std::unique_ptr<Local<int>>> many;
        try {
            for (;;) many.push_back(std::make_unique<Local<int>>());
        } catch (const std::system_error& e) {
            CHECK(e.code() == std::errc::resource_unavailable_try_again);
        }
        CHECK(many.size() > 4000);
        for (std::size_t i = 0; i < many.size(); i += 7) **many[i] = static_cast<int>(i);
        for (std::size_t i = 0; i < many.size(); i += 7) CHECK(**many[i] == static_cast<int>(i));
    });
}

TEST_CASE("a constructor that throws is tried again") {
    baton::run([] {
        int tries = 0;
        Local<int> local([&] {
            if (tries++ == 0) throw std::runtime_error("not yet");
            return 7;
        });
        CHECK_THROWS_AS((void)*local, std::runtime_error);
        CHECK(*local == 7);
        CHECK(*local == 7);
        CHECK(tries == 2);
    });
}
