// SPDX-License-Identifier: Apache-2.0
//
// select: what the reference's tests of it ask for.
// run: tiers
#include "baton/select.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "kernel/build.hpp"
#include "support/chans.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Chan;
using baton::on_recv;
using baton::on_send;
using baton::on_until;
using baton::otherwise;
using baton::RecvChan;
using baton::select;
using baton::SendChan;
using chans_test::nil;
using procs_test::over_procs;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

/// Does f stay blocked? Its goroutine is left behind, parked, if it does.
template <class F>
bool blocks(F f) {
    auto ended = std::make_shared<std::atomic<bool>>(false);
    baton::go([ended, f] {
        f();
        ended->store(true, kRelaxed);
    });
    for (int i = 0; i < 10; i++) baton::yield();
    baton::sleep_for(2ms);
    return !ended->load(kRelaxed);
}

template <class C>
concept CanSend = requires(const C& c) {
    c.send(1);
};
template <class C>
concept CanReceive = requires(const C& c) {
    c.recv();
};
template <class C>
concept CanRange = requires(const C& c) {
    c.begin();
};
template <class C>
concept CanClose = requires(const C& c) {
    c.close();
};
template <class C>
concept CanSelectSend = requires(const C& c) {
    on_send(c, 1);
};
template <class C>
concept CanSelectReceive = requires(const C& c) {
    on_recv(c);
};

// The reference's perm.go.
static_assert(std::is_convertible_v<Chan<int>, RecvChan<int>>);
static_assert(std::is_convertible_v<Chan<int>, SendChan<int>>);
static_assert(!std::is_convertible_v<RecvChan<int>, Chan<int>>);
static_assert(!std::is_convertible_v<SendChan<int>, Chan<int>>);
static_assert(!std::is_convertible_v<RecvChan<int>, SendChan<int>>);
static_assert(!std::is_convertible_v<SendChan<int>, RecvChan<int>>);
static_assert(!CanSend<RecvChan<int>> && !CanClose<RecvChan<int>>);
static_assert(!CanReceive<SendChan<int>> && !CanRange<SendChan<int>>);
static_assert(CanReceive<RecvChan<int>> && CanRange<RecvChan<int>>);
static_assert(CanSend<SendChan<int>> && CanClose<SendChan<int>>);
static_assert(!CanSelectSend<RecvChan<int>> && !CanSelectReceive<SendChan<int>>);
static_assert(CanSelectSend<SendChan<int>> && CanSelectReceive<RecvChan<int>>);
static_assert(!CanSend<int> && !CanReceive<int> && !CanClose<int> && !CanSelectReceive<int>);

} // namespace

TEST_CASE("the truth table of ready and blocked cases") {
    // The reference's select3.go.
    baton::run([] {
        CHECK(blocks([] { (void)nil().recv(); }));
        CHECK(blocks([] { nil().send(7); }));
        CHECK(select(on_recv(nil()), otherwise()) == 1);
        CHECK(select(on_send(nil(), 7), otherwise()) == 1);

        Chan<int> c(10);
        CHECK(select(on_send(c, 1), otherwise()) == 0);
        CHECK(blocks([] { (void)Chan<int>().recv(); }));
        CHECK(blocks([] { select(); }));
        CHECK(blocks([] { select(on_recv(nil())); }));
        CHECK(blocks([] { select(on_send(nil(), 7)); }));
        CHECK(blocks([] { select(on_recv(nil()), on_send(nil(), 7)); }));
        CHECK(blocks([] { select(on_recv(Chan<int>()), on_send(nil(), 7)); }));
        CHECK(select(on_recv(Chan<int>()), otherwise()) == 1);
        CHECK(select(on_send(Chan<int>(), 7), otherwise()) == 1);

        std::optional<int> got;
        CHECK(select(on_recv(c, got), otherwise()) == 0);
        CHECK(got == 1);
        CHECK(select(on_recv(c, got), otherwise()) == 1);
        CHECK(got == 1); // a destination that is not chosen is left alone

        Chan<int> closed;
        closed.close();
        for (int i = 0; i < 3; i++) {
            got = 5;
            CHECK(select(on_recv(closed, got)) == 0);
            CHECK_FALSE(got);
            CHECK(select(on_recv(closed), otherwise()) == 0);
        }
        CHECK_THROWS_AS(select(on_send(closed, 7)), baton::ChanClosed);
        CHECK_THROWS_AS(select(on_send(closed, 7), otherwise()), baton::ChanClosed);
        CHECK(blocks([] { // never with itself
            Chan<int> one;
            select(on_send(one, 1), on_recv(one));
        }));
    });
}

TEST_CASE("the function of the chosen case is called, of no other, with the value") {
    baton::run([] {
        Chan<std::string> a(1);
        Chan<std::string> b;
        std::vector<std::string> log;
        const auto run = [&] {
            return select(
                on_recv(a, [&](std::optional<std::string> v) { log.push_back(v.value_or("-")); }),
                on_send(b, "to b", [&] { log.push_back("sent"); }),
                otherwise([&] { log.push_back("otherwise"); }));
        };
        CHECK(run() == 2);
        a.send("value");
        CHECK(run() == 0);
        a.close();
        CHECK(run() == 0);
        CHECK(log == std::vector<std::string>{"otherwise", "value", "-"});
        CHECK(select(otherwise([&] { log.clear(); }), on_recv(b)) == 0);
        CHECK(log.empty());
        CHECK_THROWS_AS(select(otherwise([] { throw 5; })), int);
    });
}

TEST_CASE("a value that is not sent stays where it was") {
    baton::run([] {
        Chan<std::unique_ptr<int>> full;
        auto value = std::make_unique<int>(3);
        CHECK(select(on_send(full, std::move(value)), otherwise()) == 1);
        REQUIRE(value); // NOLINT(bugprone-use-after-move): that is the test
        Chan<std::unique_ptr<int>> roomy(1);
        CHECK(select(on_send(roomy, std::move(value)), otherwise()) == 0);
        CHECK_FALSE(value); // NOLINT(bugprone-use-after-move)
        CHECK(**roomy.recv() == 3);
        Chan<std::string> copies(1);
        const std::string kept = "an lvalue is copied";
        CHECK(select(on_send(copies, kept)) == 0);
        CHECK(copies.recv() == kept);
    });
}

TEST_CASE("the operands of every case are evaluated once") {
    // The reference's select.go and select5.go.
    baton::run([] {
        int evaluated = 0;
        const auto shift = [&evaluated](int v) {
            evaluated++;
            return v;
        };
        Chan<int> c1(1);
        Chan<int> c2(1);
        for (int i = 0; i < 5; i++) {
            select(on_send(i % 2 != 0 ? nil() : c1, shift(i)), on_send(c2, shift(i)));
            while (c1.try_recv() || c2.try_recv()) {
            }
        }
        CHECK(evaluated == 10);
    });
}

TEST_CASE("both sends of a select happen in the end, and only one with a nil channel") {
    over_procs([](int) {
        Chan<int> a;
        Chan<int> b;
        baton::go([a, b] {
            Chan<int> first = a;
            Chan<int> second = b;
            for (int i = 0; i < 2; i++) {
                if (select(on_send(first, 1), on_send(second, 2)) == 0) {
                    first = nil();
                } else {
                    second = nil();
                }
            }
        });
        CHECK(a.recv(1h) == 1);
        CHECK(b.recv(1h) == 2);
    });
}

TEST_CASE("every pairing of receive and send, plain and in selects, completes") {
    // The reference's select7.go: the receiver parks first.
    over_procs([](int) {
        const auto receive = [](const Chan<int>& c, int how) {
            Chan<int> idle;
            if (how == 0) (void)c.recv();
            if (how == 1) select(on_recv(c));
            if (how == 2) select(on_recv(c), on_recv(idle));
        };
        const auto send = [](const Chan<int>& c, int how) {
            Chan<int> idle;
            if (how == 0) c.send(1);
            if (how == 1) select(on_send(c, 1));
            if (how == 2) select(on_send(c, 1), on_recv(idle));
        };
        for (int r = 0; r < 3; r++) {
            for (int s = 0; s < 3; s++) {
                for (const bool receiver_first : {true, false}) {
                    Chan<int> c;
                    baton::WaitGroup wg;
                    wg.go([&] {
                        if (receiver_first) {
                            receive(c, r);
                        } else {
                            send(c, s);
                        }
                    });
                    baton::yield();
                    if (receiver_first) {
                        send(c, s);
                    } else {
                        receive(c, r);
                    }
                    wg.wait();
                }
            }
        }
    });
}

TEST_CASE("a select that lost on a channel has left its queue in order") {
    // The reference's select6.go.
    over_procs([](int) {
        Chan<bool> c1;
        Chan<bool> c2;
        Chan<bool> c3;
        baton::go([=] { (void)c1.recv(); });
        baton::sleep_for(1ms);
        baton::go([=] {
            std::optional<bool> lost;
            if (select(on_recv(c1, lost), on_recv(c2)) == 1) c3.send(true);
            (void)c1.recv();
        });
        baton::go([=] { c2.send(true); });
        CHECK(c3.recv(1h) == true);
        c1.send(true, 1h);
        c1.send(true, 1h);
        CHECK_FALSE(c1.try_send(true));
    });
}

TEST_CASE("a select is given up at its deadline or when a stop is requested") {
    over_procs([](int) {
        Chan<int> c;
        std::error_code why;
        const auto start = std::chrono::steady_clock::now();
        const auto note = [&](std::error_code ec) { why = ec; };
        CHECK(select(on_recv(c), on_send(c, 1), on_until(2ms, note)) == 2);
        CHECK(why == std::errc::timed_out);
        CHECK(std::chrono::steady_clock::now() - start >= 2ms);
        CHECK(select(on_until(1ms)) == 0);
        std::stop_source source;
        baton::go([&] {
            baton::sleep_for(1ms);
            source.request_stop();
        });
        CHECK(select(on_recv(c), on_recv(nil()), on_until({1h, source.get_token()}, note)) == 2);
        CHECK(why == std::errc::operation_canceled);
        CHECK(select(on_recv(c), on_until(source.get_token())) == 1);
        CHECK_FALSE(c.try_send(1));
        Chan<int> ready(1);
        ready.send(1);
        CHECK(select(on_recv(c), on_recv(ready), on_until(source.get_token())) == 1);
    });
}

TEST_CASE("recv_any receives from any number of channels") {
    over_procs([](int) {
        for (const std::size_t n : {1, 3, 16, 17, 100}) {
            std::vector<Chan<int>> c(n);
            baton::WaitGroup wg;
            for (std::size_t k = 0; k < n; k++) wg.go([&c, k] { c[k].send(static_cast<int>(k)); });
            std::vector<int> seen(n);
            for (std::size_t i = 0; i < n; i++) {
                const auto got = baton::recv_any(c);
                CHECK(got.value == static_cast<int>(got.from));
                seen[got.from]++;
            }
            wg.wait();
            CHECK(seen == std::vector<int>(n, 1));
            CHECK_THROWS_AS((void)baton::recv_any(c, 1ms), std::system_error);
            c.back().close();
            const auto end = baton::recv_any(c);
            CHECK(end.from == n - 1);
            CHECK_FALSE(end.value);
        }
    });
}

TEST_CASE("plain threads select among themselves and with goroutines") {
    Chan<int> a;
    Chan<int> b;
    Chan<int> quit;
    int sum = 0;
    std::jthread sender([&] {
        for (int i = 0; i < 200; i++) select(on_send(a, 1), on_send(b, 1));
    });
    baton::go([&] {
        for (int i = 0; i < 200; i++) select(on_send(a, 1), on_send(b, 1));
        quit.send(0);
    });
    for (int ended = 0; sum < 400 || ended < 1;) {
        select(on_recv(a, [&](std::optional<int> v) { sum += *v; }),
               on_recv(b, [&](std::optional<int> v) { sum += *v; }),
               on_recv(quit, [&](std::optional<int>) { ended++; }));
    }
    CHECK(sum == 400);
    CHECK(select(on_recv(a), on_until(1ms)) == 1);
}

TEST_CASE("an unbounded buffer between channels is a select with a nil case") {
    // The reference's sieve2.go has such a proxy.
    over_procs([](int) {
        Chan<int> in;
        Chan<int> out;
        baton::go([in, out] {
            std::deque<int> buffer;
            Chan<int> from = in;
            while (from != nil() || !buffer.empty()) {
                select(on_recv(from,
                               [&](std::optional<int> v) {
                                   if (v) {
                                       buffer.push_back(*v);
                                   } else {
                                       from = nil();
                                   }
                               }),
                       on_send(buffer.empty() ? nil() : out, buffer.empty() ? 0 : buffer.front(),
                               [&] { buffer.pop_front(); }));
            }
            out.close();
        });
        for (int i = 0; i < 1000; i++) in.send(i);
        in.close();
        int expected = 0;
        for (const int v : out) CHECK(v == expected++);
        CHECK(expected == 1000);
    });
}
