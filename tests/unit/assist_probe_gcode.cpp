// SPDX-License-Identifier: Apache-2.0
//
// The probe and a thread that sleeps in G code, where nothing announced it: what put it to sleep,
// the P that is given back, credit, and where the P is left alone. As root on a kernel with BTF the
// probe has to load.
#include <doctest/doctest.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "assist/ownership.hpp"
#include "assist/probe.hpp"
#include "kernel/syscall.hpp"
#include "support/probe.hpp"
#include "support/slow_pages.hpp"

using namespace baton;
using namespace probe_test;
using assist::Word;
using slow_pages::SlowPages;

namespace {

constexpr shared::u16 kM = 7, kP = 3, kOther = 9;
constexpr Word kRuns{kM, 0, 0, shared::P_RUN};

shared::u64 now_ns() {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<shared::u64>(now.tv_sec) * 1'000'000'000 +
           static_cast<shared::u64>(now.tv_nsec);
}

std::unique_ptr<SlowPages> pages_or_skip() {
    try {
        return std::make_unique<SlowPages>(1);
    } catch (const std::system_error& error) {
        if (::geteuid() == 0) FAIL(error.what());
        MESSAGE("SKIPPED: " << error.what());
        return nullptr;
    }
}

struct Pipe {
    int ends[2];
    Pipe() { REQUIRE(::pipe2(ends, O_CLOEXEC) == 0); }
    ~Pipe() {
        ::close(ends[0]);
        ::close(ends[1]);
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    /// By a call whose number is not 0.
    void sleep(void* into) const {
        const iovec one{into, 1};
        (void)kernel::raw_syscall(SYS_readv, ends[0], &one, 1);
    }
    void wake() const { CHECK(::write(ends[1], "x", 1) == 1); }
};

/// A thread that holds a P and is in some state when it calls `body`, which may sleep; and what it
/// finds right after.
class Thread {
public:
    Thread(Probe& probe, shared::m_state state, std::function<void()> body) : r_(probe.records()) {
        r_.m[kM] = {};
        r_.p[kP] = {};
        *r_.sched = {};
        thread_ = std::thread([this, &probe, state, body = std::move(body)] {
            registered = probe.register_thread(kM);
            m().p = kP;
            write_shared(p().word, kRuns.pack());
            tid_.store(kernel::raw_syscall(SYS_gettid));
            write_shared(m().state, state);
            body();
            state_after = read_shared(m().state);
            word_after = read_shared(p().word);
            m().p = 0;
            unregistered = probe.unregister_thread();
        });
        while (tid_.load() == 0) std::this_thread::yield();
    }
    ~Thread() { join(); }
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    void join() {
        if (thread_.joinable()) thread_.join();
        CHECK(registered == 0);
        CHECK(unregistered == 0);
    }
    bool wait_asleep() const { return sleeps(tid_.load()); }
    shared::m_rec& m() const { return r_.m[kM]; }
    shared::p_rec& p() const { return r_.p[kP]; }
    shared::sched_rec& sched() const { return *r_.sched; }
    Word word() const { return Word::of(read_shared(p().word)); }

    int registered = -1, unregistered = -1;
    shared::m_state state_after = shared::M_DEAD;
    shared::u64 word_after = 0;

private:
    assist::Records r_;
    std::atomic<long> tid_{0};
    std::thread thread_;
};

/// What holds of a thread whose P the probe has marked, but for the cause.
void check_marked(const Thread& t) {
    const Word w = t.word();
    CHECK(w.owner == kM);
    CHECK(w.taker == 0);
    CHECK(w.state == shared::P_OFFCPU);
    CHECK(w.cpu == read_shared(t.m().cpu));
    CHECK(read_shared(t.m().state) == shared::M_OFFCPU);
    CHECK(read_shared(t.m().blocks) == 1);
    CHECK(read_shared(t.p().blocks) == 1);
    CHECK(read_shared(t.p().blocked_ns) == read_shared(t.m().blocked_ns));
    CHECK(read_shared(t.m().blocked_ns) <= now_ns());
    CHECK(read_shared(t.sched().nblocked) == 1);
    CHECK(read_shared(t.sched().noffcpu) == 1);
}

/// ... and when it has come back and nobody has taken the P.
void check_given_back(Thread& t) {
    t.join();
    CHECK(t.state_after == shared::M_RUNNING);
    CHECK(t.word_after == kRuns.pack());
    CHECK(read_shared(t.m().credit_ns) == 0);
    CHECK(read_shared(t.sched().nblocked) == 0);
    CHECK(read_shared(t.sched().noffcpu) == 0);
}

std::atomic<int> urged_at_urg{0};

void set_handler(int sig, void (*handler)(int)) {
    struct sigaction sa = {};
    sa.sa_handler = handler;
    CHECK(::sigaction(sig, &sa, nullptr) == 0);
}

} // namespace

TEST_CASE("probe: in a raw system call the cause is its number; the P is given back") {
    auto probe = load_or_skip();
    if (!probe) return;
    const Pipe pipe;
    Thread t(*probe, shared::M_RUNNING, [&] {
        char byte;
        pipe.sleep(&byte);
    });
    CHECK(t.wait_asleep());
    check_marked(t);
    CHECK(read_shared(t.m().cause) == shared::M_BY_SYSCALL);
    CHECK(read_shared(t.m().sysno) == SYS_readv);
    CHECK(read_shared(t.m().faults) == 0);
    pipe.wake();
    check_given_back(t);
}

TEST_CASE("probe: in a page fault the cause is the fault; the P is given back") {
    auto probe = load_or_skip();
    auto pages = probe ? pages_or_skip() : nullptr;
    if (!pages) return;
    Thread t(*probe, shared::M_RUNNING, [&] { CHECK(pages->touch(0) == slow_pages::kByte); });
    CHECK(t.wait_asleep());
    check_marked(t);
    CHECK(read_shared(t.m().cause) == shared::M_BY_FAULT);
    CHECK(read_shared(t.m().sysno) == -1);
    CHECK(read_shared(t.m().faults) == 1);
    pages->give(0);
    check_given_back(t);
}

TEST_CASE("probe: a system call that sleeps for a page of its caller's is a system call") {
    auto probe = load_or_skip();
    auto pages = probe ? pages_or_skip() : nullptr;
    if (!pages) return;
    const Pipe pipe;
    pipe.wake(); // there is a byte already, and no place for it
    Thread t(*probe, shared::M_RUNNING, [&] { pipe.sleep(pages->page(0)); });
    CHECK(t.wait_asleep());
    check_marked(t);
    CHECK(read_shared(t.m().cause) == shared::M_BY_SYSCALL);
    CHECK(read_shared(t.m().sysno) == SYS_readv);
    CHECK(read_shared(t.m().faults) == 0);
    pages->give(0);
    check_given_back(t);
}

TEST_CASE("probe: a fault inside an announced call marks that call's P, and is a fault") {
    auto probe = load_or_skip();
    auto pages = probe ? pages_or_skip() : nullptr;
    if (!pages) return;
    constexpr Word kInSyscall{kM, 0, 1, shared::P_SYSCALL};
    Thread t(*probe, shared::M_SYSCALL, [&] {
        write_shared(probe->records().p[kP].word, kInSyscall.pack());
        (void)pages->touch(0);
    });
    CHECK(t.wait_asleep());
    CHECK(t.word().state == shared::P_BLOCKED);
    CHECK(read_shared(t.m().state) == shared::M_BLOCKED);
    CHECK(read_shared(t.m().cause) == shared::M_BY_FAULT);
    CHECK(read_shared(t.m().faults) == 1);
    CHECK(read_shared(t.sched().noffcpu) == 0);
    pages->give(0);
    t.join();
    CHECK(Word::of(t.word_after).state == shared::P_BLOCKED); // its owner's to take back
}

TEST_CASE("probe: who comes back and finds the P taken runs on credit") {
    auto probe = load_or_skip();
    if (!probe) return;
    const Word takes[] = {
        {kOther, 0, 0, shared::P_RUN},   // another runs with it
        {kM, kOther, 0, shared::P_RUN},  // another is about to, or has lent it back: not its own
        {0, 0, 0, shared::P_IDLE},       // nobody needed it any more
        {kOther, 0, 1, shared::P_OFFCPU} // its next owner sleeps, too
    };
    for (const Word taken : takes) {
        CAPTURE(taken.pack());
        const Pipe pipe;
        shared::u64 since = 0, blocks = 0;
        std::atomic<bool> back{false};
        Thread t(*probe, shared::M_RUNNING, [&] {
            char byte;
            pipe.sleep(&byte);
            since = probe->records().m[kM].credit_ns;
            back.store(true);
            pipe.sleep(&byte); // there is no P to lose: all stays as it is
            blocks = probe->records().m[kM].blocks;
        });
        CHECK(t.wait_asleep());
        CHECK(t.word().state == shared::P_OFFCPU);
        write_shared(t.p().word, taken.pack());
        write_shared(t.sched().nblocked, 0); // whoever takes it lowers it
        const shared::u64 before = now_ns();
        pipe.wake();
        while (!back.load()) std::this_thread::yield();
        const shared::u64 after = now_ns();
        CHECK(t.wait_asleep());
        CHECK(read_shared(t.m().state) == shared::M_CREDIT);
        CHECK(read_shared(t.sched().noffcpu) == 0);
        pipe.wake();
        t.join();
        CHECK(t.state_after == shared::M_CREDIT);
        CHECK(t.word_after == taken.pack());
        CHECK(since >= before);
        CHECK(since <= after);
        CHECK(read_shared(t.m().credit_ns) == since);
        CHECK(blocks == 1);
        CHECK(read_shared(t.sched().nblocked) == 0);
    }
}

TEST_CASE("probe: outside G code a P that runs is never taken from its M") {
    auto probe = load_or_skip();
    auto pages = probe ? pages_or_skip() : nullptr;
    if (!pages) return;
    for (const auto state : {shared::M_RUNTIME, shared::M_SPINNING, shared::M_IDLE,
                             shared::M_LOCKED, shared::M_SYSCALL, shared::M_CREDIT}) {
        CAPTURE(static_cast<int>(state));
        Thread t(*probe, state, [&] { (void)pages->touch(0); });
        CHECK(t.wait_asleep());
        CHECK(read_shared(t.p().word) == kRuns.pack());
        CHECK(read_shared(t.m().state) == state);
        CHECK(read_shared(t.m().blocks) == 0);
        CHECK(read_shared(t.m().faults) == 0);
        CHECK(read_shared(t.sched().nblocked) == 0);
        CHECK(read_shared(t.sched().noffcpu) == 0);
        pages->give(0);
        t.join();
        CHECK(t.state_after == state);
        CHECK(t.word_after == kRuns.pack());
        pages->take_back();
    }
}

TEST_CASE("probe: who has left robs nobody, though it sleeps on its way out") {
    auto probe = load_or_skip();
    if (!probe) return;
    const Pipe pipe;
    char byte;
    std::atomic<bool> gone{false}, quit{false};
    std::thread old([&] {
        CHECK(probe->register_thread(kM) == 0);
        CHECK(probe->unregister_thread() == 0);
        gone.store(true);
        while (!quit.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    });
    while (!gone.load()) std::this_thread::yield();
    Thread t(*probe, shared::M_RUNNING, [&] { // takes over the slot
        const shared::u64 until = now_ns() + 20'000'000;
        while (now_ns() < until) {
        }
        CHECK(read_shared(probe->records().m[kM].blocks) == 0);
        pipe.sleep(&byte);
    });
    CHECK(t.wait_asleep());
    check_marked(t);
    pipe.wake();
    check_given_back(t);
    quit.store(true);
    old.join();
}

TEST_CASE("probe: a thread that is preempted, or yields its CPU, keeps its P") {
    auto probe = load_or_skip();
    if (!probe) return;
    const int cpu = ::sched_getcpu();
    rusage use{};
    std::atomic<bool> quit{false};
    std::thread neighbour([&] {
        pin_thread(cpu);
        while (!quit.load(std::memory_order_relaxed)) { // relaxed: a flag alone
        }
    });
    Thread t(*probe, shared::M_RUNTIME, [&] {
        pin_thread(cpu);
        write_shared(probe->records().m[kM].state, shared::M_RUNNING);
        do {
            for (int i = 0; i < 1000; i++) (void)kernel::raw_syscall(SYS_sched_yield);
            for (int i = 0; i < 5'000'000; i++) asm volatile("");
            ::getrusage(RUSAGE_THREAD, &use);
        } while (use.ru_nivcsw < 10);
    });
    t.join();
    quit.store(true);
    neighbour.join();
    CHECK(t.state_after == shared::M_RUNNING);
    CHECK(t.word_after == kRuns.pack());
    CHECK(read_shared(t.m().blocks) == 0);
    CHECK(read_shared(t.sched().nblocked) == 0);
    CHECK(read_shared(t.sched().noffcpu) == 0);
}

TEST_CASE("probe: SIGURG alone is told which call it has broken into") {
#if defined(BATON_TSAN)
    std::printf("skip: ThreadSanitizer delivers signals when it likes\n");
    return;
#endif
    auto probe = load_or_skip();
    if (!probe) return;
    static const Probe* known;
    known = probe.get();
    set_handler(SIGURG, [](int) { urged_at_urg = known->records().m[kM].urged; });
    set_handler(SIGRTMIN, [](int) {});
    const int none = -1;
    for (const bool alone : {true, false}) {
        Thread t(*probe, shared::M_RUNTIME, [&] {
            sigset_t both, no;
            sigemptyset(&no);
            sigemptyset(&both);
            sigaddset(&both, SIGURG);
            sigaddset(&both, SIGRTMIN);
            ::pthread_sigmask(SIG_BLOCK, &both, nullptr);
            ::pthread_kill(::pthread_self(), SIGURG); // delivered first, as the lower number
            if (!alone) ::pthread_kill(::pthread_self(), SIGRTMIN);
            ::sigsuspend(&no);
        });
        t.join();
        CHECK(urged_at_urg == (alone ? SYS_rt_sigsuspend : none));
    }
    Thread t(*probe, shared::M_RUNTIME, [&] { // no call at all: this one is over by then
        ::pthread_kill(::pthread_self(), SIGRTMIN);
    });
    t.join();
    CHECK(read_shared(t.m().urged) == none);
    set_handler(SIGURG, SIG_DFL);
    set_handler(SIGRTMIN, SIG_DFL);
}
