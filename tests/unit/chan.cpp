// SPDX-License-Identifier: Apache-2.0
//
// Channels: what the reference's tests of channels ask for where no select is needed.
// run: tiers
#include "baton/chan.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
#include "kernel/build.hpp"
#include "support/procs.hpp"

namespace {

using namespace std::chrono_literals;
using baton::Chan;
constexpr auto kRelaxed = std::memory_order_relaxed;

/// Gives a goroutine that should stay blocked every chance not to.
void let_others_run() { baton::sleep_for(1ms); }

template <class F>
bool throws_closed(F&& f) {
    try {
        f();
    } catch (const baton::ChanClosed&) {
        return true;
    }
    return false;
}

struct Empty {};

/// Counts its living, and knows when it is used after its end.
struct Counted {
    static inline std::atomic<int> alive{0};
    explicit Counted(int n) : value(n) { alive.fetch_add(1, kRelaxed); }
    Counted(Counted&& other) noexcept : value(std::exchange(other.value, -1)) {
        alive.fetch_add(1, kRelaxed);
    }
    Counted& operator=(Counted&& other) noexcept {
        value = std::exchange(other.value, -1);
        return *this;
    }
    ~Counted() {
        value = -2;
        alive.fetch_sub(1, kRelaxed);
    }
    int value;
};

} // namespace

TEST_CASE("each capacity: blocking, order, size, close") {
    // The reference's TestChan, without select.
    baton::run([] {
        for (std::size_t cap = 0; cap < 200; cap += cap < 10 ? 1 : 47) {
            Chan<int> c(cap);
            CHECK(c.capacity() == cap);
            // A receive from an empty one blocks.
            std::atomic<bool> received{false};
            baton::go([&, c] {
                if (c.recv() == 7) received.store(true, kRelaxed);
            });
            let_others_run();
            CHECK_FALSE(received.load(kRelaxed));
            CHECK_FALSE(c.try_recv());
            c.send(7);
            while (!received.load(kRelaxed)) baton::yield();
            // A send to a full one blocks.
            for (std::size_t i = 0; i < cap; i++) c.send(static_cast<int>(i));
            CHECK(c.size() == cap);
            int extra = -1;
            CHECK_FALSE(c.try_send(extra));
            std::atomic<bool> sent{false};
            baton::WaitGroup wg;
            wg.go([&, c] {
                c.send(static_cast<int>(cap));
                sent.store(true, kRelaxed);
            });
            let_others_run();
            CHECK_FALSE(sent.load(kRelaxed));
            for (std::size_t i = 0; i <= cap; i++) CHECK(c.recv() == static_cast<int>(i));
            wg.wait();
            CHECK(c.size() == 0);
            // Closed: what is in the buffer comes first, then nothing, for ever.
            for (std::size_t i = 0; i < cap; i++) c.send(static_cast<int>(i));
            c.close();
            for (std::size_t i = 0; i < cap; i++) CHECK(c.recv() == static_cast<int>(i));
            for (int i = 0; i < 3; i++) {
                CHECK_FALSE(c.recv());
                CHECK_FALSE(c.try_recv());
            }
        }
    });
}

TEST_CASE("many senders and receivers lose and double nothing") {
    baton::run([] {
        for (std::size_t cap : {0, 1, 10}) {
            constexpr int kEach = 1000;
            Chan<int> c(cap);
            std::vector<std::vector<int>> got(4);
            baton::WaitGroup receivers;
            for (auto& mine : got) {
                receivers.go([&mine, c] {
                    for (int i = 0; i < kEach; i++) mine.push_back(c.recv().value());
                });
            }
            for (int s = 0; s < 4; s++) {
                baton::go([c, s] {
                    for (int i = 0; i < kEach; i++) c.send(i * 4 + s);
                });
            }
            receivers.wait();
            std::vector<int> seen(4 * kEach);
            for (const auto& mine : got) {
                std::array<int, 4> last{-1, -1, -1, -1}; // each sender's values come in order
                for (int v : mine) {
                    seen[static_cast<std::size_t>(v)]++;
                    int& before = last[static_cast<std::size_t>(v % 4)];
                    CHECK(v / 4 > before);
                    before = v / 4;
                }
            }
            CHECK(seen == std::vector<int>(4 * kEach, 1));
        }
    });
}

TEST_CASE("the k-th receiver waiting gets the k-th value") {
    baton::run([] {
        Chan<int> c;
        std::deque<std::atomic<int>> got(10);
        baton::WaitGroup wg;
        Chan<Empty> ready(1);
        for (int k = 0; k < 10; k++) {
            wg.go([&, c, k] {
                ready.send({});
                got[static_cast<std::size_t>(k)].store(c.recv().value(), kRelaxed);
            });
            ready.recv();
            let_others_run();
        }
        for (int k = 0; k < 10; k++) c.send(k);
        wg.wait();
        for (int k = 0; k < 10; k++) CHECK(got[static_cast<std::size_t>(k)].load(kRelaxed) == k);
    });
}

TEST_CASE("a daisy chain of 10000 goroutines") {
    baton::run([] {
#if defined(BATON_TSAN)
        constexpr int kLinks = 4'000; // it keeps track of 8,128 stacks at most
#else
        constexpr int kLinks = 10'000;
#endif
        Chan<int> leftmost;
        Chan<int> right = leftmost;
        for (int i = 0; i < kLinks; i++) {
            Chan<int> left = right;
            right = Chan<int>();
            baton::go([left, right] { left.send(1 + right.recv().value()); });
        }
        baton::go([right] { right.send(1); });
        CHECK(leftmost.recv() == kLinks + 1);
    });
}

TEST_CASE("a sieve of 25 primes leaves its goroutines blocked") {
    baton::run([] {
        Chan<int> c;
        baton::go([c] {
            for (int i = 2;; i++) c.send(i);
        });
        std::vector<int> primes;
        for (int i = 0; i < 25; i++) {
            const int prime = c.recv().value();
            primes.push_back(prime);
            Chan<int> out;
            baton::go([in = c, out, prime] {
                for (int v : in)
                    if (v % prime != 0) out.send(v);
            });
            c = out;
        }
        CHECK(primes.front() == 2);
        CHECK(primes.back() == 97);
    });
}

TEST_CASE("consumers by range share the exact sum") {
    // The reference's TestMultiConsumer.
    baton::run([] {
        constexpr int kWorkers = 23;
        constexpr int kItems = 271'828;
        static constexpr std::array kPrimes{2, 3, 7, 11, 13, 17, 19, 23, 27, 31};
        Chan<int> work(kWorkers * 4);
        Chan<int> results(kWorkers * 4);
        baton::WaitGroup wg;
        for (int w = 0; w < kWorkers; w++) {
            wg.go([work, results, w] {
                int i = 0;
                for (int v : work) {
                    if (v == kPrimes[static_cast<std::size_t>((i++ + w) % 10)]) baton::yield();
                    results.send(v);
                }
            });
        }
        baton::go([&wg, work, results] {
            for (int i = 0; i < kItems; i++) work.send(kPrimes[static_cast<std::size_t>(i % 10)]);
            work.close();
            wg.wait();
            results.close();
        });
        std::int64_t expected = 0;
        for (int i = 0; i < kItems; i++) expected += kPrimes[static_cast<std::size_t>(i % 10)];
        std::int64_t sum = 0;
        int n = 0;
        for (int v : results) {
            n++;
            sum += v;
        }
        CHECK(n == kItems);
        CHECK(sum == expected);
    });
}

TEST_CASE("close wakes everybody who waits") {
    baton::run([] {
        Chan<int> empty;
        Chan<std::string> full(1);
        full.send("first");
        std::atomic<int> nothing{0};
        std::atomic<int> threw{0};
        baton::WaitGroup wg;
        for (int i = 0; i < 20; i++) {
            wg.go([&] {
                if (!empty.recv()) nothing.fetch_add(1, kRelaxed);
            });
            wg.go([&] {
                if (throws_closed([&] { full.send("too late"); })) threw.fetch_add(1, kRelaxed);
            });
        }
        let_others_run();
        empty.close();
        full.close();
        wg.wait();
        CHECK(nothing.load(kRelaxed) == 20);
        CHECK(threw.load(kRelaxed) == 20);
        CHECK(full.recv() == "first");
        CHECK_FALSE(full.recv());
    });
}

TEST_CASE("a closed channel refuses sends and a second close") {
    Chan<int> c(1);
    c.close();
    int value = 3;
    CHECK(throws_closed([&] { c.send(value); }));
    CHECK(throws_closed([&] { (void)c.try_send(value); }));
    CHECK(throws_closed([&] { c.close(); }));
    CHECK(value == 3);
}

TEST_CASE("try_send succeeds once a receiver waits, and the value is exact") {
    baton::run([] {
        for (std::size_t cap : {0, 1}) {
            Chan<std::string> c(cap);
            CHECK_FALSE(c.try_recv());
            std::atomic<bool> ok{false};
            baton::WaitGroup wg;
            wg.go([&, c] { ok.store(c.recv() == "a string of some length, surely", kRelaxed); });
            std::string value = "a string of some length, surely";
            while (!c.try_send(value)) {
                CHECK(value.size() == 31); // untouched
                baton::sleep_for(20us);
            }
            wg.wait();
            CHECK(ok.load(kRelaxed));

            wg.go([c] { c.send("back"); });
            std::optional<std::string> got;
            while (!(got = c.try_recv())) baton::sleep_for(20us);
            CHECK(got == "back");
            wg.wait();
        }
    });
}

TEST_CASE("what is in a channel being closed is still seen by try_recv") {
    // The reference's TestNonblockRecvRace.
    baton::run([] {
        for (int i = 0; i < 5000; i++) {
            Chan<int> c(1);
            c.send(1);
            baton::WaitGroup wg;
            std::atomic<bool> missed{false};
            wg.go([&] { missed.store(!c.try_recv(), kRelaxed); });
            c.close();
            wg.wait();
            CHECK_FALSE(missed.load(kRelaxed));
        }
    });
}

TEST_CASE("one goroutine cannot receive what it sends without a buffer") {
    baton::run([] {
        Chan<int> c;
        CHECK_FALSE(c.try_send(1));
        CHECK_FALSE(c.try_recv());
        CHECK(c.size() == 0);
    });
}

TEST_CASE("a channel may be destroyed by who received its last value, or its end") {
    // AddressSanitizer and ThreadSanitizer would see the sender look at it after that.
    procs_test::over_procs([](int) {
        for (int i = 0; i < 2'000; i++) {
            auto value = std::make_unique<Chan<int>>(1);
            auto end = std::make_unique<Chan<int>>();
            baton::go([&v = *value, &e = *end] {
                v.send(1);
                e.close();
            });
            if (i % 2 == 0) baton::yield();
            CHECK(value->recv() == 1);
            value.reset();
            CHECK_FALSE(end->recv());
            end.reset();
        }
    });
}

TEST_CASE("values of no size") {
    baton::run([] {
        for (std::size_t cap : {0, 1, 1000}) {
            Chan<Empty> c(cap);
            baton::go([c] {
                for (int i = 0; i < 100; i++) c.send({});
                c.close();
            });
            int n = 0;
            for ([[maybe_unused]] const Empty& e : c) n++;
            CHECK(n == 100);
        }
        Chan<Empty> huge(std::size_t{1} << 31); // takes no memory
        huge.send({});
        CHECK(huge.size() == 1);
    });
}

TEST_CASE("a buffer that cannot be is refused") {
    CHECK_THROWS_AS(Chan<std::string>(SIZE_MAX / 8), std::length_error);
}

TEST_CASE("values that can only be moved, of any size and alignment") {
    struct alignas(256) Wide {
        std::array<std::uint64_t, 40> words;
    };
    baton::run([] {
        for (std::size_t cap : {0, 3}) {
            Chan<std::unique_ptr<int>> pointers(cap);
            Chan<Wide> wides(cap);
            Chan<std::uint8_t> bytes(cap);
            Chan<std::array<std::uint64_t, 2>> pairs(cap);
            baton::go([=] {
                for (int i = 0; i < 10; i++) {
                    const auto n = static_cast<std::uint64_t>(i);
                    pointers.send(std::make_unique<int>(i));
                    Wide wide{{n, n + 1}}; // gcc has much to say of passing it by value
                    while (!wides.try_send(wide)) baton::yield();
                    bytes.send(static_cast<std::uint8_t>(i));
                    pairs.send({n, ~n});
                }
                pointers.close();
            });
            int i = 0;
            for (auto& p : pointers) {
                const auto n = static_cast<std::uint64_t>(i);
                CHECK(*p == i);
                const std::optional<Wide> wide = wides.recv();
                CHECK(reinterpret_cast<std::uintptr_t>(&*wide) % 256 == 0);
                CHECK(wide->words[1] == n + 1);
                CHECK(bytes.recv() == i);
                CHECK(pairs.recv() == std::array{n, ~n});
                i++;
            }
            CHECK(i == 10);
        }
    });
}

TEST_CASE("every value is destroyed once, those left in the buffer with the channel") {
    baton::run([] {
        REQUIRE(Counted::alive.load(kRelaxed) == 0);
        for (std::size_t cap : {0, 1, 5}) {
            Chan<Counted> c(cap);
            baton::WaitGroup wg;
            wg.go([c] {
                for (int i = 0; i < 20; i++) c.send(Counted(i));
            });
            for (int i = 0; i < 20; i++) CHECK(c.recv()->value == i);
            wg.wait();
            for (std::size_t i = 0; i < cap; i++) CHECK(c.try_send(Counted(9)));
            Counted kept(5);
            CHECK_FALSE(c.try_send(std::move(kept)));
            CHECK(kept.value == 5); // NOLINT(bugprone-use-after-move): it was not moved from
            wg.go([c] { throws_closed([&] { c.send(Counted(1)); }); });
            let_others_run();
            c.close();
            wg.wait();
        }
        CHECK(Counted::alive.load(kRelaxed) == 0);
    });
}

TEST_CASE("handles share one channel") {
    Chan<int> a(1);
    Chan<int> b = a;
    CHECK(a == b);
    CHECK_FALSE(a == Chan<int>(1));
    b.send(4);
    CHECK(a.recv() == 4);
    Chan<int> c = std::move(a);
    CHECK(c == b);
    a = c;
    CHECK(a == b);
    // A channel of channels, replies included.
    struct Request {
        int n;
        Chan<Request> reply;
    };
    baton::run([] {
        Chan<Request> server;
        baton::go([server] {
            for (auto& request : server) request.reply.send({request.n + 1, request.reply});
        });
        Chan<Request> reply;
        server.send({41, reply});
        CHECK(reply.recv()->n == 42);
        server.close();
    });
}

TEST_CASE("a handle moved from is Go's nil channel") {
    Chan<int> c(1);
    const Chan<int> taken = std::move(c);
    int value = 1;
    CHECK_FALSE(c.try_send(value));
    CHECK_FALSE(c.try_recv());
    CHECK(c.size() == 0);
    CHECK(c.capacity() == 0);
    CHECK(throws_closed([&] { c.close(); }));
    baton::run([&] {
        std::atomic<int> returned{0};
        baton::go([&returned, nil = c] {
            nil.recv();
            returned.fetch_add(1, kRelaxed);
        });
        baton::go([&returned, nil = c] {
            nil.send(1);
            returned.fetch_add(1, kRelaxed);
        });
        baton::sleep_for(5ms);
        CHECK(returned.load(kRelaxed) == 0);
    });
}

TEST_CASE("plain threads send and receive where they need not wait") {
    Chan<int> c(2);
    c.send(1);
    CHECK(c.try_send(2));
    baton::run([&] { CHECK(c.recv() == 1); });
    std::thread([c] { CHECK(c.recv() == 2); }).join();
    baton::run([&] {
        baton::WaitGroup wg;
        wg.go([c] { CHECK(c.recv() == 3); }); // woken by a thread that has no processor
        let_others_run();
        baton::blocking([&] { std::thread([c] { CHECK(c.try_send(3)); }).join(); });
        wg.wait();
    });
}
