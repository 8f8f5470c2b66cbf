// SPDX-License-Identifier: Apache-2.0
//
// System calls without libc: the result or -errno, and errno is never touched.
//
// A goroutine may enter a system call on one thread and go on after it on another. The address
// of errno is a constant to the compiler (__errno_location is declared `const`), so it may be
// computed once, before the move, and used after it: the goroutine would then read, or write,
// the errno of a thread it no longer runs on. Nothing in the runtime goes through errno for
// that reason, and these calls keep the caller's errno as it was, as a scheduler entered from
// the middle of anybody's code must.
//
// Threads: any thread, signal handlers included.
//
// Rejected: syscall(2), which stores errno in the thread found by FS; a goroutine with its own
// FS would have the store go to the wrong place, and the wrapper costs a call. Library wrappers
// that do more than the call (raise, fork) are out for the same reason. Not a cancellation
// point, ever: threads of the runtime are not cancelled.
#pragma once

#include <cstddef>
#include <type_traits>

#include <sys/syscall.h>

namespace baton::kernel {

namespace detail {

/// An argument as the kernel takes it: pointers by address, integers and enums by value.
template <class T>
[[gnu::always_inline]] inline long syscall_word(T value) noexcept {
    if constexpr (std::is_null_pointer_v<T>) {
        return 0;
    } else if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<long>(value);
    } else {
        static_assert(std::is_integral_v<T> || std::is_enum_v<T>);
        return static_cast<long>(value);
    }
}

} // namespace detail

#if defined(__x86_64__)

// rax = number, then result; arguments in rdi rsi rdx r10 r8 r9; rcx and r11 are lost.
// Each sysN is its own statement of that, so that unused argument registers stay free.

[[gnu::always_inline]] inline long sys0(long nr) noexcept {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(nr) : "rcx", "r11", "memory", "cc");
    return result;
}

[[gnu::always_inline]] inline long sys1(long nr, long a) noexcept {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(nr), "D"(a) : "rcx", "r11", "memory", "cc");
    return result;
}

[[gnu::always_inline]] inline long sys2(long nr, long a, long b) noexcept {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b) : "rcx", "r11", "memory", "cc");
    return result;
}

[[gnu::always_inline]] inline long sys3(long nr, long a, long b, long c) noexcept {
    long result;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c)
                 : "rcx", "r11", "memory", "cc");
    return result;
}

[[gnu::always_inline]] inline long sys4(long nr, long a, long b, long c, long d) noexcept {
    long result;
    register long r10 asm("r10") = d;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
                 : "rcx", "r11", "memory", "cc");
    return result;
}

[[gnu::always_inline]] inline long sys5(long nr, long a, long b, long c, long d, long e) noexcept {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                 : "rcx", "r11", "memory", "cc");
    return result;
}

[[gnu::always_inline]] inline long sys6(long nr, long a, long b, long c, long d, long e,
                                        long f) noexcept {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory", "cc");
    return result;
}

#else
#error "baton::kernel::raw_syscall: only x86-64 is written"
#endif

/// raw_syscall(__NR_read, fd, buffer, size): at most six integers, enums or pointers.
/// The result, or -errno.
template <class... Args>
[[gnu::always_inline]] inline long raw_syscall(long nr, Args... args) noexcept {
    static_assert(sizeof...(Args) <= 6);
    using detail::syscall_word;
    if constexpr (sizeof...(Args) == 0) {
        return sys0(nr);
    } else if constexpr (sizeof...(Args) == 1) {
        return sys1(nr, syscall_word(args)...);
    } else if constexpr (sizeof...(Args) == 2) {
        return sys2(nr, syscall_word(args)...);
    } else if constexpr (sizeof...(Args) == 3) {
        return sys3(nr, syscall_word(args)...);
    } else if constexpr (sizeof...(Args) == 4) {
        return sys4(nr, syscall_word(args)...);
    } else if constexpr (sizeof...(Args) == 5) {
        return sys5(nr, syscall_word(args)...);
    } else {
        return sys6(nr, syscall_word(args)...);
    }
}

} // namespace baton::kernel
