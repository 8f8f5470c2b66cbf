// SPDX-License-Identifier: Apache-2.0
//
// Two hundred goroutines on few processors: half of them block in the kernel all the time, the rest
// compute, sleep and talk to each other. Every exchange is counted by both sides.
// run: tiers
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <linux/futex.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "kernel/cpus.hpp"
#include "runtime/sched.hpp"

using namespace std::chrono_literals;
using baton::Chan;
using baton::WaitGroup;

namespace {

bool soak() { return std::getenv("SOAK") != nullptr; }

#if defined(BATON_TSAN)
constexpr int kSlow = 5; // each round takes ten times as long, and everybody must have had one
#else
constexpr int kSlow = 1;
#endif

/// One run of the mix: what all goroutines share.
struct Mix {
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> wrong{0};  // exchanges that went wrong
    std::atomic<std::uint64_t> lost{0};   // counts of two sides that differ
    std::atomic<std::uint64_t> rounds{0}; // what was done in all
    std::atomic<std::uint64_t> idlers{0}; // goroutines that did nothing
    WaitGroup wg;

    void done(std::uint64_t n) {
        rounds.fetch_add(n);
        idlers.fetch_add(n == 0);
    }
};

/// A counter goes to and fro through two pipes.
struct Pipes {
    int there[2], back[2];
    std::uint64_t sent = 0, echoed = 0;
    Pipes() {
        REQUIRE(::pipe(there) == 0);
        REQUIRE(::pipe(back) == 0);
    }
    ~Pipes() {
        for (const int fd : {there[0], there[1], back[0], back[1]}) ::close(fd);
    }
};

bool send_number(int fd, std::uint64_t n) {
    return baton::blocking([&] { return ::write(fd, &n, sizeof n); }) == sizeof n;
}
bool receive_number(int fd, std::uint64_t& n) {
    return baton::blocking([&] { return ::read(fd, &n, sizeof n); }) == sizeof n;
}

constexpr std::uint64_t kOver = ~0ull;

void start_pipes(Mix& mix) {
    auto pipes = std::make_shared<Pipes>();
    mix.wg.go([&mix, pipes] {
        while (!mix.stop.load()) {
            std::uint64_t back = 0;
            mix.wrong.fetch_add(!send_number(pipes->there[1], pipes->sent));
            mix.wrong.fetch_add(!receive_number(pipes->back[0], back));
            mix.wrong.fetch_add(back != pipes->sent + 1);
            pipes->sent++;
        }
        mix.wrong.fetch_add(!send_number(pipes->there[1], kOver));
        std::uint64_t echoed = 0;
        mix.wrong.fetch_add(!receive_number(pipes->back[0], echoed));
        mix.lost.fetch_add(echoed != pipes->sent);
        mix.done(pipes->sent);
    });
    mix.wg.go([&mix, pipes] {
        for (std::uint64_t n = 0;;) {
            mix.wrong.fetch_add(!receive_number(pipes->there[0], n));
            if (n == kOver) break;
            mix.wrong.fetch_add(n != pipes->echoed);
            pipes->echoed++;
            mix.wrong.fetch_add(!send_number(pipes->back[1], n + 1));
        }
        mix.wrong.fetch_add(!send_number(pipes->back[1], pipes->echoed));
    });
}

/// Two take turns on a futex: even for one, odd for the other.
struct Turns {
    std::atomic<std::uint32_t> word{0};
    std::atomic<bool> over{false};
    std::uint64_t moves[2] = {};
};

void take_turns(Mix& mix, Turns& t, unsigned me) {
    for (;;) {
        const std::uint32_t at = t.word.load();
        if (at % 2 != me) {
            baton::blocking(
                [&] { return ::syscall(SYS_futex, &t.word, FUTEX_WAIT_PRIVATE, at, nullptr); });
            continue;
        }
        if (t.over.load()) return;
        if (mix.stop.load()) t.over.store(true);
        t.moves[me]++;
        std::uint32_t expect = at;
        mix.wrong.fetch_add(!t.word.compare_exchange_strong(expect, at + 1));
        baton::blocking([&] { return ::syscall(SYS_futex, &t.word, FUTEX_WAKE_PRIVATE, 1); });
        if (t.over.load()) return;
    }
}

void start_turns(Mix& mix) {
    auto turns = std::make_shared<Turns>();
    auto left = std::make_shared<std::atomic<int>>(2);
    for (const unsigned me : {0u, 1u}) {
        mix.wg.go([&mix, turns, left, me] {
            take_turns(mix, *turns, me);
            if (left->fetch_sub(1) != 1) return;
            const std::uint64_t sum = turns->moves[0] + turns->moves[1];
            mix.lost.fetch_add(sum != turns->word.load());
            mix.done(sum);
        });
    }
}

void start_channel(Mix& mix, std::size_t capacity) {
    Chan<std::uint64_t> channel(capacity);
    auto sent = std::make_shared<std::uint64_t>(0);
    mix.wg.go([&mix, channel, sent] {
        while (!mix.stop.load()) {
            channel.send(*sent);
            if (++*sent % 16 == 0) baton::sleep_for(100us);
        }
        channel.close();
    });
    mix.wg.go([&mix, channel, sent] {
        std::uint64_t n = 0;
        for (const std::uint64_t value : channel) mix.wrong.fetch_add(value != n++);
        mix.lost.fetch_add(n != *sent);
        mix.done(n);
    });
}

/// One that does `step` until the end.
template <class F>
void start_loop(Mix& mix, F step) {
    mix.wg.go([&mix, step] {
        std::uint64_t n = 0;
        while (!mix.stop.load()) {
            step();
            n++;
        }
        mix.done(n);
    });
}

void start_spawner(Mix& mix) {
    start_loop(mix, [&mix] {
        WaitGroup wg;
        std::atomic<int> ran{0};
        for (int i = 0; i < 20; i++) {
            wg.go([&, i] {
                if (i % 4 == 0) baton::blocking([] { ::usleep(50); });
                ran.fetch_add(1);
            });
        }
        wg.wait();
        mix.lost.fetch_add(ran.load() != 20);
        baton::sleep_for(500us);
    });
}

void start_all(Mix& mix) {
    for (int i = 0; i < 25; i++) {
        start_pipes(mix);
        start_turns(mix);
        start_loop(mix, [] { baton::blocking([] { ::usleep(200); }); });
        start_loop(mix, [] { baton::sleep_for(300us); });
    }
    for (int i = 0; i < 20; i++) start_channel(mix, static_cast<std::size_t>(i % 4));
    for (int i = 0; i < 5; i++) {
        start_spawner(mix);
        start_loop(mix, [] {
            for (int n = 0; n < 20'000; n++) __builtin_ia32_pause();
            baton::yield();
        });
    }
}

/// The mix for so long on so many processors, and the proof that nothing was lost.
void run_mix(int procs, std::chrono::milliseconds how_long) {
    std::fprintf(stderr, "%d processors, %ld ms\n", procs, static_cast<long>(how_long.count()));
    auto mix = std::make_unique<Mix>();
    const baton::Stats before = baton::stats();
    baton::run([&] {
        baton::set_max_procs(procs);
        start_all(*mix);
        baton::sleep_for(how_long);
        mix->stop.store(true);
        mix->wg.wait();
    });
    const baton::Stats after = baton::stats();
    std::fprintf(stderr,
                 "  %lu rounds, %lu handoffs (understudy %lu, scan %lu, ring %lu, sysmon %lu)"
                 ", %lu threads at most\n",
                 mix->rounds.load(), after.handoffs - before.handoffs,
                 after.handoffs_understudy - before.handoffs_understudy,
                 after.handoffs_scan - before.handoffs_scan,
                 after.handoffs_ringbuf - before.handoffs_ringbuf,
                 after.handoffs_sysmon - before.handoffs_sysmon, after.threads_peak);
    CHECK(mix->wrong.load() == 0);
    CHECK(mix->lost.load() == 0);
    CHECK(mix->idlers.load() == 0);          // everybody got on
    CHECK(after.handoffs > before.handoffs); // the premise
}

/// Other people's processes, one on each CPU, that never sleep.
class Neighbours {
public:
    Neighbours() {
        const pid_t parent = ::getpid();
        for (const int cpu : baton::kernel::allowed_cpus()) {
            cpu_set_t set;
            CPU_ZERO(&set);
            CPU_SET(cpu, &set);
            const pid_t pid = ::fork();
            if (pid == 0) {
                ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (::getppid() != parent) ::_exit(0);
                ::sched_setaffinity(0, sizeof set, &set);
                ::alarm(600);
                for (;;) asm volatile("pause");
            }
            REQUIRE(pid > 0);
            pids_.push_back(pid);
        }
    }
    ~Neighbours() {
        for (const pid_t pid : pids_) {
            ::kill(pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
        }
    }

private:
    std::vector<pid_t> pids_;
};

} // namespace

TEST_CASE("handoff: nothing is lost while half of all block, on 1, 2, 4 and 16 processors") {
    for (const int procs : {1, 2, 4, 16}) run_mix(procs, soak() ? 30s : kSlow * 700ms);
}

// The one processor is in a call each time, so the goroutine that ends the call runs by a handoff.
TEST_CASE("handoff: a block after another on one processor, none lost and none doubled") {
    const std::uint64_t most = soak() ? 1'000'000 : 3'000;
    const auto until = std::chrono::steady_clock::now() + (soak() ? 900s : 3s);
    std::uint64_t blocks = 0, wrong = 0, missed = 0, unsent = 0;
    const baton::Stats before = baton::stats();
    baton::run([&] {
        baton::set_max_procs(1);
        int fds[2];
        REQUIRE(::pipe(fds) == 0);
        std::atomic<std::uint64_t> begun{0};
        WaitGroup other;
        other.go([&] {
            for (std::uint64_t seen = 0; seen != kOver; baton::yield()) {
                const std::uint64_t now = begun.load();
                if (now == seen) continue;
                missed += now != seen + 1 && now != kOver;
                seen = now;
                unsent += ::write(fds[1], &seen, sizeof seen) != sizeof seen;
                ::sched_yield(); // who waits for it may run on this CPU
            }
        });
        const auto block = [&](std::uint64_t n) {
            std::uint64_t came = 0;
            begun.store(n);
            wrong += !receive_number(fds[0], came) || came != n;
            baton::yield(); // so that it has the processor again: on credit there is none to pass
        };
        while (blocks < most && std::chrono::steady_clock::now() < until) block(++blocks);
        block(kOver);
        other.wait();
        for (const int fd : fds) ::close(fd);
    });
    const std::uint64_t handoffs = baton::stats().handoffs - before.handoffs;
    std::fprintf(stderr, "  %lu blocks, %lu handoffs\n", blocks, handoffs);
    if (blocks < most) std::printf("skip: blocks %lu to %lu: out of time\n", blocks + 1, most);
    CHECK(blocks > 0);
    CHECK(wrong == 0);
    CHECK(missed == 0);
    CHECK(unsent == 0);
    CHECK(handoffs > blocks);
}

// TestPreemptionAfterSyscall: who goes from one call straight into the next gives way all the same.
TEST_CASE("handoff: goroutines that block again and again let others start and stop") {
    for (const int procs : {1, 2, 4, 8}) {
        for (const auto length : {10us, 100us, 1000us}) {
            const auto start = std::chrono::steady_clock::now();
            baton::run([&] {
                baton::set_max_procs(procs);
                for (int round = 0; round < 5; round++) {
                    std::atomic<bool> stop{false};
                    WaitGroup begun, ended;
                    begun.add(8);
                    for (int i = 0; i < 8; i++) {
                        ended.go([&] {
                            begun.done();
                            while (!stop.load()) {
                                baton::blocking([&] { std::this_thread::sleep_for(length); });
                            }
                        });
                    }
                    begun.wait();
                    stop.store(true);
                    ended.wait();
                }
            });
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
            std::fprintf(stderr, "%d processors, %ld us: %.3f s\n", procs,
                         static_cast<long>(length.count()), took.count());
            CHECK(took.count() < 10);
        }
    }
}

TEST_CASE("handoff: nor while other processes want every CPU") {
    const Neighbours neighbours;
    for (const int procs : {1, 4}) run_mix(procs, soak() ? 15s : kSlow * 1000ms);
}

TEST_CASE("handoff: threads that are no longer needed leave") {
    baton::rt::sched.trim_period_ns.store(20'000'000);
    run_mix(4, kSlow * 300ms);
    const std::uint64_t most = baton::stats().threads_peak;
    CHECK(most > 20);                        // the premise
    const std::uint64_t few = 2 * 4 + 2 + 1; // for four processors, and the standby
    const auto until = std::chrono::steady_clock::now() + 20s;
    while (baton::stats().threads > few && std::chrono::steady_clock::now() < until)
        std::this_thread::sleep_for(10ms);
    const std::uint64_t least = baton::stats().threads;
    std::fprintf(stderr, "  %lu threads, then %lu\n", most, least);
    CHECK(least <= few);
    run_mix(4, kSlow * 200ms); // and come again
}
