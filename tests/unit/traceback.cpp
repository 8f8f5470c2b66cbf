// SPDX-License-Identifier: Apache-2.0
//
// What a dump says of goroutines: their state, for how long, their frames and lines, who made them.
// Taken by stack_dump, as the process goes on; tests/unit/crash.cpp has those of processes that
// end.
// run: procs
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/galloc.hpp"
#include "runtime/sched.hpp"
#include "support/child.hpp"
#include "support/dumps.hpp"
#include "support/procs.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::WaitGroup;
using child_process::count;
using dumps_test::about;
using dumps_test::check_shows;
using dumps_test::Doing;
using dumps_test::dump_of;
using dumps_test::dump_once;
using dumps_test::has;
using procs_test::over_procs;

namespace {
std::string here(int line) { return "/tests/unit/traceback.cpp:" + std::to_string(line); }
} // namespace

// Not static: their names are to be found on the stack.
constexpr int kReceiveLine = __LINE__ + 2;
[[gnu::noinline]] void receive_in_here(const Chan<int>& c) {
    (void)c.recv();
    asm volatile(""); // no tail call
}
constexpr int kInlineLine = __LINE__ + 2;
[[gnu::always_inline]] inline void inlined_into(const Chan<int>& c) {
    receive_in_here(c);
    asm volatile("");
}
constexpr int kCallLine = __LINE__ + 2;
[[gnu::noinline]] void calls_inlined(const Chan<int>& c) {
    inlined_into(c);
    asm volatile("");
}
std::atomic<bool> stop_hogs{false};
[[gnu::noinline]] void hog_in_here() {
    while (!stop_hogs.load()) {
    }
    asm volatile("");
}
[[gnu::noinline]] void block_in_here(int fd) {
    baton::blocking([fd] {
        char c;
        return ::read(fd, &c, 1);
    });
    asm volatile("");
}

TEST_CASE("traceback: frames have names, files and lines, inlined ones their own") {
    over_procs([](int) {
        const Chan<int> c;
        Doing g([c] { calls_inlined(c); });
        const std::string text = dump_of(g.id(), "chan receive");
        CHECK(text.starts_with("goroutine " + std::to_string(g.id()) + " [chan receive]:\n"));
        check_shows(text, "\nreceive_in_here(baton::Chan<int> const&)\n\t/");
        check_shows(text, here(kReceiveLine) + " +0x");
#if defined(__OPTIMIZE__)
        check_shows(text, "\ninlined_into(baton::Chan<int> const&) (inlined)\n\t/");
        check_shows(text, here(kInlineLine) + "\n");
#endif
        check_shows(text, "\ncalls_inlined(baton::Chan<int> const&)\n\t/");
        check_shows(text, here(kCallLine) + " +0x");
        check_shows(text, "\ncreated by ");
        check_shows(text, " in goroutine " + std::to_string(baton::goid()) + "\n\t/");
        CHECK(!has(text, "baton::rt::"));
        CHECK(!has(text, "std::__invoke"));
        c.send(1);
    });
}

TEST_CASE("traceback: the caller comes first, and all=false shows nobody else") {
    baton::run([] {
        while (baton::stats().goroutines > 1) baton::yield(); // those of before are ending
        const Chan<int> c;
        Doing g([c] { (void)c.recv(); });
        const std::string head = "goroutine " + std::to_string(baton::goid()) + " [running]:\n";
        const std::string all = baton::stack_dump();
        CHECK(all.starts_with(head));
        CHECK(count(all, "\ngoroutine ") == 1);
        const std::string own = baton::stack_dump(false);
        CHECK(own.starts_with(head));
        check_shows(own, "baton::stack_dump[abi:cxx11](bool)\n\t");
        check_shows(own, "/tests/unit/traceback.cpp:");
        CHECK(count(own, "goroutine ") == 1);
        c.send(1);
    });
    const std::string plain = baton::stack_dump(false);
    CHECK(plain.starts_with("thread " + std::to_string(::gettid()) + " [running]:\n"));
    check_shows(plain, "/tests/unit/traceback.cpp:");
}

TEST_CASE("traceback: each park site has a reason of its own") {
    over_procs([](int) {
        const Chan<int> c, full;
        baton::Mutex mutex;
        mutex.lock();
        WaitGroup wg;
        wg.add(1);
        baton::Listener listener = baton::Listener::listen("tcp", "127.0.0.1:0");
        Doing receives([=] { (void)c.recv(); });
        Doing sends([=] { full.send(1); });
        Doing locks([&] {
            mutex.lock();
            mutex.unlock();
        });
        Doing waits([&] { wg.wait(); });
        const auto accept = [&] {
            try {
                (void)listener.accept();
            } catch (const std::system_error&) { // closed
            }
        };
        Doing accepts(accept);
        Doing accepts_too(accept);
        std::atomic<bool> go_on{false};
        Doing sleeps([&] {
            while (!go_on.load()) baton::sleep_for(50ms);
        });
        const std::pair<std::uint64_t, std::string> reasons[] = {
            {receives.id(), "chan receive"},     {sends.id(), "chan send"},
            {locks.id(), "sync.Mutex.Lock"},     {sleeps.id(), "sleep"},
            {waits.id(), "sync.WaitGroup.Wait"}, {accepts.id(), "IO "},
            {accepts_too.id(), "IO "},
        };
        const std::string all = dump_once([&](const std::string& dump) {
            return std::ranges::all_of(
                reasons, [&](const auto& r) { return has(about(dump, r.first), "[" + r.second); });
        });
        for (const auto& [goid, reason] : reasons) {
            if (reason == "IO ") continue;
            const std::string head = "goroutine " + std::to_string(goid) + " [" + reason + "]:\n";
            check_shows(about(all, goid), head);
        }
        const std::string one = about(all, accepts.id());
        const std::string other = about(all, accepts_too.id());
        const bool in_turn = (has(one, "[IO wait]") && has(other, "[IO read lock]")) ||
                             (has(one, "[IO read lock]") && has(other, "[IO wait]"));
        CHECK(in_turn);
        go_on.store(true);
        listener.close();
        wg.done();
        mutex.unlock();
        c.send(1);
        (void)full.recv();
    });
}

TEST_CASE("traceback: no two reasons read alike") {
    using baton::rt::WaitReason;
    std::set<std::string> texts;
    constexpr int kLast = static_cast<int>(WaitReason::kStoppingTheWorld);
    for (int reason = 1; reason <= kLast; reason++)
        texts.insert(to_string(static_cast<WaitReason>(reason)));
    CHECK(texts.size() == kLast);
    CHECK_FALSE(texts.contains("?"));
    CHECK_FALSE(texts.contains(""));
}

TEST_CASE("traceback: a goroutine locked to its thread shows where it waits") {
    over_procs([](int) {
        const Chan<int> c;
        Doing g([c] {
            baton::lock_os_thread();
            receive_in_here(c);
            baton::unlock_os_thread();
        });
        const std::string text = dump_of(g.id(), "chan receive");
        check_shows(text, " [chan receive, locked to thread]:\n");
        check_shows(text, "\nreceive_in_here(baton::Chan<int> const&)\n\t");
        c.send(1);
    });
}

namespace {
/// gp, as if it had begun to wait so long ago.
void age(std::uint64_t goid, std::uint32_t seconds) {
    struct To {
        std::uint64_t goid;
        std::uint32_t seconds;
    } to{goid, seconds};
    const baton::rt::Entry entry;
    baton::rt::each_g(
        [](baton::rt::G* gp, void* arg) {
            const auto* t = static_cast<const To*>(arg);
            if (gp->goid == t->goid) gp->waitsince.fetch_sub(t->seconds);
        },
        &to);
}
} // namespace

TEST_CASE("traceback: the minutes it waits, from one on") {
    over_procs([](int) {
        const Chan<int> c;
        Doing g([c] { (void)c.recv(); });
        check_shows(dump_of(g.id(), "chan receive"), "[chan receive]:");
        age(g.id(), 57);
        check_shows(dump_of(g.id(), "chan receive"), "[chan receive]:");
        age(g.id(), 5 * 60);
        check_shows(dump_of(g.id(), "chan receive"), "[chan receive, 5 minutes]:");
        c.send(1);
    });
}

TEST_CASE("traceback: a plain thread that waits is there with its reason") {
    const Chan<int> c;
    std::atomic<int> tid{0};
    std::thread thread([&, c] {
        tid.store(::gettid());
        (void)c.recv();
    });
    std::string text;
    while (!has(text, "\nthread " + std::to_string(tid.load()) + " [chan receive]\n")) {
        std::this_thread::sleep_for(1ms);
        text = baton::stack_dump();
    }
    c.send(1);
    thread.join();
    CHECK(!has(baton::stack_dump(), "\nthread "));
}

TEST_CASE("traceback: one that computes is stopped where it is, or runs until it comes by") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delays the signal that stops one which computes\n");
#else
    over_procs([](int) {
        stop_hogs.store(false);
        {
            Doing a(hog_in_here);
            Doing b(hog_in_here);
            const std::string all = baton::stack_dump();
            for (const std::uint64_t id : {a.id(), b.id()}) {
                const std::string text = about(all, id);
                check_shows(text, "\nhog_in_here()\n\t");
                CHECK(!has(text, "locked to thread"));
            }
            stop_hogs.store(true);
        }
    });
#endif
}

TEST_CASE("traceback: one in a call is asked, where its call does not end for it") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delays the signal that asks one in a call\n");
#else
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    over_procs([&](int) {
        Doing g([&] { block_in_here(ends[0]); });
        const std::string text = dump_of(g.id(), "syscall");
        check_shows(text, "\nblock_in_here(int)\n\t");
        REQUIRE(::write(ends[1], "x", 1) == 1); // the read has not ended for it
    });
    over_procs([&](int) {
        std::atomic<int> slept{1};
        Doing g([&] {
            timespec time{0, 200'000'000};
            slept.store(baton::blocking([&] { return ::nanosleep(&time, nullptr); }));
        });
        baton::sleep_for(20ms);
        const std::string text = about(baton::stack_dump(), g.id());
        if (!text.empty()) check_shows(text, "stack unavailable\n");
        while (slept.load() == 1) baton::sleep_for(1ms);
        CHECK(slept.load() == 0);
    });
    ::close(ends[0]);
    ::close(ends[1]);
#endif
}

namespace {

/// A shared library made for the test, and gone with it.
class Made {
public:
    explicit Made(const char* name)
        : stem_("/tmp/baton-" + std::string(name) + "-" + std::to_string(::getpid())) {
        std::ofstream(source()) << "extern \"C\" void loaded_calls(void (*f)(void*), void* arg) {\n"
                                   "    f(arg);\n"
                                   "    asm volatile(\"\");\n"
                                   "}\n";
        made_ = run("g++ -shared -fPIC -O1 -g -o " + object() + " " + source());
        if (!made_) std::printf("skip: no compiler for the library to load\n");
    }
    Made(const Made&) = delete;
    Made& operator=(const Made&) = delete;
    ~Made() {
        for (const std::string& file : {source(), object(), debug()}) ::unlink(file.c_str());
    }
    explicit operator bool() const { return made_; }
    std::string source() const { return stem_ + ".cpp"; }
    std::string object() const { return stem_ + ".so"; }
    std::string debug() const { return object() + ".debug"; }
    static bool run(const std::string& command) { return std::system(command.c_str()) == 0; }

    /// What a dump says of a goroutine that waits in a call from there.
    std::string dump() const {
        void* library = ::dlopen(object().c_str(), RTLD_NOW);
        REQUIRE(library != nullptr);
        using Calls = void (*)(void (*f)(void*), void* arg);
        const auto calls = reinterpret_cast<Calls>(::dlsym(library, "loaded_calls"));
        REQUIRE(static_cast<bool>(calls));
        std::string text;
        baton::run([&] {
            Chan<int> c;
            Doing g([&] {
                calls([](void* arg) { receive_in_here(*static_cast<Chan<int>*>(arg)); }, &c);
            });
            text = dump_of(g.id(), "chan receive");
            c.send(1);
        });
        return text;
    }

private:
    std::string stem_;
    bool made_ = false;
};

} // namespace

TEST_CASE("traceback: functions and lines of what was loaded with dlopen") {
    const Made library("dlopen");
    if (!library) return;
    check_shows(library.dump(), "\nloaded_calls\n\t" + library.source() + ":2 +0x");
}

TEST_CASE("traceback: lines come from a separate debug file") {
    const Made library("debuglink");
    if (!library) return;
    REQUIRE(Made::run("objcopy --only-keep-debug " + library.object() + " " + library.debug()));
    REQUIRE(Made::run("strip -g " + library.object()));
    REQUIRE(Made::run("objcopy --add-gnu-debuglink=" + library.debug() + " " + library.object()));
    check_shows(library.dump(), "\nloaded_calls\n\t" + library.source() + ":2 +0x");
}

TEST_CASE("traceback: without debug information there are symbols and offsets") {
    const Made library("stripped");
    if (!library) return;
    REQUIRE(Made::run("strip -g " + library.object()));
    const std::string text = library.dump();
    check_shows(text, "\nloaded_calls+0x");
    check_shows(text, "\n\t" + library.object() + "+0x");
    CHECK(!has(text, library.source()));
}

TEST_CASE("traceback: from several goroutines and threads at once") {
    over_procs([](int) {
        const Chan<int> c;
        Doing g([c] { receive_in_here(c); });
        check_shows(dump_of(g.id(), "chan receive"), "\nreceive_in_here(");
        WaitGroup wg;
        std::atomic<int> good{0};
        for (int i = 0; i < 4; i++) {
            wg.go([&] { good += has(about(baton::stack_dump(), g.id()), "\nreceive_in_here("); });
        }
        wg.wait();
        CHECK(good.load() == 4);
        c.send(1);
    });
}

TEST_CASE("traceback: a deep stack shows both its ends") {
    struct Deep {
        [[gnu::noinline]] static int go_down(int n, const Chan<int>& c) {
            if (n == 0) return *c.recv();
            const int r = go_down(n - 1, c);
            asm volatile("");
            return r + 1;
        }
    };
    baton::run([] {
        const Chan<int> c;
        WaitGroup wg;
        std::atomic<std::uint64_t> id{0};
        wg.add();
        baton::go({.stack_bytes = 1 << 20}, [&] {
            id.store(baton::goid());
            (void)Deep::go_down(400, c);
            wg.done();
        });
        while (id.load() == 0) baton::yield();
        const std::string text = dump_of(id.load(), "chan receive");
        check_shows(text, " frames elided...\n");
        const std::size_t shown = count(text, "::go_down(");
        CHECK(shown >= 80);
        CHECK(shown <= 120);
        check_shows(text, "{lambda");
        c.send(1);
        wg.wait();
    });
}

TEST_CASE("traceback: of many goroutines the oldest, and how many more there are") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer has no room for more than 8128 goroutines\n");
#else
    constexpr int kMany = 100'000;
    baton::run([] {
        const Chan<int> c;
        WaitGroup wg;
        for (int i = 0; i < kMany; i++) wg.go([c] { (void)c.recv(); });
        baton::sleep_for(10ms);
        const std::string all = baton::stack_dump();
        CHECK(count(all, "\ngoroutine ") == 10'000);
        CHECK(has(all.substr(all.size() - 200),
                  "\n..." + std::to_string(kMany - 10'000) + " more goroutines left out...\n"));
        for (int i = 0; i < kMany; i++) c.send(1);
        wg.wait();
    });
#endif
}
