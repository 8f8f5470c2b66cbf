// SPDX-License-Identifier: Apache-2.0
//
// Context: what the reference's tests of package context ask for.
// run: tiers
#include "baton/context.hpp"

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/task_group.hpp"
#include "baton/time.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::CancelContext;
using baton::Chan;
using baton::Context;
using baton::with_cancel;
using baton::with_deadline;
using baton::with_timeout;
using baton::with_value;
using procs_test::over_procs;
using Steady = std::chrono::steady_clock;
// relaxed: counts and flags of the test's own, which are to order nothing; what it tests does.
constexpr auto kRelaxed = std::memory_order_relaxed;

struct Name {
    using type = std::string;
};
struct Number {
    using type = int;
};
struct OtherNumber {
    using type = int;
};

bool is_over(const Context& c) { return static_cast<bool>(c.err()); }

/// Over in every way one can tell, for this reason.
void check_over(const Context& c, std::errc why) {
    std::error_code ec;
    CHECK_FALSE(c.done().recv(20s, ec));
    CHECK_FALSE(ec);
    CHECK(c.err() == why);
    CHECK(c.token().stop_requested());
}
void check_not_over(const Context& c) {
    CHECK_FALSE(is_over(c));
    CHECK_FALSE(c.cause());
    CHECK_FALSE(c.token().stop_requested());
    std::error_code ec;
    CHECK_FALSE(c.done().recv(-1s, ec));
    CHECK(ec == std::errc::timed_out);
}

std::string said(const std::exception_ptr& cause) {
    try {
        if (cause) std::rethrow_exception(cause);
    } catch (const std::exception& e) {
        return e.what();
    }
    return "nothing";
}

} // namespace

TEST_CASE("the background is never over and has nothing") {
    baton::run([] {
        const Context c = Context::background();
        check_not_over(c);
        CHECK_FALSE(c.deadline());
        CHECK_FALSE(c.value<Number>());
        CHECK_FALSE(c.token().stop_possible());
    });
}

TEST_CASE("cancelling ends a context and what was derived from it, and nothing above or beside") {
    // The reference's TestWithCancel, TestParentFinishesChild and TestChildFinishesFirst.
    over_procs([](int) {
        CancelContext root = with_cancel({});
        CancelContext parent = with_cancel(root);
        CancelContext beside = with_cancel(root);
        const Context value = with_value<Number>(parent, 7);
        CancelContext child = with_cancel(value);
        CancelContext timed = with_timeout(child, 1h);
        check_not_over(timed);
        child.cancel();
        check_over(child, std::errc::operation_canceled);
        check_over(timed, std::errc::operation_canceled);
        check_not_over(value);
        check_not_over(parent);
        CancelContext late = with_cancel(value);
        parent.cancel();
        parent.cancel();
        check_over(parent, std::errc::operation_canceled);
        check_over(value, std::errc::operation_canceled);
        check_over(late, std::errc::operation_canceled);
        check_not_over(beside);
        check_not_over(root);
        // Of one that is over nothing lives.
        check_over(with_cancel(parent), std::errc::operation_canceled);
        check_over(with_timeout(value, 1h), std::errc::operation_canceled);
    });
}

TEST_CASE("a deadline ends a context, the earlier one counts") {
    // The reference's TestDeadline, TestTimeout, TestCanceledTimeout and TestLayersTimeout.
    over_procs([](int) {
        const auto start = Steady::now();
        CancelContext c = with_timeout({}, 3ms);
        CHECK(*c.deadline() >= start + 3ms);
        CHECK(*c.deadline() < start + 1h);
        check_over(c, std::errc::timed_out);
        CHECK(Steady::now() >= start + 3ms);
        CHECK(said(c.cause()).find("timed out") != std::string::npos);

        CancelContext longer = with_deadline({}, Steady::now() + 4ms);
        const Context inner = [&] {
            const CancelContext ends = with_timeout(longer, 1h);
            return with_value<Number>(ends, 1);
        }();
        check_over(inner, std::errc::operation_canceled); // its CancelContext has ended
        // What would be over at once, and was meant to last, is no program.
        static_assert(std::is_constructible_v<Context, const CancelContext&>);
        static_assert(!std::is_constructible_v<Context, CancelContext>);
        static_assert(!std::is_assignable_v<Context&, CancelContext>);
        CancelContext outer = with_timeout(longer, 1h);
        CHECK(outer.deadline() == longer.deadline());
        check_over(outer, std::errc::timed_out);

        CancelContext parent = with_timeout({}, 1h);
        CancelContext child = with_timeout(parent, 1ms);
        check_over(child, std::errc::timed_out);
        check_not_over(parent);
        parent.cancel();
        check_over(parent, std::errc::operation_canceled);
        CHECK(child.err() == std::errc::timed_out); // it stays as it was

        const CancelContext past = with_timeout({}, -1s);
        CHECK(past.err() == std::errc::timed_out); // at once
        const CancelContext past_too = with_deadline({}, std::chrono::system_clock::now() - 1h);
        CHECK(past_too.err() == std::errc::timed_out);
        check_not_over(with_timeout({}, std::chrono::hours::max()));
    });
}

TEST_CASE("the cause is told to all that ends for it") {
    // The reference's TestCause.
    over_procs([](int) {
        CancelContext parent = with_cancel({});
        CancelContext child = with_cancel(parent);
        CancelContext before = with_cancel(parent);
        before.cancel(std::make_exception_ptr(std::runtime_error("mine")));
        parent.cancel(std::make_exception_ptr(std::runtime_error("out of cheese")));
        parent.cancel(std::make_exception_ptr(std::runtime_error("too late")));
        CHECK(said(parent.cause()) == "out of cheese");
        CHECK(said(child.cause()) == "out of cheese");
        CHECK(said(before.cause()) == "mine");
        CHECK(child.err() == std::errc::operation_canceled);
        CancelContext plain = with_cancel({});
        plain.cancel();
        try {
            std::rethrow_exception(plain.cause());
        } catch (const std::system_error& e) {
            CHECK(e.code() == std::errc::operation_canceled);
        }
    });
}

TEST_CASE("values are found by the type of their key, the nearest one first") {
    // The reference's TestValues and TestAllocs' shape.
    baton::run([] {
        const Context a = with_value<Number>({}, 1);
        const Context b = with_value<Name>(a, "b");
        const CancelContext cancellable = with_cancel(b);
        const Context c = with_value<Number>(cancellable, 3);
        CHECK(*a.value<Number>() == 1);
        CHECK_FALSE(a.value<Name>());
        CHECK(*b.value<Number>() == 1);
        CHECK(*b.value<Name>() == "b");
        CHECK(*c.value<Number>() == 3);
        CHECK(*c.value<Name>() == "b");
        CHECK_FALSE(c.value<OtherNumber>());
        auto held = std::make_shared<int>(0);
        struct Held {
            using type = std::shared_ptr<int>;
        };
        std::weak_ptr<int> weak = held;
        std::optional<Context> d = with_value<Held>(c, std::move(held));
        CHECK_FALSE(weak.expired());
        d.reset();
        CHECK(weak.expired());
    });
}

TEST_CASE("each wait takes a context, and tells a deadline from a cancel") {
    over_procs([](int) {
        Chan<int> c;
        std::error_code ec;
        for (int i = 0; i < 20; i++) {
            CancelContext timed = with_timeout({}, 500us);
            CHECK_FALSE(c.recv(timed, ec));
            CHECK(ec == std::errc::timed_out); // though its token is stopped at that time, too
            CHECK_FALSE(baton::sleep_for(1h, timed, ec));
            CHECK(ec == std::errc::timed_out);
        }
        CancelContext cancelled = with_timeout({}, 1h);
        baton::WaitGroup wg;
        std::atomic<int> gave_up{0};
        for (int i = 0; i < 10; i++) {
            wg.go([&, context = Context(cancelled)] {
                std::error_code why;
                if (!c.recv(context, why) && why == std::errc::operation_canceled)
                    gave_up.fetch_add(1, kRelaxed);
            });
        }
        baton::sleep_for(1ms);
        CHECK(gave_up.load(kRelaxed) == 0);
        cancelled.cancel();
        wg.wait();
        CHECK(gave_up.load(kRelaxed) == 10);
        c = Chan<int>(1);
        c.send(1, Context());
        CHECK(c.recv(Context()) == 1);
    });
}

TEST_CASE("a child that ends first leaves nothing with its parent") {
    // The reference's TestWithCancelSimultaneouslyChildren and its map of children.
    over_procs([](int) {
        CancelContext parent = with_cancel({});
        auto counted = std::make_shared<int>(0);
        struct Counted {
            using type = std::shared_ptr<int>;
        };
        for (int i = 0; i < 1000; i++) {
            CancelContext child = with_cancel(with_value<Counted>(parent, counted));
            if (i % 2 == 0) child.cancel();
            CancelContext timed = with_timeout(child, 1h);
        }
        CHECK(counted.use_count() == 1);
        CancelContext moved = with_cancel(parent);
        CancelContext to = with_cancel(parent);
        const Context old = to;
        to = std::move(moved);
        CHECK(is_over(old));
        CHECK_FALSE(is_over(to));
        CHECK_FALSE(moved.deadline()); // NOLINT(bugprone-use-after-move): that is the test
        moved.cancel();
    });
}

TEST_CASE("parents and children that end at the same time agree") {
    // The reference's TestSimultaneousCancels and TestInterlockedCancels.
    over_procs([](int) {
        for (int round = 0; round < 50; round++) {
            std::vector<CancelContext> all;
            all.push_back(with_cancel({}));
            for (std::size_t i = 1; i < 40; i++) {
                if (i % 3 == 0) {
                    all.push_back(with_timeout(all[i / 2], 200us));
                } else {
                    all.push_back(with_cancel(all[i / 2]));
                }
            }
            baton::WaitGroup wg;
            for (auto& c : all) {
                wg.go([&c] { c.cancel(); });
                wg.go([context = Context(c)] {
                    CHECK_FALSE(context.done().recv());
                    CHECK(is_over(context));
                    CHECK(context.cause());
                });
                if (round % 2 != 0) baton::yield();
            }
            wg.wait();
            for (const auto& c : all) CHECK(is_over(c));
        }
    });
}

TEST_CASE("a context is over when a wait was given up for its deadline") {
    over_procs([](int) {
        for (int i = 0; i < 200; i++) {
            const CancelContext timed = with_timeout({}, 20us);
            const CancelContext inner = with_cancel(with_value<Name>(timed, "inner"));
            std::error_code ec;
            baton::sleep_for(10s, inner, ec);
            CHECK(ec == std::errc::timed_out);
            CHECK(inner.err() == std::errc::timed_out);
            CHECK(timed.err() == std::errc::timed_out);
            CHECK(inner.cause());
        }
    });
}

// What is used after it went is seen by the sanitizers alone.
TEST_CASE("contexts and tasks that go while their parent ends") {
    over_procs([](int) {
        CancelContext root = with_cancel({});
        std::atomic<int> ended{0}, stopped{0};
        baton::WaitGroup wg;
        for (int i = 0; i < 600; i++) {
            wg.go([&, i] {
                const CancelContext timed = with_timeout(root, i * 15us);
                const CancelContext inner = with_cancel(timed);
                const baton::Chan<int> never;
                std::error_code ec;
                (void)never.recv(inner, ec);
                ended += ec && is_over(inner);
            });
            wg.go([&, i] {
                const CancelContext timed = with_timeout(root, i * 15us);
                baton::TaskGroup group(timed.token());
                group.go([&stopped](std::stop_token stop) {
                    std::error_code ec;
                    baton::sleep_for(10s, stop, ec);
                    stopped += ec == std::errc::operation_canceled;
                });
                group.wait();
            });
        }
        baton::sleep_for(4ms);
        root.cancel();
        wg.wait();
        CHECK(ended == 600);
        CHECK(stopped == 600);
    });
}

TEST_CASE("contexts may be nested more deeply than a stack is large") {
    constexpr int kDeep = 10000; // calls of some bytes each would need more than 64 KiB
    over_procs([](int) {
        CancelContext root = with_cancel({});
        auto counted = std::make_shared<int>(0);
        struct Counted {
            using type = std::shared_ptr<int>;
        };
        Context values = with_value<Counted>(root, counted);
        for (int i = 0; i < kDeep; i++) values = with_value<Number>(values, i);
        CHECK(*values.value<Number>() == kDeep - 1);
        CHECK(values.value<Counted>());
        values = Context();
        CHECK(counted.use_count() == 1);

        std::deque<CancelContext> nested;
        nested.push_back(with_cancel(with_value<Counted>(root, counted)));
        while (nested.size() < kDeep) nested.push_back(with_cancel(nested.back()));
        const Context last = nested.back();
        root.cancel(std::make_exception_ptr(std::runtime_error("enough")));
        check_over(last, std::errc::operation_canceled);
        CHECK(said(last.cause()) == "enough");
        for (const auto& c : nested) CHECK(is_over(c));
        nested.clear();
        CHECK(counted.use_count() == 2); // by way of the last
    });
}

TEST_CASE("contexts end on plain threads, and end tasks") {
    CancelContext c = with_timeout({}, 2ms);
    CHECK_FALSE(c.done().recv());
    CHECK(c.err() == std::errc::timed_out);
    CancelContext root = with_cancel({});
    baton::TaskGroup group(root.token());
    std::atomic<int> ended{0};
    for (int i = 0; i < 4; i++) {
        group.go([&](std::stop_token stop) {
            std::error_code ec;
            baton::sleep_for(1h, stop, ec);
            ended.fetch_add(1, kRelaxed);
        });
    }
    std::thread([&] { root.cancel(); }).join();
    group.wait();
    CHECK(ended.load(kRelaxed) == 4);
}
