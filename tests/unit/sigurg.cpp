// SPDX-License-Identifier: Apache-2.0
//
// SIGURG is the runtime's and the program's: handlers that the program installs while goroutines
// run are called for its own signals, and goroutines are preempted all the same.
// run: tiers
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <utility>

#include <arpa/inet.h>
#include <csetjmp>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "kernel/build.hpp"
#include "runtime/sigurg.hpp"
#include "support/child.hpp"

using namespace child_process;
using Clock = std::chrono::steady_clock;

namespace {

std::atomic<int> first_calls{0}, calls{0}; // of the handler before the start, and of later ones
std::atomic<int> value{0};                 // that came with the signal
struct sigaction kept;                     // what a later one found in its place
void (*kept_by_signal)(int) = nullptr;

void first(int /*sig*/, siginfo_t* info, void* /*context*/) {
    first_calls++;
    if (info->si_code == SI_QUEUE) value = info->si_value.sival_int;
}

struct sigaction action(void (*handler)(int, siginfo_t*, void*)) {
    struct sigaction sa = {};
    sa.sa_sigaction = handler;
    sa.sa_flags = SA_SIGINFO;
    return sa;
}

struct First {
    First() {
        const struct sigaction sa = action(first);
        sigaction(SIGURG, &sa, nullptr);
    }
} before_the_start;

void later(int /*sig*/, siginfo_t* info, void* /*context*/) {
    calls++;
    if (info->si_code == SI_QUEUE) value = info->si_value.sival_int;
}
void later_plain(int /*sig*/) { calls++; }
void passes_on(int sig, siginfo_t* info, void* context) {
    kept.sa_sigaction(sig, info, context);
    calls++; // last, so that the frame of this one stays
}
void passes_on_plain(int sig) {
    kept_by_signal(sig);
    calls++; // as above
}
template <int kWhich>
void one_of_many(int sig, siginfo_t* info, void* context) {
    calls += kWhich;
    kept.sa_sigaction(sig, info, context);
}

/// Is a goroutine that makes no call preempted?
bool preempts(Clock::duration patience = 3s) {
    std::atomic<bool> flag{false};
    baton::go([&] { flag = true; });
    bool saw = false;
    for (const auto until = Clock::now() + patience; !saw && Clock::now() < until;) {
        for (int i = 0; i < 1000 && !saw; i++) saw = flag.load();
    }
    while (!flag) baton::yield();
    return saw;
}

void forget() { first_calls = calls = value = 0; }

/// ThreadSanitizer puts signals off, and may give one of the program's for ours that is late.
bool counts() {
#if defined(BATON_TSAN)
    std::printf("skip: under ThreadSanitizer it is not certain who gets a signal\n");
    return false;
#else
    return true;
#endif
}

/// Sends one of the program's own, and waits until it was counted by both as is right.
void check_called(int by_first, int by_later) {
    if (!counts()) return;
    forget();
    ::kill(::getpid(), SIGURG);
    const auto until = Clock::now() + 3s;
    while ((first_calls < by_first || calls < by_later) && Clock::now() < until)
        baton::sleep_for(1ms);
    baton::sleep_for(1ms); // for one too many
    CHECK(first_calls.load() == by_first);
    CHECK(calls.load() == by_later);
}

/// On one P, which a hog can keep to itself; the handlers are put back as they were.
template <class F>
void on_one(F f) {
    baton::run([&] {
        const int procs = baton::set_max_procs(1);
        struct sigaction before;
        sigaction(SIGURG, nullptr, &before);
        f();
        sigaction(SIGURG, &before, nullptr);
        CHECK(preempts());
        check_called(1, 0);
        baton::set_max_procs(procs);
    });
}

/// Two ends of a TCP connection over loopback.
struct Pair {
    int ends[2] = {-1, -1};
    Pair() {
        const int at = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in addr = {};
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof addr;
        REQUIRE(::bind(at, reinterpret_cast<sockaddr*>(&addr), size) == 0);
        REQUIRE(::listen(at, 1) == 0);
        REQUIRE(::getsockname(at, reinterpret_cast<sockaddr*>(&addr), &size) == 0);
        ends[0] = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(::connect(ends[0], reinterpret_cast<sockaddr*>(&addr), size) == 0);
        ends[1] = ::accept(at, nullptr, nullptr);
        REQUIRE(ends[1] >= 0);
        ::close(at);
    }
    ~Pair() {
        ::close(ends[0]);
        ::close(ends[1]);
    }
};

} // namespace

TEST_CASE("sigurg: a handler installed late gets the program's signals, and hogs are preempted") {
    on_one([] {
        const struct sigaction sa = action(later);
        sigaction(SIGURG, &sa, nullptr);
        forget();
        for (int i = 0; i < 2; i++) CHECK(preempts());
        if (!counts()) return;
        CHECK(calls == 0); // none of ours
        check_called(0, 1);

        forget();
        sigval with;
        with.sival_int = 42;
        REQUIRE(::sigqueue(::getpid(), SIGURG, with) == 0);
        while (calls < 1) baton::sleep_for(1ms);
        CHECK(value == 42);

        forget();
        const Pair tcp;
        REQUIRE(::fcntl(tcp.ends[1], F_SETOWN, ::getpid()) == 0);
        REQUIRE(::send(tcp.ends[0], "!", 1, MSG_OOB) == 1);
        while (calls < 1) baton::sleep_for(1ms);
        CHECK(first_calls == 0);
    });
}

TEST_CASE("sigurg: so it does if it was installed by signal(), which puts the old one back, too") {
    on_one([] {
        kept_by_signal = ::signal(SIGURG, later_plain);
        CHECK(preempts());
        check_called(0, 1);
        ::signal(SIGURG, kept_by_signal);
        CHECK(preempts());
        check_called(1, 0);
    });
}

TEST_CASE("sigurg: a late handler may call the one that it found") {
    on_one([] {
        const struct sigaction sa = action(passes_on);
        sigaction(SIGURG, &sa, &kept);
        check_called(1, 1); // not yet seen to be there
        CHECK(preempts());
        check_called(1, 1);
    });
    on_one([] {
        kept_by_signal = ::signal(SIGURG, passes_on_plain);
        check_called(1, 1);
        CHECK(preempts());
        check_called(1, 1);
    });
}

TEST_CASE("sigurg: a handler that found its own call to be ours, and calls that, is called once") {
    on_one([] {
        const struct sigaction sa = action(passes_on);
        sigaction(SIGURG, &sa, &kept);
        CHECK(preempts());
        sigaction(SIGURG, &sa, &kept);
        CHECK(preempts());
        check_called(0, 1);
    });
}

TEST_CASE("sigurg: a handler that leaves by longjmp is called again") {
#if defined(BATON_TSAN)
    std::printf("skip: under ThreadSanitizer the thread counts as one in the handler still\n");
#else
    on_one([] {
        static sigjmp_buf back;
        static std::atomic<bool> jumps{false};
        const struct sigaction sa = action([](int, siginfo_t*, void*) {
            calls++;
            if (jumps.exchange(false)) siglongjmp(back, 1);
        });
        sigaction(SIGURG, &sa, nullptr);
        CHECK(preempts());
        forget();
        baton::lock_os_thread();
        jumps = true;
        if (sigsetjmp(back, 1) == 0) ::pthread_kill(::pthread_self(), SIGURG);
        CHECK(!jumps);
        ::pthread_kill(::pthread_self(), SIGURG);
        CHECK(calls == 2);
        baton::unlock_os_thread();
    });
#endif
}

TEST_CASE("sigurg: one that takes the place of a late one is called alone") {
    on_one([] {
        const struct sigaction sa = action(later);
        sigaction(SIGURG, &sa, nullptr);
        CHECK(preempts());
        ::signal(SIGURG, later_plain);
        CHECK(preempts());
        check_called(0, 1);
        sigaction(SIGURG, &sa, nullptr); // once more
        CHECK(preempts());
        check_called(0, 1);
    });
}

TEST_CASE("sigurg: ignored, or left to the default, is called by nobody") {
    for (auto* nobody : {SIG_IGN, SIG_DFL}) {
        on_one([nobody] {
            ::signal(SIGURG, nobody);
            CHECK(preempts());
            check_called(0, 0);
        });
    }
}

TEST_CASE("sigurg: each of many handlers, one on top of the other, gets the signal") {
    on_one([] {
        struct sigaction found;
        sigaction(SIGURG, nullptr, &found);
        const auto install = [&found](auto handler) {
            const struct sigaction sa = action(handler);
            kept = found;
            sigaction(SIGURG, &sa, nullptr);
            CHECK(preempts());
        };
        const auto all = [&]<int... kWhich>(std::integer_sequence<int, kWhich...>) {
            ((install(one_of_many<kWhich + 1>), check_called(1, kWhich + 1)), ...);
        };
        all(std::make_integer_sequence<int, baton::rt::kUrgLevels + 1>());
    });
}

TEST_CASE("child: forks with a handler" * doctest::skip()) {
    baton::run([] {}); // so that the runtime of the parent's has the signal
    const pid_t pid = ::fork();
    if (pid == 0) {
        bool well = false;
        baton::run([&] {
            baton::set_max_procs(1);
            forget();
            ::kill(::getpid(), SIGURG);
            for (int i = 0; i < 1000 && first_calls == 0; i++) baton::sleep_for(1ms);
            well = first_calls == 1 && preempts();
        });
        ::_exit(well ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
    reached();
}
TEST_CASE("sigurg: in the child of a fork, too") {
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    std::printf("skip: sanitizers keep locks in the child of a threaded process\n");
#else
    check_works(run_child("forks with a handler"));
#endif
}

TEST_CASE("child: is not preempted" * doctest::skip()) {
    baton::run([] {
        baton::set_max_procs(1);
        const struct sigaction sa = action(later);
        sigaction(SIGURG, &sa, nullptr);
        CHECK(!preempts(100ms));
        struct sigaction now;
        sigaction(SIGURG, nullptr, &now);
        CHECK((now.sa_sigaction == later));
    });
    reached();
}
TEST_CASE("sigurg: with BATON_PREEMPT=off the signal is the program's alone") {
    check_works(run_child("is not preempted", {"BATON_PREEMPT=off"}));
}
