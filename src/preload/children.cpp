// SPDX-License-Identifier: Apache-2.0
//
// Waiting for one child, or one thread, to end: its pidfd becomes readable then. The pidfd is there
// before the attempt that finds it still running, so it is of no later one of that number.
#include "preload/fd.hpp"
#include "preload/locks.hpp"

#include <csignal>

namespace baton::preload {

namespace {

constexpr unsigned kPidfdThread = O_EXCL; // PIDFD_THREAD, 6.9
constexpr int kVainMost = 16; // readable, but the attempt finds nothing: a tracer's child
constexpr long kNothing = 0;

/// Until `attempt` finds something. `block` waits as libc does.
template <class Attempt, class Block>
long until_ended(int pidfd, Attempt attempt, Block block) {
    Readiness ready(pidfd, false, kNever);
    for (int i = 0; i < kVainMost; i++) {
        if (const long r = attempt(); r != kNothing) return r;
        if (ready() != 0) break;
    }
    Bracket bracket;
    return block();
}

template <class Attempt, class Block>
long await_child(pid_t pid, Attempt attempt, Block block) {
    if (const long r = attempt(); r != kNothing) return r;
    const PidFd child(pid, 0);
    if (child.ok()) return until_ended(child.fd(), attempt, block);
    Bracket bracket;
    return block();
}

bool is_nonblocking(int fd) { return (raw_syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK) != 0; }

} // namespace

pid_t g_wait4(pid_t pid, int* status, int flags, rusage* usage) {
    // A child that stops or goes on is none that ends.
    if (pid <= 0 || flags != 0) return blocking(real_wait4(), pid, status, flags, usage);
    const auto call = [&](int how) { return raw_syscall(SYS_wait4, pid, status, how, usage); };
    return static_cast<pid_t>(finish(await_child(
        pid, [&] { return call(WNOHANG); }, [&] { return call(0); })));
}

pid_t g_waitpid(pid_t pid, int* status, int flags) { return g_wait4(pid, status, flags, nullptr); }

int g_waitid(idtype_t type, id_t id, siginfo_t* info, int flags) {
    const bool parks = (flags & ~WNOWAIT) == WEXITED && (type == P_PID || type == P_PIDFD);
    if (!parks) return blocking(real_waitid(), type, id, info, flags);
    siginfo_t own;
    siginfo_t* found = info ? info : &own;
    const auto call = [&](int how) {
        return raw_syscall(SYS_waitid, type, id, found, flags | how, nullptr);
    };
    constexpr long kFound = 1;
    const auto attempt = [&]() -> long {
        const long r = call(WNOHANG);
        return r != 0 ? r : found->si_pid != 0 ? kFound : kNothing;
    };
    const auto block = [&]() -> long {
        const long r = call(0);
        return r != 0 ? r : kFound;
    };
    const int fd = static_cast<int>(id);
    long r;
    if (type == P_PID) {
        r = await_child(static_cast<pid_t>(id), attempt, block);
    } else if (is_nonblocking(fd)) {
        return blocking(real_waitid(), type, id, info, flags);
    } else {
        r = until_ended(fd, attempt, block);
    }
    return static_cast<int>(finish(r == kFound ? 0 : r));
}

// ---- threads ----

namespace {

/// Its clock is named by the number of the thread.
int tid_of(pthread_t thread) {
    clockid_t clock;
    return ::pthread_getcpuclockid(thread, &clock) == 0 ? ~(clock >> 3) : 0;
}

/// Joins it if it has ended, or says what is wrong with that; else ETIMEDOUT.
int join_now(pthread_t thread, void** result) {
    static constexpr timespec kPast{-1, 0};
    return real_pthread_timedjoin_np()(thread, result, &kPast);
}

template <class Block>
int join(pthread_t thread, void** result, std::int64_t deadline, Block block) {
    if (const int rc = join_now(thread, result); rc != ETIMEDOUT) return rc;
    const PidFd pidfd(tid_of(thread), kPidfdThread);
    if (!pidfd.ok()) { // it may have ended just now, or there are none
        Bracket bracket;
        return block();
    }
    Readiness ready(pidfd.fd(), false, deadline);
    for (int i = 0; i < kVainMost; i++) {
        if (const int rc = join_now(thread, result); rc != ETIMEDOUT) return rc;
        const int err = ready();
        if (err == ETIMEDOUT) return join_now(thread, result);
        if (err != 0) break;
    }
    Bracket bracket;
    return block();
}

} // namespace

int g_pthread_join(pthread_t thread, void** result) {
    return join(thread, result, kNever, [&] { return real_pthread_join()(thread, result); });
}

int g_pthread_clockjoin_np(pthread_t thread, void** result, clockid_t clock,
                           const timespec* until) {
    const auto block = [&] { return real_pthread_clockjoin_np()(thread, result, clock, until); };
    std::int64_t deadline = kNever;
    if (until && ((clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) ||
                  !deadline_at(clock, until, &deadline)))
        return block(); // refused
    return join(thread, result, deadline, block);
}

int g_pthread_timedjoin_np(pthread_t thread, void** result, const timespec* until) {
    return g_pthread_clockjoin_np(thread, result, CLOCK_REALTIME, until);
}

int g_thrd_join(thrd_t thread, int* result) {
    void* got = nullptr;
    const int rc = g_pthread_join(thread, &got);
    if (rc == 0 && result) *result = static_cast<int>(reinterpret_cast<std::intptr_t>(got));
    return thrd_result(rc);
}

} // namespace baton::preload
