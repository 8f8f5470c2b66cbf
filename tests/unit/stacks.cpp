// SPDX-License-Identifier: Apache-2.0
//
// A goroutine apart from its stack: who has one, who gets whose, and that all who were promised one
// find one.
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include <sys/resource.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/entry.hpp"
#include "runtime/galloc.hpp"
#include "runtime/sched.hpp"
#include "support/child.hpp"
#include "support/procs.hpp"

using namespace child_process;
using baton::Chan;
using baton::WaitGroup;
using procs_test::over_procs;
namespace rt = baton::rt;

namespace {

struct Count {
    long gs = 0;      // there ever were
    long waiting = 0; // runnable or parked
    long stacks = 0;  // of those
};

/// Those of goroutines that do not run; nothing else may be under way.
Count count() {
    Count c;
    const rt::Entry entry;
    rt::each_g(
        [](rt::G* gp, void* arg) {
            auto& to = *static_cast<Count*>(arg);
            const rt::GStatus status = gp->status.load();
            to.gs++;
            if (status != rt::GStatus::kRunnable && status != rt::GStatus::kWaiting) return;
            to.waiting++;
            to.stacks += gp->stack != nullptr;
        },
        &c);
    return c;
}

template <std::size_t Bytes, std::size_t Align>
struct alignas(Align) Callable {
    std::array<unsigned char, Bytes> data;
    std::atomic<int>* good;
    WaitGroup* wg;

    void operator()() const {
        const auto* g = reinterpret_cast<const std::byte*>(rt::getg());
        const auto* self = reinterpret_cast<const std::byte*>(this);
        const bool inside = self >= g && self < g + sizeof(rt::G);
        baton::yield();
        const bool whole = std::all_of(data.begin(), data.end(),
                                       [](unsigned char byte) { return byte == Bytes % 251; });
        const bool aligned = reinterpret_cast<std::uintptr_t>(this) % Align == 0;
        const bool fits = sizeof(Callable) <= 64 && Align <= 64;
        good->fetch_add(whole && aligned && inside == fits);
        wg->done();
    }
};

/// Twenty of them.
template <std::size_t Bytes, std::size_t Align>
void start(WaitGroup& wg, std::atomic<int>& good) {
    Callable<Bytes, Align> callable{{}, &good, &wg};
    callable.data.fill(Bytes % 251);
    for (int i = 0; i < 20; i++) {
        wg.add(1);
        baton::go(callable);
    }
}

} // namespace

TEST_CASE("stacks: what has not begun has none, and what ends leaves its own to the next") {
    constexpr int kGoroutines = 1000;
    constexpr int kFew = 8;
    baton::run([] {
        baton::set_max_procs(1);
        std::set<const void*> stacks;
        const Count before = count();
        WaitGroup wg;
        Count born;
        for (int attempt = 0; attempt < 100; attempt++) { // a slice may end midway
            stacks.clear();
            for (int i = 0; i < kFew; i++) wg.go([&] { stacks.insert(rt::getg()->stack); });
            born = count();
            wg.wait();
            if (born.waiting == before.waiting + kFew && stacks.size() == 1) break;
        }
        CHECK(born.waiting == before.waiting + kFew);
        CHECK(born.stacks == before.stacks);
        CHECK(stacks.size() == 1);
        // But for one that has less of it to leave.
        std::ptrdiff_t below = 0;
        wg.go([&] {
            below = rt::stack_top(rt::getg()->stack) -
                    static_cast<std::byte*>(__builtin_frame_address(0));
        });
        wg.go([large = std::array<char, 8'000>{}] { CHECK(large[0] == 0); }); // is next
        wg.wait();
        CHECK(below > 0);
        CHECK(below < 4000);
        // One that parks keeps its own.
        stacks.clear();
        Chan<int> gate;
        for (int i = 0; i < kGoroutines; i++) {
            wg.go([&, gate] {
                stacks.insert(rt::getg()->stack);
                (void)gate.recv();
            });
        }
        while (stacks.size() < kGoroutines) baton::yield();
        const Count parked = count();
        CHECK(parked.stacks == before.stacks + kGoroutines);
        gate.close();
        wg.wait();
        CHECK(count().stacks == before.stacks);
    });
}

TEST_CASE("stacks: a callable of any size lies where it fits, aligned, and ends once") {
    over_procs([](int) {
        std::atomic<int> good{0};
        WaitGroup wg;
        start<1, 8>(wg, good);
        start<40, 16>(wg, good);
        start<48, 8>(wg, good); // just fits
        start<48, 64>(wg, good);
        start<49, 8>(wg, good);
        start<8, 128>(wg, good);
        start<300, 1024>(wg, good);
        start<9000, 8>(wg, good);
        wg.wait();
        CHECK(good.load() == 8 * 20);

        int some = 0;
        std::atomic<int> ended{0};
        struct Once {
            std::atomic<int>* ended;
            void operator()(const int*) const { ended->fetch_add(1); }
        };
        for (int i = 0; i < 100; i++) {
            std::unique_ptr<int, Once> own(&some, Once{&ended});
            wg.go([own = std::move(own)] { baton::yield(); });
            std::unique_ptr<int, Once> more(&some, Once{&ended});
            wg.go([more = std::move(more), room = std::array<char, 200>{}] {
                CHECK(room[199] == 0);
            });
        }
        wg.wait();
        while (ended.load() < 200) baton::yield(); // the last callables end behind done()
        CHECK(ended.load() == 200);
    });
}

namespace {
template <std::size_t Bytes>
struct CopyThrows {
    std::array<char, Bytes> bytes{};
    CopyThrows() = default;
    CopyThrows(const CopyThrows&) { throw std::runtime_error("copy"); }
};
} // namespace

TEST_CASE("stacks: a callable whose copy throws leaves nothing behind") {
    baton::run([] {
        baton::set_max_procs(1);
        const CopyThrows<1> small;
        const CopyThrows<500> large;
        const auto fail = [&] {
            CHECK_THROWS_AS(baton::go([](const auto&) {}, small), std::runtime_error);
            CHECK_THROWS_AS(baton::go([](const auto&) {}, large), std::runtime_error);
        };
        fail();
        for (int i = 0; i < 100'000 && count().waiting != 0; i++) baton::yield(); // of cases before
        const Count before = count();
        const std::uint32_t stacks = rt::getm()->p->stackfree.n;
        for (int i = 0; i < 500; i++) fail();
        const Count after = count();
        CHECK(after.gs == before.gs);
        CHECK(after.waiting == before.waiting);
        CHECK(rt::getm()->p->stackfree.n == stacks);
    });
}

TEST_CASE("stacks: StackList gives what it was given, a batch at a time too") {
    std::deque<rt::StackSlot> slots(100);
    std::vector<rt::StackSlot*> out;
    for (rt::StackSlot& s : slots) out.push_back(&s);
    rt::StackList list;
    std::minstd_rand chance(7);
    std::set<rt::StackSlot*> in;
    const auto take_out = [&](rt::StackSlot* s) {
        REQUIRE(in.erase(s) == 1);
        out.push_back(s);
    };
    for (int step = 0; step < 100'000; step++) {
        const std::uint32_t n = std::min<std::size_t>(chance() % 12 + 1, out.size());
        switch (chance() % 4) {
        case 0:
            if (out.empty()) break;
            in.insert(out.back());
            list.push(out.back());
            out.pop_back();
            break;
        case 1: {
            if (out.empty()) break;
            rt::StackSlot* first = nullptr;
            for (std::uint32_t i = 0; i < n; i++) {
                out.back()->next = first;
                first = out.back();
                in.insert(first);
                out.pop_back();
            }
            list.push_batch(first, n);
            break;
        }
        case 2: {
            rt::StackSlot* s = list.pop_batch();
            REQUIRE((s == nullptr) == in.empty());
            std::uint32_t left = s ? s->n : 0;
            for (; s; s = s->next, left--) take_out(s);
            REQUIRE(left == 0);
            break;
        }
        default: {
            rt::StackSlot* s = list.pop();
            REQUIRE((s == nullptr) == in.empty());
            if (s) take_out(s);
        }
        }
        REQUIRE(list.size() == in.size());
    }
}

namespace {

/// Starts goroutines until memory for one is refused. Then all of them run, and wait, each on a
/// stack of its own.
void start_until_refused(int most) {
    baton::run([most] {
        Chan<int> gate;
        std::atomic<int> begun{0};
        WaitGroup wg;
        int started = 0;
        std::error_code why;
        while (!why && started < most) {
            try {
                wg.go([&, gate] {
                    begun.fetch_add(1);
                    (void)gate.recv();
                });
                started++;
            } catch (const std::system_error& e) {
                why = e.code();
            }
        }
        CHECK(why.value() == ENOMEM);
        CHECK(begun.load() < started);
        while (begun.load() < started) baton::yield();
        gate.close();
        wg.wait();
        std::fprintf(stderr, "started %d\n", started);
    });
    reached();
}

int started_in(const Child& child) {
    const std::size_t at = child.output.find("started ");
    return at == std::string::npos ? 0 : std::stoi(child.output.substr(at + 8));
}

void check_reached(const Child& child) {
    INFO(child.output);
    CHECK(child.exited(0));
    CHECK(child.has(kReached));
    CHECK(!child.has("no memory"));
}

} // namespace

TEST_CASE("child: no address space" * doctest::skip()) {
    baton::run([] {});
    std::ifstream statm("/proc/self/statm");
    rlim_t pages = 0;
    statm >> pages;
    const rlimit limit{pages * 4096 + (100 << 20), RLIM_INFINITY};
    REQUIRE(::setrlimit(RLIMIT_AS, &limit) == 0);
    start_until_refused(50'000);
}

TEST_CASE("child: no more mappings" * doctest::skip()) { start_until_refused(50'000); }

TEST_CASE("stacks: whoever was started finds a stack when no more are to be had") {
#if defined(BATON_ASAN) || defined(BATON_TSAN)
    std::printf("skip: a sanitizer needs all the address space there is\n");
#else
    for (const char* guards : {"BATON_DISABLE=", "BATON_DISABLE=guard_pages"}) {
        const Child child = run_child("no address space", {guards, "BATON_MAXPROCS=1"});
        check_reached(child);
        CHECK(started_in(child) > 900); // a slab of 64 MiB
    }
    long most = 0;
    std::ifstream("/proc/sys/vm/max_map_count") >> most;
    if (most > 100'000) {
        std::printf("skip: vm.max_map_count is %ld, too much to use up\n", most);
        return;
    }
    const Child child =
        run_child("no more mappings", {"BATON_DISABLE=guard_pages", "BATON_MAXPROCS=1"});
    check_reached(child);
    CHECK(started_in(child) > most / 2 - 1000);
#endif
}

namespace {
[[gnu::noinline]] int recurse(int depth) {
    volatile char frame[512];
    frame[0] = static_cast<char>(depth);
    return depth == 1'000'000 ? 0 : recurse(depth + 1) + frame[0];
}
} // namespace

TEST_CASE("child: overflows what another left it" * doctest::skip()) {
    baton::run([] {
        const void* left = nullptr;
        WaitGroup wg;
        wg.go([&] {
            REQUIRE(left == rt::getg()->stack);
            std::fprintf(stderr, "number %llu\n", static_cast<unsigned long long>(baton::goid()));
            return recurse(0);
        });
        wg.go([&] { left = rt::getg()->stack; }); // is next, and so first
        wg.wait();
    });
    reached();
}

TEST_CASE("stacks: an overflow names who has the stack now") {
    const Child child = run_child("overflows what another left it", {"BATON_MAXPROCS=1"});
    INFO(child.output);
    CHECK(child.exited(2));
    const std::size_t at = child.output.find("number ");
    REQUIRE(at != std::string::npos);
    const std::string number = std::to_string(std::stoull(child.output.substr(at + 7)));
    CHECK(child.has("panic: goroutine " + number + " overflowed its stack of 64 KiB"));
}

TEST_CASE("stacks: a dump shows those that have not begun with who made them") {
    baton::run([] {
        baton::set_max_procs(1);
        std::string text;
        std::size_t at = std::string::npos;
        // Again if our slice was over before the dump was taken.
        for (int i = 0; i < 100 && at == std::string::npos; i++) {
            std::atomic<std::uint64_t> goid{0};
            WaitGroup wg;
            wg.go([&] { goid.store(baton::goid()); });
            text = baton::stack_dump();
            wg.wait();
            at = text.find("goroutine " + std::to_string(goid.load()) + " [runnable]:\n");
        }
        INFO(text);
        REQUIRE(at != std::string::npos);
        const std::string own = text.substr(at, text.find("\n\n", at) - at);
        const std::string second = own.substr(own.find('\n') + 1);
        CHECK(second.starts_with("created by "));
    });
}
