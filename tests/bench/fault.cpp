// SPDX-License-Identifier: Apache-2.0
//
// fault: one processor and two goroutines. One reads a mapping page by page, each of which takes
// 1 ms to come, as on a slow disk; the other computes. A page fault is announced by nobody, and
// cannot be: any access to memory may be one. The processor should go on with who computes.
//
// compute_per_s  pieces of 8 us computed; 125,000 would be one CPU and nothing else.
// faults_per_s   pages read; 1,000 less the time the page server needs would be the most.
// kept_percent   what faults leave of the pieces, in turns of 60 ms with faults and without in the
//                same process, as a machine is not the same for long: what the benchmark is about.
//                With faults=0 the turns do not differ: so much for the machine.
//
// floor    two plain threads pinned to one CPU: what the faults themselves take from who computes.
// faults   0: the one that computes is alone.
// yields   1: it yields after each piece. 0: it never calls the runtime, and goes on until it is
//          preempted.
//
// The pages are served by this program, outside the measured process: by userfaultfd, each 1 ms
// after it was asked for.
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <system_error>
#include <thread>

#include "../support/slow_pages.hpp"
#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"
#include "support/descriptor.hpp"

namespace {

using namespace std::chrono_literals;

constexpr std::size_t kPages = 4096;
constexpr int kPieceUs = 8;

struct alignas(64) Count {
    std::atomic<std::uint64_t> n{0};
    // relaxed: read for statistics only, and who counts is the only writer.
    void up() { n.store(n.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
    [[nodiscard]] double get() const {
        return static_cast<double>(n.load(std::memory_order_relaxed));
    }
};

/// Lets the reader through, or has it wait. On a goroutine it is not asked to enter the runtime for
/// that while it may pass.
class Gate {
public:
    void close() {
        mutex_.lock();
        closed_.store(true, std::memory_order_relaxed); // relaxed: in its own time
    }
    void open() {
        closed_.store(false, std::memory_order_relaxed); // relaxed: as above
        mutex_.unlock();
    }
    void pass() {
        if (!closed_.load(std::memory_order_relaxed)) return; // relaxed: as above
        mutex_.lock();
        mutex_.unlock();
    }

private:
    std::atomic<bool> closed_{false};
    baton::Mutex mutex_;
};

[[noreturn]] void read_pages(const slow_pages::SlowPages& pages, Gate& gate, Count& read) {
    for (;;) {
        for (std::size_t i = 0; i < kPages; ++i) {
            gate.pass();
            if (pages.touch(i) != slow_pages::kByte) throw bench::Failure("a page came wrong");
            read.up();
        }
        pages.take_back();
    }
}

[[noreturn]] void compute(bool yields, Count& pieces) {
    const bench::Work work;
    for (;;) {
        work.us(kPieceUs);
        pieces.up();
        if (yields) baton::yield(); // on a plain thread it is the kernel's
    }
}

void only_one_cpu() {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(::sched_getcpu(), &one);
    if (::sched_setaffinity(0, sizeof one, &one) != 0) throw bench::Failure("sched_setaffinity");
}

template <class F>
void start(bool goroutine, F f) {
    if (goroutine) {
        baton::go(f);
    } else {
        std::thread(f).detach();
    }
}

/// In turns with the gate open and closed, for so long: how fast `pieces` goes up with it open, in
/// parts of how fast it does with it closed.
double kept(Gate& gate, const Count& pieces, std::chrono::milliseconds time) {
    // Who was let through gets the processor once who computes has been preempted.
    constexpr auto kTurn = 60ms, kSettle = 15ms;
    double rates[2] = {0, 0};
    for (auto left = time; left > 0ms; left -= 2 * kTurn) {
        for (const bool closed : {true, false}) {
            closed ? gate.close() : gate.open();
            std::this_thread::sleep_for(kSettle);
            const double pieces0 = pieces.get();
            const std::int64_t began = bench::now_ns();
            std::this_thread::sleep_for(kTurn - kSettle);
            rates[closed] +=
                (pieces.get() - pieces0) / static_cast<double>(bench::now_ns() - began);
        }
    }
    return rates[0] / rates[1];
}

void side(const bench::KeyValues& args) {
    const bool goroutines = args.number("floor") == 0;
    if (!goroutines) only_one_cpu();
    static Count read, pieces; // static: they never end
    static Gate gate;
    if (args.number("faults") != 0) {
        slow_pages::SlowPages* pages;
        try {
            pages = new slow_pages::SlowPages(kPages);
        } catch (const std::system_error& error) {
            std::printf("skip=%s\n", error.what());
            return;
        }
        if (!bench::send_descriptor(static_cast<int>(args.number("server")), pages->fd()))
            throw bench::Failure("no page server");
        start(goroutines, [pages] { read_pages(*pages, gate, read); });
    }
    start(goroutines, [yields = args.number("yields") != 0] { compute(yields, pieces); });

    const long ms = args.number("ms");
    std::this_thread::sleep_for(std::chrono::milliseconds(ms / 5));
    const double read0 = read.get(), pieces0 = pieces.get();
    const std::int64_t began = bench::now_ns();
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    const double seconds = static_cast<double>(bench::now_ns() - began) / 1e9;
    bench::print_figure("compute_per_s", (pieces.get() - pieces0) / seconds);
    bench::print_figure("faults_per_s", (read.get() - read0) / seconds);
    bench::print_figure("kept_percent", 100 * kept(gate, pieces, std::chrono::milliseconds(ms)));
}

/// One round, with the page server beside the measured process.
bench::Figures measure(bench::Command command) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        throw bench::Failure("socketpair");
    command.keep_fds = {ends[1]};
    command.argv.push_back("server=" + std::to_string(ends[1]));
    std::thread server([socket = ends[0]] {
        const int fd = bench::receive_descriptor(socket);
        if (fd < 0) return;
        slow_pages::serve_pages(fd, 1ms, socket);
        ::close(fd);
    });
    struct Stop {
        int* ends;
        std::thread& server;
        ~Stop() {
            ::close(ends[1]);
            server.join();
            ::close(ends[0]);
        }
    } stop{ends, server};
    return bench::figures_of(command, 60);
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=300" : "ms=1000";
    for (const char* yields : {"1", "0"})
        for (const char* faults : {"0", "1"})
            for (const std::string impl : {"baton", "go", "floor"}) {
                const bool floor = impl == "floor";
                const std::string program = floor ? "baton" : impl;
                bench::Command command{plan.program(program), {"BATON_MAXPROCS=1"}, false, {}};
                const std::string words[] = {"procs=1", std::string("yields=") + yields,
                                             std::string("faults=") + faults,
                                             std::string("floor=") + (floor ? "1" : "0"), ms};
                command.argv.insert(command.argv.end(), std::begin(words), std::end(words));
                plan.add_own(
                    impl, {{"yields", yields}, {"faults", faults}},
                    [command] { return measure(command); }, program);
            }
}

} // namespace

int main(int argc, char** argv) { return bench::run({"fault", 5, 3, plan, side}, argc, argv); }
