// SPDX-License-Identifier: Apache-2.0
//
// libbaton_preload.so: a blocking call of libc, made on a goroutine, parks it; on any other thread
// it is libc's own, by a tail call. A hook is an optimisation: what none covers blocks its thread,
// and the runtime hands the processor off.
//
// The library has no runtime and needs none: it depends on libc alone, and waits to be told of the
// one in the process (attach.cpp, runtime/hooks_v1.h).
//
// Threads: everything here runs on any thread, from before the first constructor on, and in forked
// children; what parks is said to. Nothing allocates by malloc.
// errno: a goroutine that parks may go on on another thread, so nothing here lets the compiler keep
// errno's address; results are -errno until they are returned (finish).
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <cwchar>

#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <semaphore.h>
#include <shadow.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <threads.h>

#include "kernel/syscall.hpp"
#include "runtime/hooks_v1.h"

namespace baton::preload {

using kernel::raw_syscall;

inline constexpr std::int64_t kNever = INT64_MAX;
inline constexpr std::int64_t kNsPerS = 1'000'000'000;

// ---- groups.cpp, attach.cpp ----

// NOLINTBEGIN(readability-identifier-naming): the ends of the names are the table's
enum Group : unsigned {
    kGroup_sockets = 1,
    kGroup_files = 2,
    kGroup_sleep = 4,
    kGroup_names = 8,
    kGroup_locks = 16,
    kAllGroups = 31
};
// NOLINTEND(readability-identifier-naming)

/// What BATON_HOOKS chooses. A bad value ends the process with one line.
unsigned chosen_groups();

/// Null until the runtime has started. Never changes then.
extern const baton_hooks_v1* rt;
extern unsigned groups;
extern long m_offset; // rt's; 0 before

/// Does this thread run goroutines? False is final for the caller; true needs a closer look.
[[gnu::always_inline]] inline bool on_m() {
    const long offset = m_offset;
    if (offset == 0) [[likely]]
        return false;
    void* m;
    asm volatile("movq %%fs:(%1), %0" : "=r"(m) : "r"(offset));
    return m != nullptr;
}
/// Is this a goroutine's call, for us to handle? Not an allocator's: it keeps what belongs to the
/// thread at hand across its calls, and a goroutine may change threads in each.
[[nodiscard]] bool may_park(unsigned group, const void* caller);
/// On a goroutine, even where it may not park.
[[nodiscard]] bool on_goroutine(unsigned group, const void* caller);

// ---- real.cpp ----

#define PARK(group, type, name, params, args) kReal_##name,
#define SAME(group, type, name, params, target, args) kReal_##name,
enum RealIndex : unsigned {
#include "preload/symbols.def"
    kReals
};

extern void* real_slots[kReals];
extern const char* const kRealNames[kReals];
/// Null if nobody has asked for it yet.
[[gnu::always_inline]] inline void* known_real(RealIndex i) {
    // relaxed: a race is harmless, as all find the same.
    return std::atomic_ref(real_slots[i]).load(std::memory_order_relaxed);
}
/// The definition of a symbol that comes after ours: libc's, or that of another library which
/// stands before libc. Found without dlsym, which allocates and takes locks of its own.
void* find_real(RealIndex i);
[[gnu::always_inline]] inline void* real_at(RealIndex i) {
    void* f = known_real(i);
    return f ? f : find_real(i);
}

// NOLINTBEGIN(bugprone-macro-parentheses): types and lists of parameters do not take them
#define PARK(group, type, name, params, args)                                                      \
    [[gnu::always_inline]] inline auto real_##name() {                                             \
        return reinterpret_cast<type(*) params>(real_at(kReal_##name));                            \
    }
#define SAME(group, type, name, params, target, args) PARK(group, type, name, params, args)
#include "preload/symbols.def"
// NOLINTEND(bugprone-macro-parentheses)

// The hooks themselves.
#define BATON_BARE(...) __VA_ARGS__
#define PARK(group, type, name, params, args) type g_##name params;
#define OWNER(group, type, name, params, args) type g_##name params;
#define LAST(group, type, name, params, args) type t_##name(BATON_BARE params, const void* caller);
#define CALL(...)
#define SAME(...)
#define OWNER_SAME(...)
#include "preload/symbols.def"

// ---- support ----

void set_errno(int err);
[[nodiscard]] int get_errno();
/// A system call's result as libc returns it.
inline long finish(long r) {
    if (r >= 0) return r;
    set_errno(static_cast<int>(-r));
    return -1;
}

/// An announced blocking call.
class Bracket {
public:
    Bracket() : entered_(rt->enter()) {}
    ~Bracket() {
        if (entered_) rt->leave(entered_);
    }
    Bracket(const Bracket&) = delete;
    Bracket& operator=(const Bracket&) = delete;

private:
    void* entered_;
};
template <class F, class... Args>
auto blocking(F f, Args... args) {
    Bracket bracket;
    return f(args...);
}

std::int64_t now_ns(clockid_t clock = CLOCK_MONOTONIC);
inline bool valid(const timespec& t) {
    return t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < kNsPerS;
}
/// Nanoseconds, as many as can be counted at most.
inline std::int64_t to_ns(const timespec& t) {
    if (t.tv_sec >= kNever / kNsPerS - 1) return kNever;
    return t.tv_sec * kNsPerS + t.tv_nsec;
}
inline timespec to_timespec(std::int64_t ns) { return {ns / kNsPerS, ns % kNsPerS}; }
/// The monotonic clock in `ns` nanoseconds; kNever if that is out of reach.
inline std::int64_t deadline_in(std::int64_t ns) {
    const std::int64_t now = now_ns();
    return ns >= kNever - now ? kNever : now + ns;
}
inline std::int64_t deadline_in_ms(int ms) {
    return ms < 0 ? kNever : deadline_in(std::int64_t{ms} * 1'000'000);
}

} // namespace baton::preload
