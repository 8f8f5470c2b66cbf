// SPDX-License-Identifier: Apache-2.0
//
// System calls by libc's syscall(). What libc has a function for goes by that, hook and all; a
// futex is waited for parked, as std::atomic, std::latch and std::counting_semaphore of libstdc++
// do, and Rust's locks; the rest is an announced call.
//
// A goroutine parks at the word's address, unless the kernel finds another value there, and who
// wakes by syscall() looks for those that are parked:
//
//     parker                                  who wakes
//     (A) waiting += 1                        (B) the word is another
//     (A) still the value? parks              (B) waiting? wakes some; the kernel wakes the rest
//
// seq_cst on both sides, or both could miss the other.
//
// Who wakes by an instruction of its own is not seen: a library that was compiled so, or one that
// found libc before us. So a goroutine looks at the word itself after 10 ms, and each time that it
// has waited for as long again: it is as late at most as it has waited, and at most by a second.
// After a good second it returns, as from a spurious wake-up, which users of futexes have to expect
// (futex(2)): the word may have changed, and back. Libraries wait and wake by the same means, so
// that all this is for the sake of none that is known.
//
// Words in memory that other processes have, too, block. FUTEX_PRIVATE_FLAG rules that out; without
// it, as libstdc++ has it, /proc tells of the page (3 us). The other ways to wait block as well:
// for some bits, for several words, for PI. What moves waiters to another word, or wakes by what it
// finds there, wakes all that are parked at either: they look, and come back.
#include <climits>
#include <type_traits>
#include <utility>

#include <linux/futex.h>
#include <unistd.h>

#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr std::int64_t kFirstLookNs = 10'000'000;
constexpr std::int64_t kLastLookNs = 640'000'000; // the looks before it take as long together

Waiters waiters;

struct Call {
    long word, op, value, timeout, other, bits;
    std::uint32_t* at() const { return reinterpret_cast<std::uint32_t*>(word); }
    unsigned command() const { return static_cast<unsigned>(op) & FUTEX_CMD_MASK; }
    bool has(unsigned flag) const { return (static_cast<unsigned>(op) & flag) != 0; }
    long in_kernel() const { return raw_syscall(SYS_futex, word, op, value, timeout, other, bits); }
};

bool is_wait(const Call& call) {
    if (call.command() == FUTEX_WAIT) return !call.has(FUTEX_CLOCK_REALTIME);
    return call.command() == FUTEX_WAIT_BITSET &&
           static_cast<unsigned>(call.bits) == FUTEX_BITSET_MATCH_ANY;
}

/// False: the kernel is to say what is wrong with it.
bool deadline_of(const Call& call, std::int64_t* deadline) {
    *deadline = kNever;
    const auto* timeout = reinterpret_cast<const timespec*>(call.timeout);
    if (!timeout) return true;
    if (!valid(*timeout)) return false;
    if (call.command() == FUTEX_WAIT) {
        *deadline = deadline_in(to_ns(*timeout));
        return true;
    }
    return deadline_at(call.has(FUTEX_CLOCK_REALTIME) ? CLOCK_REALTIME : CLOCK_MONOTONIC, timeout,
                       deadline);
}

/// 0 if the word is there and has the value. A call that moves nobody, without a wait.
long look(const Call& call) {
    return raw_syscall(SYS_futex, call.word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, call.word,
                       static_cast<std::uint32_t>(call.value));
}

/// Is it memory of this process alone? Of an anonymous page that is surely so.
bool is_own(const Call& call) {
    if (call.has(FUTEX_PRIVATE_FLAG)) return true;
    constexpr std::uint64_t kPresent = 1ull << 63, kFileOrShared = 1ull << 61;
    constexpr long kPage = 4096;
    std::uint64_t page = 0;
    const long fd = raw_syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const long n =
        raw_syscall(SYS_pread64, fd, &page, sizeof page, call.word / kPage * long{sizeof page});
    (void)raw_syscall(SYS_close, fd);
    return n == sizeof page && (page & (kPresent | kFileOrShared)) == kPresent;
}

long park(const Call& call, std::int64_t deadline) {
    const auto still = [](void* arg) {
        const auto* c = static_cast<const Call*>(arg);
        const std::uint32_t now = std::atomic_ref(*c->at()).load(std::memory_order_seq_cst); // (A)
        return now == static_cast<std::uint32_t>(c->value) ? 1 : 0;
    };
    Call asked = call;
    for (std::int64_t ns = kFirstLookNs;; ns *= 2) {
        const std::int64_t next = deadline_in(ns);
        const int rc = rt->park(call.at(), still, &asked, next < deadline ? next : deadline);
        if (rc == 0) return 0;
        if (rc == EAGAIN) return ns == kFirstLookNs ? -EAGAIN : 0;
        if (next >= deadline) return -ETIMEDOUT;
        if (ns >= kLastLookNs) return 0;
    }
}

long in_bracket(const Call& call) {
    Bracket bracket;
    return call.in_kernel();
}

long wait(const Call& call) {
    std::int64_t deadline = kNever;
    if (!deadline_of(call, &deadline)) return call.in_kernel();
    if (const long r = look(call); r < 0) return r;
    if (!is_own(call)) return in_bracket(call);
    waiters.of(call.at()).fetch_add(1, std::memory_order_seq_cst); // (A)
    const long r = park(call, deadline);
    // relaxed: it costs others a look.
    waiters.of(call.at()).fetch_sub(1, std::memory_order_relaxed);
    return r;
}

/// A signal handler that has interrupted the runtime, which may hold what a wake needs: those that
/// are parked have to look for themselves.
bool in_handler() { return on_m() && rt->place() == BATON_ELSEWHERE; }

long wake_some(const Call& call) {
    const int most = static_cast<int>(call.value);
    if (in_handler()) return call.in_kernel();
    // (B), after whatever store the caller has made. seq_cst: as the kernel's own look is.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (most <= 0 || !waiters.any(call.at())) return call.in_kernel();
    const int woken = rt->wake(call.at(), most);
    if (woken == most) return woken;
    Call rest = call;
    rest.value = most - woken;
    const long r = rest.in_kernel();
    return r < 0 && woken > 0 ? woken : r + woken;
}

long wake_all(const Call& call) {
    const long r = call.in_kernel();
    if (r < 0 || in_handler()) return r;
    for (const long word : {call.word, call.other}) {
        auto* at = reinterpret_cast<std::uint32_t*>(word);
        if (waiters.any(at))
            rt->wake(at, INT_MAX); // (B): the call has changed the word, or read it
    }
    return r;
}

/// Of any thread.
long futex(const Call& call, const void* caller) {
    switch (call.command()) {
    case FUTEX_WAKE:
        return wake_some(call);
    case FUTEX_WAKE_BITSET:
        return call.bits == 0 ? call.in_kernel() : wake_some(call);
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
    case FUTEX_WAKE_OP:
        return wake_all(call);
    default:
        if (!on_m() || !may_park(kGroup_locks, caller)) return call.in_kernel();
        return is_wait(call) ? wait(call) : in_bracket(call);
    }
}

template <class T>
T as(long value) {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<T>(value);
    } else {
        return static_cast<T>(value);
    }
}
template <class R, class... Params, std::size_t... I>
long by(R (*function)(Params...), const long* args, std::index_sequence<I...>) {
    return function(as<Params>(args[I])...);
}
template <class R, class... Params>
long by(R (*function)(Params...), const long* args) {
    return by(function, args, std::index_sequence_for<Params...>());
}

/// What libc has a function for, of the same arguments and results, goes by that: it is a hook of
/// ours, which decides itself. What comes back in another way is left alone.
long of_goroutine(long number, const long* args) {
    switch (number) {
    case SYS_read:
        return by(::read, args);
    case SYS_write:
        return by(::write, args);
    case SYS_readv:
        return by(::readv, args);
    case SYS_writev:
        return by(::writev, args);
    case SYS_pread64:
        return by(::pread, args);
    case SYS_recvfrom:
        return by(::recvfrom, args);
    case SYS_sendto:
        return by(::sendto, args);
    case SYS_recvmsg:
        return by(::recvmsg, args);
    case SYS_sendmsg:
        return by(::sendmsg, args);
    case SYS_accept:
        return by(::accept, args);
    case SYS_accept4:
        return by(::accept4, args);
    case SYS_connect:
        return by(::connect, args);
    case SYS_poll:
        return by(::poll, args);
    case SYS_epoll_wait:
        return by(::epoll_wait, args);
    case SYS_close:
        return by(::close, args);
    case SYS_nanosleep:
        return by(::nanosleep, args);
    case SYS_clock_nanosleep:
        return finish(-by(::clock_nanosleep, args));
    case SYS_wait4:
        return by(::wait4, args);
    case SYS_exit:
    case SYS_exit_group:
    case SYS_clone:
    case SYS_clone3:
    case SYS_fork:
    case SYS_vfork:
    case SYS_rt_sigreturn:
        return real_syscall()(number, args[0], args[1], args[2], args[3], args[4], args[5]);
    default:
        return blocking(real_syscall(), number, args[0], args[1], args[2], args[3], args[4],
                        args[5]);
    }
}

} // namespace

long t_syscall(long number, long a, long b, long c, long d, long e, long f, const void* caller) {
    if (number == SYS_futex && (groups & kGroup_locks))
        return finish(futex({a, b, c, d, e, f}, caller));
    if (!on_m() || !may_park(kGroup_locks, caller)) return real_syscall()(number, a, b, c, d, e, f);
    const long args[] = {a, b, c, d, e, f};
    return of_goroutine(number, args);
}

} // namespace baton::preload
