// SPDX-License-Identifier: Apache-2.0
//
// select with others at the same channels: nothing is lost, doubled or preferred.
// run: tiers
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/select.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "support/chans.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Chan;
using baton::on_recv;
using baton::on_send;
using baton::otherwise;
using baton::select;
using chans_test::nil;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

} // namespace

TEST_CASE("each of 100000 selects completes exactly one of its four sends") {
    // The reference's doubleselect.go.
    over_procs([](int procs) {
        const int n = procs == 2 ? 100'000 : 10'000;
        std::array<Chan<int>, 4> c;
        Chan<int> merged;
        baton::go([c, n] {
            for (int i = 0; i < n; i++)
                select(on_send(c[0], i), on_send(c[1], i), on_send(c[2], i), on_send(c[3], i));
            for (const auto& each : c) each.close();
        });
        baton::WaitGroup wg;
        for (const auto& each : c) {
            wg.go([each, merged] {
                for (const int v : each) merged.send(v);
            });
        }
        baton::go([&wg, merged] {
            wg.wait();
            merged.close();
        });
        std::vector<bool> seen(static_cast<std::size_t>(n));
        int count = 0;
        bool twice = false;
        for (const int v : merged) {
            twice = twice || seen[static_cast<std::size_t>(v)];
            seen[static_cast<std::size_t>(v)] = true;
            count++;
        }
        CHECK(count == n);
        CHECK_FALSE(twice);
    });
}

TEST_CASE("two cases that are always ready are chosen equally often") {
    // The reference's TestSelectFairness: within 4.89 sigma. Idle cases in between change nothing.
    baton::run([] {
        constexpr int kTrials = 10'000;
        Chan<int> a(kTrials + 1);
        Chan<int> b(kTrials + 1);
        for (int i = 0; i < kTrials + 1; i++) {
            a.send(0);
            b.send(1);
        }
        Chan<int> idle1;
        Chan<int> idle2;
        std::array<int, 4> chosen{};
        for (int i = 0; i < kTrials; i++)
            chosen[select(on_recv(a), on_recv(b), on_recv(idle1), on_recv(idle2))]++;
        CHECK(chosen[2] + chosen[3] == 0);
        const double share = static_cast<double>(chosen[0]) / kTrials;
        CHECK(std::abs(share - 0.5) <= 4.891676 / (2 * std::sqrt(double{kTrials})));
    });
}

TEST_CASE("two sends on the same channel in one select are chosen equally often") {
    // The reference's TestPseudoRandomSend.
    baton::run([] {
        for (const std::size_t cap : {0, 1000}) {
            Chan<int> c(cap);
            constexpr int kSends = 1000;
            std::vector<int> got;
            baton::WaitGroup wg;
            wg.go([&] {
                for (int i = 0; i < kSends; i++) {
                    baton::yield();
                    got.push_back(c.recv().value());
                }
            });
            for (int i = 0; i < kSends; i++) select(on_send(c, 0), on_send(c, 1));
            wg.wait();
            const auto ones = std::count(got.begin(), got.end(), 1);
            CHECK(ones > kSends / 10);
            CHECK(ones < kSends * 9 / 10);
        }
    });
}

TEST_CASE("the same channel twice in a select keeps its queue sane") {
    // The reference's TestSelectDuplicateChannel.
    over_procs([](int) {
        Chan<int> c;
        Chan<int> d;
        Chan<int> e;
        baton::go([=] {
            select(on_recv(c), on_recv(c), on_recv(d));
            e.send(9);
        });
        baton::sleep_for(1ms);
        baton::go([=] { (void)c.recv(); });
        baton::sleep_for(1ms);
        d.send(7, 1h);
        (void)e.recv(1h);
        c.send(8, 1h);
    });
}

TEST_CASE("a select never receives what it sends itself") {
    // The reference's TestSelfSelect.
    over_procs([](int) {
        for (const std::size_t cap : {0, 10}) {
            Chan<int> c(cap);
            baton::WaitGroup wg;
            std::atomic<int> own{0};
            for (int p = 0; p < 2; p++) {
                wg.go([&, p] {
                    for (int i = 0; i < 1000; i++) {
                        std::optional<int> got;
                        const auto receive = [&](std::optional<int> v) { got = v; };
                        if (p == 0 || i % 2 == 0) {
                            select(on_send(c, p), on_recv(c, receive));
                        } else {
                            select(on_recv(c, receive), on_send(c, p));
                        }
                        if (cap == 0 && got == p) own.fetch_add(1, kRelaxed);
                    }
                });
            }
            wg.wait();
            CHECK(own.load(kRelaxed) == 0);
        }
    });
}

TEST_CASE("otherwise is not chosen while one of two channels always is ready") {
    // The reference's TestNonblockSelectRace and TestNonblockSelectRace2.
    over_procs([](int procs) {
        const int n = procs == 2 ? 50'000 : 5'000;
        for (const bool by_close : {false, true}) {
            Chan<int> done(1);
            int missed = 0;
            for (int i = 0; i < n; i++) {
                Chan<int> c1(1);
                Chan<int> c2(by_close ? 0 : 1);
                c1.send(1);
                baton::go([=] {
                    // Either c1 still has its value, or c2 is ready already.
                    done.send(select(on_recv(c1), on_recv(c2), otherwise()) == 2 ? 1 : 0);
                });
                if (by_close) {
                    c2.close();
                } else {
                    c2.send(1);
                }
                select(on_recv(c1), otherwise());
                missed += done.recv().value();
            }
            CHECK(missed == 0);
        }
    });
}

TEST_CASE("selects that are never served leave nothing behind on the idle channel") {
    // The reference's select2.go, where memory would grow: here a waiter left behind would lie in
    // a frame that is gone.
    over_procs([](int) {
        Chan<int> served;
        Chan<int> idle;
        baton::go([=] {
            for (int i = 0; i < 20'000; i++) served.send(i);
            served.close();
        });
        int n = 0;
        for (bool open = true; open;) {
            select(on_recv(served,
                           [&](std::optional<int> v) {
                               open = v.has_value();
                               n += open ? 1 : 0;
                           }),
                   on_recv(idle, [&](std::optional<int>) { n = -1'000'000; }));
        }
        CHECK(n == 20'000);
        CHECK_FALSE(idle.try_send(1));
    });
}

TEST_CASE("ten goroutines select, send and receive on four channels and lose nothing") {
    // The reference's TestSelectStress.
    over_procs([](int) {
        constexpr int kEach = 4'000;
        std::array<Chan<int>, 4> c{Chan<int>(), Chan<int>(), Chan<int>(2), Chan<int>(3)};
        baton::WaitGroup wg;
        for (std::size_t k = 0; k < 4; k++) {
            wg.go([&, k] {
                for (int i = 0; i < kEach; i++) c[k].send(0);
            });
            wg.go([&, k] {
                for (int i = 0; i < kEach; i++) (void)c[k].recv();
            });
        }
        const auto all = [&](bool sends) {
            std::array<Chan<int>, 4> mine = c;
            std::array<int, 4> left{kEach, kEach, kEach, kEach};
            for (int i = 0; i < 4 * kEach; i++) {
                const std::size_t k = sends ? select(on_send(mine[3], 0), on_send(mine[2], 0),
                                                     on_send(mine[0], 0), on_send(mine[1], 0))
                                            : select(on_recv(mine[0]), on_recv(mine[1]),
                                                     on_recv(mine[2]), on_recv(mine[3]));
                constexpr std::array<std::size_t, 4> kSent{3, 2, 0, 1};
                const std::size_t at = sends ? kSent[k] : k;
                if (--left[at] == 0) mine[at] = nil();
            }
        };
        wg.go([&] { all(true); });
        wg.go([&] { all(false); });
        wg.wait();
        for (const auto& each : c) CHECK(each.size() == 0);
    });
}

TEST_CASE("a channel may be destroyed by who sees that it is closed") {
    // A sanitizer tells if whoever closed it is not through with it by then.
    over_procs([](int procs) {
        const int n = procs == 2 ? 20'000 : 200;
        int seen = 0;
        for (int i = 0; i < n; i++) {
            auto c = std::make_unique<Chan<int>>();
            std::atomic<Chan<int>*> given{nullptr};
            baton::WaitGroup wg;
            wg.go([&given] {
                Chan<int>* its = nullptr;
                while (!(its = given.load(std::memory_order_acquire))) baton::yield();
                its->close();
            });
            given.store(c.get(), std::memory_order_release);
            while (select(on_recv(*c), otherwise()) == 1) baton::yield();
            c.reset();
            seen++;
            wg.wait();
        }
        CHECK(seen == n);
    });
}
