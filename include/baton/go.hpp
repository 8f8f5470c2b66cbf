// SPDX-License-Identifier: Apache-2.0
//
// baton::go starts a goroutine: a function with a stack of its own, run by whichever thread holds a
// processor. Names and behaviour follow the Go runtime's `go` statement, runtime.Gosched and
// GOMAXPROCS.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#pragma GCC visibility push(default)
namespace baton {

/// What `go` may be told about a goroutine before it starts.
struct GoOptions {
    /// Bytes of stack, rounded up to a size the runtime keeps; 0 takes BATON_STACK, or 64 KiB.
    /// Memory is only used as far as the stack is touched.
    std::size_t stack_bytes = 0;
};

namespace detail {

/// A goroutine being made: where its callable goes, and the handle to commit or drop it with.
struct NewG {
    void* g;
    void* space;
};
NewG newproc_begin(std::size_t bytes, std::size_t align, const GoOptions& options);
void newproc_commit(void* g, void (*entry)(void*)) noexcept;
void newproc_abandon(void* g) noexcept;

template <class Call>
void run_call(void* space) {
    auto* call = static_cast<Call*>(space);
    struct Destroy {
        Call* call;
        ~Destroy() { call->~Call(); }
    } destroy{call};
    std::apply(
        [](auto&& f, auto&&... args) {
            std::invoke(std::forward<decltype(f)>(f), std::forward<decltype(args)>(args)...);
        },
        std::move(*call));
}

} // namespace detail

/// Starts a goroutine that calls `f(args...)`. Callable and arguments are decay-copied into it, as
/// std::thread does; up to 64 bytes of them cost no stack until it runs. The call allocates nothing
/// else and never parks.
///
/// May be called from any thread. From a plain thread the first call starts the runtime.
/// Throws std::system_error when the kernel refuses stack memory or the first thread.
/// An exception that escapes `f` ends the process with exit code 2, as a panic does, and is shown
/// with the stack of its throw (BATON_TRACEBACK).
template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
[[gnu::always_inline]] inline void go(const GoOptions& options, F&& f, Args&&... args) {
    using Call = std::tuple<std::decay_t<F>, std::decay_t<Args>...>;
    // Inlined, for that call's return address to be in who made the goroutine (`created by`).
    detail::NewG g = detail::newproc_begin(sizeof(Call), alignof(Call), options);
    if constexpr (std::is_nothrow_constructible_v<Call, F, Args...>) {
        ::new (g.space) Call(std::forward<F>(f), std::forward<Args>(args)...);
    } else {
        try {
            ::new (g.space) Call(std::forward<F>(f), std::forward<Args>(args)...);
        } catch (...) {
            detail::newproc_abandon(g.g);
            throw;
        }
    }
    detail::newproc_commit(g.g, &detail::run_call<Call>);
}

template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
[[gnu::always_inline]] inline void go(F&& f, Args&&... args) {
    go(GoOptions{}, std::forward<F>(f), std::forward<Args>(args)...);
}

/// Lets other goroutines of this processor run; the caller goes to the tail of its run queue.
/// On a plain thread this is sched_yield. May park.
void yield() noexcept;

/// The number of the calling goroutine, from 1 up and never used twice; 0 on a plain thread.
[[nodiscard]] std::uint64_t goid() noexcept;

} // namespace baton
#pragma GCC visibility pop
