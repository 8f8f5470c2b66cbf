// SPDX-License-Identifier: Apache-2.0
//
// The probe against the real scheduler: threads that block, and what the records say of it.
// As root on a kernel with BTF the probe has to load; elsewhere these tests say loudly that they
// skip.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "assist/ownership.hpp"
#include "assist/probe.hpp"
#include "kernel/syscall.hpp"
#include "support/confine.hpp"
#include "support/probe.hpp"

using namespace baton;
using namespace probe_test;
using assist::Word;
using confine::kBpf, confine::kPerfmon;
using namespace std::chrono_literals;

namespace {

/// An M that sets its word and blocks in read, again for each round.
class BlockingM {
public:
    static constexpr shared::u32 kM = 7, kP = 3;

    BlockingM(Probe& probe, Word word, int cpu = -1, std::optional<Probe::Via> via = {})
        : r_(probe.records()) {
        REQUIRE(::pipe2(pipe_, O_CLOEXEC) == 0);
        thread_ = std::thread([this, &probe, word, cpu, via] { run(probe, word, cpu, via); });
        while (tid_.load() == 0) std::this_thread::yield();
        REQUIRE(registered_ == 0);
    }
    ~BlockingM() {
        if (thread_.joinable()) finish();
        ::close(pipe_[0]);
        ::close(pipe_[1]);
    }

    bool wait_asleep() { return sleeps(tid_.load()); }
    /// One more round: out of read, and into it again.
    bool again() {
        const int before = rounds_.load();
        if (::write(pipe_[1], "x", 1) != 1) return false;
        while (rounds_.load() == before) std::this_thread::yield();
        return wait_asleep();
    }
    void finish() {
        quit_.store(true);
        CHECK(::write(pipe_[1], "x", 1) == 1);
        thread_.join();
        CHECK(unregistered_ == 0);
    }
    long tid() const { return tid_.load(); }
    shared::m_rec& m() { return r_.m[kM]; }
    shared::p_rec& p() { return r_.p[kP]; }
    Word word() { return Word::of(read_shared(p().word)); }

private:
    void run(Probe& probe, Word word, int cpu, std::optional<Probe::Via> via) {
        if (cpu >= 0) pin_thread(cpu);
        registered_ = via ? probe.register_thread_via(*via, kM) : probe.register_thread(kM);
        m().tid = static_cast<shared::u32>(kernel::raw_syscall(__NR_gettid));
        write_shared(m().state, shared::M_SYSCALL);
        m().p = kP;
        tid_.store(m().tid);
        do {
            char byte;
            write_shared(m().state, shared::M_SYSCALL);
            write_shared(p().word, word.pack());
            rounds_.fetch_add(1);
            (void)kernel::raw_syscall(__NR_read, pipe_[0], &byte, 1);
            if (word.state == shared::P_SYSCALL) {
                write_shared(p().word, Word{kM, 0, word.cpu, shared::P_RUN}.pack());
            }
        } while (!quit_.load());
        m().p = 0;
        unregistered_ = probe.unregister_thread();
    }

    assist::Records r_;
    int pipe_[2] = {-1, -1};
    std::atomic<long> tid_{0};
    std::atomic<int> rounds_{0};
    std::atomic<bool> quit_{false};
    int registered_ = -1;
    int unregistered_ = -1;
    std::thread thread_;
};

constexpr shared::u16 kM = BlockingM::kM;
constexpr Word kInSyscall{kM, 0, 1, shared::P_SYSCALL};

bool pidfds_of_threads() {
    const long fd = kernel::raw_syscall(__NR_pidfd_open, ::getpid(), O_EXCL); // PIDFD_THREAD
    if (fd >= 0) ::close(static_cast<int>(fd));
    return fd != -EINVAL;
}

/// Runs it in a child, and gives its answer; "signal" if it died.
std::string in_child(const std::function<std::string()>& body) {
    int pipe[2];
    REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
    std::fflush(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
        const std::string answer = body();
        (void)!::write(pipe[1], answer.data(), answer.size());
        ::_exit(0);
    }
    ::close(pipe[1]);
    std::string answer(1024, 0);
    const ssize_t n = ::read(pipe[0], answer.data(), answer.size());
    ::close(pipe[0]);
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (!WIFEXITED(status)) return "signal";
    answer.resize(static_cast<std::size_t>(n > 0 ? n : 0));
    return answer;
}

std::string load_as(unsigned long long capabilities) {
    return in_child([capabilities] {
        if (!confine::drop_root(capabilities)) return std::string("cannot drop privileges");
        std::string why;
        return Probe::load(why) ? std::string("loaded") : why;
    });
}

struct Received {
    int count = 0;
    shared::wake_event last{};
    static void add(void* ctx, const shared::wake_event& ev) {
        auto* r = static_cast<Received*>(ctx);
        ++r->count;
        r->last = ev;
    }
};

/// Events that come within `ms`, at least one awaited.
Received receive(Probe& probe, int ms) {
    Received r;
    pollfd pfd{probe.events_fd(), POLLIN, 0};
    if (::poll(&pfd, 1, ms) == 1) CHECK(probe.consume(Received::add, &r) >= 1);
    return r;
}

} // namespace

TEST_CASE("probe: an M that blocks in a system call has its P marked and stamped") {
    auto probe = load_or_skip();
    if (!probe) return;
    for (const auto via : {Probe::Via::kPidfd, Probe::Via::kProgram}) {
        CAPTURE(static_cast<int>(via));
        if (via == Probe::Via::kPidfd && !pidfds_of_threads()) {
            std::printf("skip: by pidfd: this kernel has none of threads (Linux 6.9)\n");
            continue;
        }
        probe->records().p[BlockingM::kP] = {};
        probe->records().m[kM] = {};
        probe->records().sched->nblocked = 0;
        BlockingM m(*probe, kInSyscall, -1, via);
        REQUIRE(m.wait_asleep());
        const Word w = m.word();
        CHECK(w.owner == kM);
        CHECK(w.taker == 0);
        CHECK(w.cpu == 1);
        CHECK(w.state == shared::P_BLOCKED);
        CHECK(read_shared(probe->records().sched->nblocked) == 1);
        CHECK(read_shared(m.m().state) == shared::M_BLOCKED);
        CHECK(read_shared(m.m().blocks) == 1);
        CHECK(read_shared(m.p().blocks) == 1);
        CHECK(read_shared(m.m().sysno) == __NR_read);
        timespec now;
        ::clock_gettime(CLOCK_MONOTONIC, &now);
        const auto now_ns = static_cast<shared::u64>(now.tv_sec) * 1'000'000'000 +
                            static_cast<shared::u64>(now.tv_nsec);
        CHECK(m.p().blocked_ns < now_ns);
        CHECK(m.p().blocked_ns + 10'000'000'000 > now_ns);
        CHECK(m.p().blocked_ns == m.m().blocked_ns);

        REQUIRE(m.again());
        CHECK(read_shared(m.m().blocks) == 2);
        CHECK(read_shared(probe->records().sched->nblocked) == 2); // nobody lowered it here
    }
}

TEST_CASE("probe: a word that is not {m, 0, any, SYSCALL} stays as it is") {
    auto probe = load_or_skip();
    if (!probe) return;
    const Word words[] = {
        {kM, 9, 1, shared::P_SYSCALL}, // a taker is at it
        {9, 0, 1, shared::P_SYSCALL},  // another's
        {kM, 0, 1, shared::P_RUN},     {kM, 0, 1, shared::P_BLOCKED},
        {0, 0, 0, shared::P_IDLE},     {kM, 0, 1, shared::P_GCSTOP},
    };
    for (const Word word : words) {
        CAPTURE(word.pack());
        BlockingM m(*probe, word);
        REQUIRE(m.wait_asleep());
        CHECK(read_shared(m.p().word) == word.pack());
        CHECK(read_shared(probe->records().sched->nblocked) == 0);
        CHECK(read_shared(m.m().blocks) == 0);
        CHECK(read_shared(m.p().blocks) == 0);
        CHECK(read_shared(m.p().blocked_ns) == 0);
    }
}

TEST_CASE("probe: a thread that is not registered, or only with another probe, is left alone") {
    auto probe = load_or_skip();
    if (!probe) return;
    auto other = load_or_skip();
    REQUIRE(other);
    other->records().m[kM].p = BlockingM::kP;
    other->records().p[BlockingM::kP].word = kInSyscall.pack();
    BlockingM m(*probe, kInSyscall);
    REQUIRE(m.wait_asleep());
    CHECK(m.word().state == shared::P_BLOCKED);
    CHECK(read_shared(other->records().p[BlockingM::kP].word) == kInSyscall.pack());
    CHECK(probe->register_thread(0) == -EINVAL);
    CHECK(probe->register_thread(BATON_MAX_M) == -EINVAL);
}

TEST_CASE("probe: the ring buffer wakes the standby exactly when the P is wanted") {
    auto probe = load_or_skip();
    if (!probe) return;
    struct Case {
        shared::u32 standby, runq, runqsize, npidle, nmspinning, unpolled;
        bool wake;
    };
    const Case cases[] = {
        {1, 1, 0, 1, 1, 0, true},  // its own queue
        {1, 0, 1, 1, 1, 0, true},  // the global queue
        {1, 0, 0, 0, 0, 0, true},  // all Ps busy, and nobody looks for work
        {1, 0, 0, 1, 0, 1, true},  // nobody polls
        {1, 0, 0, 1, 0, 0, false}, // there are idle Ps
        {1, 0, 0, 0, 1, 1, false}, // somebody looks for work
        {0, 1, 1, 0, 0, 1, false}, // nobody waits for the event
    };
    for (const Case& c : cases) {
        CAPTURE(&c - cases);
        shared::sched_rec& s = *probe->records().sched;
        s = {};
        s.standby = c.standby;
        s.runqsize = c.runqsize;
        s.npidle = c.npidle;
        s.nmspinning = c.nmspinning;
        s.unpolled = c.unpolled;
        probe->records().p[BlockingM::kP].runq = c.runq;
        BlockingM m(*probe, kInSyscall);
        REQUIRE(m.wait_asleep());
        CHECK(m.word().state == shared::P_BLOCKED);
        const Received r = receive(*probe, c.wake ? 5000 : 20);
        CHECK(r.count == (c.wake ? 1 : 0));
        CHECK(read_shared(s.wakes) == (c.wake ? 1u : 0u));
        if (c.wake) {
            CHECK(r.last.p == BlockingM::kP);
            CHECK(r.last.m == kM);
        }
    }
}

TEST_CASE("probe: no wake where the next thread on the CPU takes care of the P") {
    auto probe = load_or_skip();
    if (!probe) return;
    constexpr shared::u32 kNext = 12;
    constexpr int kRounds = 40;
    cpu_set_t allowed;
    REQUIRE(::sched_getaffinity(0, sizeof allowed, &allowed) == 0);
    if (CPU_COUNT(&allowed) < 2) {
        MESSAGE("SKIPPED: on one CPU this thread would be the next one");
        return;
    }
    int cpu = 0;
    while (!CPU_ISSET(cpu, &allowed)) ++cpu;
    int other = cpu + 1;
    while (!CPU_ISSET(other, &allowed)) ++other;
    pin_thread(other);

    // A thread always ready on the blocking M's CPU, in the idle class: it is next, unless some
    // foreign process comes between.
    std::atomic<bool> quit{false};
    std::atomic<int> registered{1};
    std::thread next([&] {
        pin_thread(cpu);
        const sched_param param{};
        ::sched_setscheduler(0, SCHED_IDLE, &param);
        registered.store(probe->register_thread(kNext));
        while (!quit.load(std::memory_order_relaxed)) {
        } // relaxed: a flag alone
    });
    while (registered.load() == 1) std::this_thread::yield();
    CHECK(registered.load() == 0);

    struct Role {
        shared::m_state state;
        shared::u32 p;
        shared::u32 owner; // of that P
        bool cares;
    };
    const Role roles[] = {
        {shared::M_UNDERSTUDY, 0, 0, true},
        {shared::M_SPINNING, 0, 0, true},
        {shared::M_RUNNING, 5, kNext, false},
        {shared::M_RUNTIME, 5, kNext + 1, true}, // came back and has lost it
        {shared::M_SYSMON, 0, 0, false},
    };
    for (const Role& role : roles) {
        CAPTURE(static_cast<int>(role.state));
        shared::sched_rec& s = *probe->records().sched;
        s = {};
        s.standby = 1;
        s.runqsize = 1;
        probe->records().m[kNext].state = role.state;
        probe->records().m[kNext].p = role.p;
        probe->records().p[5].word = std::uint64_t{role.owner} | std::uint64_t{shared::P_RUN} << 48;
        probe->records().m[kM] = {};
        BlockingM m(*probe, kInSyscall, cpu);
        REQUIRE(m.wait_asleep());
        const auto missed = [&] { // blocks without a wake
            return read_shared(m.m().blocks) - read_shared(s.wakes);
        };
        // A busy foreign process on that CPU is next as long as it likes: give it time to leave.
        for (int i = 1; i < (role.cares ? 50 * kRounds : kRounds); ++i) {
            if (role.cares && i >= kRounds && missed() != 0) break;
            REQUIRE(m.again());
        }
        CHECK(read_shared(m.m().blocks) >= kRounds);
        CHECK((missed() != 0) == role.cares);
        receive(*probe, 0);
    }
    quit.store(true);
    next.join();
    CHECK(::sched_setaffinity(0, sizeof allowed, &allowed) == 0);
}

TEST_CASE("probe: its descriptors are close-on-exec") {
    std::array<bool, 256> before{};
    for (int fd = 0; fd < 256; ++fd)
        before[static_cast<std::size_t>(fd)] = ::fcntl(fd, F_GETFD) >= 0;
    auto probe = load_or_skip();
    if (!probe) return;
    std::string why;
    const bool pinned = probe->pin(why) == 0;
    CHECK_MESSAGE(pinned, why);
    int opened = 0;
    for (int fd = 0; fd < 256; ++fd) {
        const int flags = ::fcntl(fd, F_GETFD);
        if (flags < 0 || before[static_cast<std::size_t>(fd)]) continue;
        ++opened;
        CHECK((flags & FD_CLOEXEC) != 0);
    }
    CHECK(opened >= 8);
}

TEST_CASE("probe: it loads amidst signals") {
    struct sigaction handle {
    }, before;
    handle.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &handle, &before);
    std::atomic<int> sent{0};
    const auto send = [&sent, to = ::pthread_self()](const std::stop_token& stop) {
        for (; !stop.stop_requested(); sent++) {
            ::pthread_kill(to, SIGUSR1);
            std::this_thread::sleep_for(50us);
        }
    };
    {
        const std::jthread sender(send);
        (void)load_or_skip();
        CHECK(sent > 10);
    }
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_CASE("probe: a forked child gets records of its own") {
    auto probe = load_or_skip();
    if (!probe) return;
    shared::sched_rec& s = *probe->records().sched;
    s.runqsize = 5;
    probe->records().m[9000].goid = 77;
    const std::string child = in_child([&]() -> std::string {
        if (const int r = probe->after_fork_in_child(); r != 0) return std::to_string(r);
        if (s.runqsize != 0 || probe->records().m[9000].goid != 0) return "not empty";
        s.runqsize = 6;
        probe->records().m[9000].goid = 78;
        probe->records().m[9001].goid = 79;
        if (probe->register_thread(3) != -ENODEV || probe->events_fd() != -1) return "not ended";
        std::string why;
        if (probe->pin(why) != -ENODEV) return "pins";
        probe.reset();
        return "well";
    });
    CHECK(child == "well");
    CHECK(s.runqsize == 5);
    CHECK(probe->records().m[9000].goid == 77);
    CHECK(probe->records().m[9001].goid == 0);
    BlockingM m(*probe, kInSyscall); // and the parent's probe goes on
    REQUIRE(m.wait_asleep());
    CHECK(m.word().state == shared::P_BLOCKED);
}

TEST_CASE("probe: without capabilities the reason is one line and names the cure") {
    if (::geteuid() != 0) {
        MESSAGE("SKIPPED: only root can show what others are told");
        return;
    }
    const std::string none = load_as(0);
    INFO(none);
    CHECK(none.starts_with("no CAP_BPF and CAP_PERFMON: run as root or grant them with setcap "
                           "cap_bpf,cap_perfmon+ep /"));
    CHECK(none.find('\n') == std::string::npos);
    CHECK(load_as(kBpf).starts_with("no CAP_PERFMON: "));
    CHECK(load_as(kPerfmon).starts_with("no CAP_BPF: "));
    if (::access("/sys/kernel/btf/vmlinux", R_OK) == 0) CHECK(load_as(kBpf | kPerfmon) == "loaded");
}

TEST_CASE("probe: BATON_DISABLE=bpf switches it off") {
    for (const char* list : {"bpf", "rseq, bpf", "bpf,futex2"}) {
        CAPTURE(list);
        const std::string why = in_child([list] {
            ::setenv("BATON_DISABLE", list, 1);
            std::string text;
            return Probe::load(text) ? std::string("loaded") : text;
        });
        CHECK(why == "switched off by BATON_DISABLE: take bpf out of it");
    }
    const std::string why = in_child([] {
        ::setenv("BATON_DISABLE", "bpfx,rseq", 1);
        std::string text;
        return Probe::load(text) ? std::string("loaded") : text;
    });
    CHECK(why != "switched off by BATON_DISABLE: take bpf out of it");
}

TEST_CASE("records: in plain memory they start as zeros, aligned") {
    const assist::Records r = assist::allocate_records();
    REQUIRE(r.m);
    CHECK(reinterpret_cast<std::uintptr_t>(r.m) % 64 == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(r.p) % 64 == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(r.sched) % 64 == 0);
    CHECK(r.m[BATON_MAX_M - 1].state == shared::M_DEAD);
    CHECK(r.p[BATON_MAX_P - 1].word == 0);
    r.m[0].tid = 1;
    r.p[BATON_MAX_P - 1].runq = 2;
    r.m[BATON_MAX_M - 1].tid = 3;
    CHECK(r.m[0].tid == 1);
    CHECK(r.sched->runqsize == 0);
}
