// SPDX-License-Identifier: Apache-2.0
//
// Pool.
// run: tiers
#include "baton/pool.hpp"

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "runtime/sched.hpp"
#include "support/lock_stress.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Pool;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

struct Counted {
    static inline std::atomic<int> alive{0};
    std::atomic<bool> in_use{false};
    Counted() { alive.fetch_add(1, kRelaxed); }
    ~Counted() { alive.fetch_sub(1, kRelaxed); }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
};

/// One whose end takes a while, and parks.
struct Slow : Counted {
    static inline std::atomic<int> ending{0};
    ~Slow() {
        ending.fetch_add(1, kRelaxed);
        baton::sleep_for(100ms);
    }
};

/// The runtime's forced pass comes so often, for a scope.
class ForcedPass {
public:
    explicit ForcedPass(std::chrono::nanoseconds often)
        : usual_(baton::rt::sched.forced_pass_ns.exchange(often.count())) {}
    ~ForcedPass() { baton::rt::sched.forced_pass_ns.store(usual_); }
    ForcedPass(const ForcedPass&) = delete;
    ForcedPass& operator=(const ForcedPass&) = delete;

private:
    std::int64_t usual_;
};

template <class Ends>
bool within_30s(Ends&& ends) {
    const auto end = std::chrono::steady_clock::now() + 30s;
    while (!ends() && std::chrono::steady_clock::now() < end) baton::sleep_for(1ms);
    return ends();
}

} // namespace

TEST_CASE("what was put is got again before anything is made") {
    // The reference's TestPool.
    over_procs([](int) {
        int made = 0;
        Pool<int> pool([&] { return std::make_unique<int>(made++); });
        std::set<int*> put;
        for (int i = 0; i < 10; i++) CHECK(*pool.get() == i); // and destroyed, not put
        for (int i = 0; i < 20; i++) {
            auto it = std::make_unique<int>(100 + i);
            put.insert(it.get());
            pool.put(std::move(it));
        }
        pool.put(nullptr);
        CHECK(pool.size() == 20);
        std::vector<std::unique_ptr<int>> got;
        for (int i = 0; i < 20; i++) {
            got.push_back(pool.get());
            CHECK(put.erase(got.back().get()) == 1);
        }
        CHECK(pool.size() == 0);
        CHECK(*pool.get() == 10);
    });
}

TEST_CASE("a lease goes back at the end of its scope, also by an exception") {
    baton::run([] {
        Pool<int> pool;
        {
            auto a = pool.lease();
            auto b = std::move(a);
            *b = 5;
            CHECK(pool.size() == 0);
            b = pool.lease();
            CHECK(pool.size() == 1);
        }
        CHECK(pool.size() == 2);
        CHECK_THROWS_AS(([&] {
                            auto c = pool.lease();
                            throw std::runtime_error("x");
                        }()),
                        std::runtime_error);
        CHECK(pool.size() == 2);
        Pool<int> fails([]() -> std::unique_ptr<int> { throw std::runtime_error("none"); });
        CHECK_THROWS_AS((void)fails.get(), std::runtime_error);
    });
}

TEST_CASE("what one processor or thread put another gets") {
    over_procs([](int) {
        Pool<int> pool([]() -> std::unique_ptr<int> { return nullptr; }); // nothing is made
        for (int i = 0; i < 30; i++) pool.put(std::make_unique<int>(i));
        std::jthread([&] {
            for (int i = 0; i < 15; i++) CHECK(pool.get());
            for (int i = 0; i < 5; i++) pool.put(std::make_unique<int>(i));
        }).join();
        baton::WaitGroup wg;
        std::atomic<int> got{0};
        for (int i = 0; i < 20; i++) {
            wg.go([&] { got.fetch_add(pool.get() != nullptr, kRelaxed); });
        }
        wg.wait();
        CHECK(got.load(kRelaxed) == 20);
        CHECK_FALSE(pool.get());
    });
}

TEST_CASE("nobody gets what another has, and all are destroyed with the pool") {
    // The reference's TestPoolStress.
    over_procs([](int) {
        {
            Pool<Counted> pool;
            std::atomic<int> wrong{0};
            lock_stress::run(50, [&](lock_stress::Random& random, const std::stop_token&) {
                std::vector<std::unique_ptr<Counted>> mine;
                for (std::uint32_t n = random.below(6); n > 0; n--) {
                    mine.push_back(pool.get());
                    wrong.fetch_add(mine.back()->in_use.exchange(true), kRelaxed);
                    if (random.below(16) == 0) baton::yield();
                }
                for (auto& it : mine) {
                    it->in_use.store(false);
                    pool.put(std::move(it));
                }
            });
            CHECK(wrong.load(kRelaxed) == 0);
            CHECK(Counted::alive.load(kRelaxed) == static_cast<int>(pool.size()));
        }
        CHECK(Counted::alive.load(kRelaxed) == 0);
    });
}

TEST_CASE("a pool holds a bounded number, and can be cleared") {
    over_procs([](int procs) {
        Pool<Counted> pool;
        for (int i = 0; i < 10'000; i++) pool.put(std::make_unique<Counted>());
        CHECK(Counted::alive.load(kRelaxed) <= 64 * procs);
        CHECK(Counted::alive.load(kRelaxed) >= 64);
        pool.clear();
        CHECK(pool.size() == 0);
        CHECK(Counted::alive.load(kRelaxed) == 0);
    });
}

TEST_CASE("what nobody has needed for a second goes while the pool is used") {
    baton::run([] {
        baton::set_max_procs(1);
        Pool<Counted> pool;
        for (int i = 0; i < 40; i++) pool.put(std::make_unique<Counted>());
        CHECK(pool.size() == 40);
        // One is enough from here on: in the second period at the latest the others go.
        const auto end = std::chrono::steady_clock::now() + 30s;
        while (pool.size() > 5 && std::chrono::steady_clock::now() < end) {
            for (int i = 0; i < 100; i++) const auto lease = pool.lease();
            baton::sleep_for(10ms);
        }
        CHECK(pool.size() <= 5);
        CHECK(pool.size() >= 1);
        // 5 in use at a time stay.
        const auto start = std::chrono::steady_clock::now();
        while (std::chrono::steady_clock::now() < start + 2100ms) {
            std::vector<Pool<Counted>::Lease> leases;
            for (int i = 0; i < 5; i++) leases.push_back(pool.lease());
            baton::sleep_for(1ms);
        }
        CHECK(pool.size() == 5);
    });
}

TEST_CASE("what a pool holds goes when nobody uses it, and its end waits for that") {
    const ForcedPass often(10ms);
    baton::run([] {
        Pool<Counted> idle;
        auto slow = std::make_unique<Pool<Slow>>();
        for (int i = 0; i < 10; i++) idle.put(std::make_unique<Counted>());
        for (int i = 0; i < 3; i++) slow->put(std::make_unique<Slow>());
        baton::sleep_for(1200ms); // and nothing else happens
        // Where sysmon sleeps as long as nothing happens it has slept no longer than to the pass.
        if (baton::rt::sched.tier == baton::Assist::kSysmon) CHECK(idle.size() == 0);
        CHECK(within_30s([] { return Slow::ending.load(kRelaxed) != 0; }));
        slow.reset();
        CHECK(Slow::ending.load(kRelaxed) == 3);
        CHECK(within_30s([&] { return idle.size() == 0; }));
        CHECK(within_30s([] { return Counted::alive.load(kRelaxed) == 0; }));
        idle.put(std::make_unique<Counted>());
        CHECK(idle.get());
    });
}

TEST_CASE("in a forked child pools of before and new ones can be used, and end") {
    std::atomic<bool> stop{false};
    std::thread changes([&] { // the list of all pools, which a fork may find half changed
        while (!stop.load()) Pool<Counted> one;
    });
    for (int i = 0; i < 100; i++) {
        auto before = std::make_unique<Pool<Counted>>();
        before->put(std::make_unique<Counted>());
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::alarm(10);
            const bool there = before->get() != nullptr;
            before->put(std::make_unique<Counted>());
            before.reset();
            Pool<Counted> fresh;
            fresh.put(std::make_unique<Counted>());
            ::_exit(there && fresh.get() ? 0 : 1);
        }
        int status = -1;
        CHECK(::waitpid(pid, &status, 0) == pid);
        CHECK(status == 0);
    }
    stop.store(true);
    changes.join();
}

TEST_CASE("in a forked child a pool that others used at the time is empty, and works") {
    baton::run([] {}); // what is made once, at a start, is not half made at a fork
    Pool<Counted> pool;
    std::atomic<bool> stop{false};
    std::vector<std::thread> users; // one of them on whichever CPU the fork is not
    for (int i = 0; i < 2; i++)
        users.emplace_back([&] {
            while (!stop.load()) pool.put(pool.get());
        });
    int well = 0;
    for (; well < 20; well++) {
        std::this_thread::sleep_for(1ms);
        auto mine = std::make_unique<Counted>(); // as the child's malloc may be locked, too
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::alarm(10);
            const bool empty = pool.size() == 0;
            const Counted* const put = mine.get();
            pool.put(std::move(mine));
            const bool one = pool.size() == 1;
            ::_exit(empty && one && pool.get().release() == put ? 0 : 1);
        }
        int status = -1;
        if (::waitpid(pid, &status, 0) != pid || status != 0) break;
    }
    CHECK(well == 20);
    stop.store(true);
    for (std::thread& user : users) user.join();
}
