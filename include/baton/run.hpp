// SPDX-License-Identifier: Apache-2.0
//
// Starting the runtime, its number of processors, and calls that block in the kernel.
//
// Fork: in the child only the thread that forked goes on, and it is a plain thread there, even if a
// goroutine forked: it may exec, _exit, do what needs no goroutine (sleep_for, yield and blocking
// included), and call run and go, which start a runtime of the child's own. A call that parks
// before that ends the child with a line that says so; the function of the goroutine that forked,
// when it returns, with status 0. The other goroutines never run in the child, whatever it does to
// what they wait for. Listeners and connections go on there, without their deadlines, and Pools,
// empty; other objects that another goroutine was using at the time of the fork (a locked Mutex, a
// Conn, Chan or Context in a call) stay in use for ever, as with threads. _Fork and clone tell the
// runtime nothing: only exec and _exit may follow. vfork, posix_spawn, system, popen and exec work
// on any goroutine.
//
// Exit: exit, the end of main, quick_exit and _exit end the process from any thread or goroutine;
// goroutines go on while the handlers and destructors of exit run, which may use the runtime.
//
// Signals: a handler runs on any thread that does not block its signal, on the stack of the
// goroutine there unless SA_ONSTACK is given. No call of baton's ends early for one; a system call
// inside blocking() does as without baton. A handler may call nothing of baton's. One kind of call
// may end with EINTR without any signal, inside blocking(): those that the kernel never starts
// again after one (epoll_wait, semop; not read, poll, nanosleep or futex), while a File's reads or
// writes are under way.
#pragma once

#include <concepts>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include "baton/go.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
/// A one-shot event on which a plain thread can wait for a goroutine.
class Done {
public:
    void set() noexcept;
    void wait() noexcept;

private:
    unsigned word_ = 0;
};
void check_run_allowed();
/// The thread that left its processor, for exitsyscall; null on a plain thread, or inside another
/// bracket.
void* entersyscall() noexcept;
void exitsyscall(void* entered) noexcept;
} // namespace detail

/// Runs `f` as a goroutine and waits for it; returns what it returns and rethrows what it throws.
/// Starts the runtime if need be. Other goroutines go on running after it returns, until the
/// process ends.
///
/// If all goroutines sleep for ever meanwhile, and nothing could wake one (a timer, a descriptor, a
/// blocking call, a thread of the program's own outside baton), the process prints what each waits
/// for, and where, and ends with exit code 2. Goroutines that only a signal handler would wake do
/// not count as waited for.
///
/// Called from a plain thread (main, usually); from a goroutine it is an error and throws
/// std::logic_error. Throws std::system_error when no thread or no stack can be had.
template <std::invocable F>
auto run(F&& f) -> std::invoke_result_t<F&> {
    using R = std::invoke_result_t<F&>;
    detail::check_run_allowed();
    detail::Done done;
    std::exception_ptr error;
    if constexpr (std::is_void_v<R>) {
        go([&] {
            try {
                std::invoke(f);
            } catch (...) {
                error = std::current_exception();
            }
            done.set();
        });
        done.wait();
        if (error) std::rethrow_exception(error);
    } else {
        std::optional<R> result;
        go([&] {
            try {
                result.emplace(std::invoke(f));
            } catch (...) {
                error = std::current_exception();
            }
            done.set();
        });
        done.wait();
        if (error) std::rethrow_exception(error);
        return std::move(*result);
    }
}

/// Runs `f`, which may block in the kernel, as an announced blocking call: when it blocks, the
/// processor passes to another thread at once. Costs a few nanoseconds when it does not block.
/// Returns what `f` returns; errno is left as `f` left it.
///
/// `f` runs on the goroutine's own stack and thread. Inside it the goroutine has no processor:
/// baton::go works there, but a call that would park (yield, sleep, channels, locks) ends the
/// process with a message. On a plain thread this just calls `f`.
template <std::invocable F>
auto blocking(F&& f) -> std::invoke_result_t<F> {
    struct Bracket {
        void* entered = detail::entersyscall();
        ~Bracket() {
            if (entered) detail::exitsyscall(entered);
        }
    } bracket;
    return std::invoke(std::forward<F>(f));
}

/// Locks the calling goroutine to the thread it is on: it runs nowhere else, and nothing else runs
/// there, until unlock_os_thread was called as often as this. For libraries with per-thread state,
/// and for threads whose own state is changed (signal mask, priority, CPUs, namespaces): threads
/// that the runtime makes later do not inherit any of it. If the goroutine ends while locked, its
/// thread ends too, running its thread_local destructors. The program's main thread is never one of
/// the runtime's threads, so nothing can be locked to it.
///
/// Never parks. Callable on any goroutine, inside blocking() too; on a plain thread it does
/// nothing. A switch to or from a locked goroutine is one between threads: several times the usual
/// cost.
void lock_os_thread() noexcept;
/// Undoes one lock_os_thread; without one it does nothing. The thread's state should be as it was
/// before: other goroutines will run there.
void unlock_os_thread() noexcept;

/// The number of processors: how many goroutines run at once. The default is the number of CPUs
/// this process may run on, bounded by its cgroup's quota, and follows both within about a second
/// when they change (an affinity mask that changes for the main thread alone is no change; the
/// quota never makes it less than 2). BATON_MAXPROCS and set_max_procs fix it.
[[nodiscard]] int max_procs() noexcept;

/// Sets the number of processors, 1 to 1024, and returns the former one. Stops the world for the
/// time it takes. Throws std::invalid_argument for a number out of range. Any thread. May park.
int set_max_procs(int n);

/// Sets how many threads may run goroutines or block in calls for them, 1 to 16,383, and returns
/// the former limit: 10,000, or BATON_MAXTHREADS. Where one more is needed, what it was to run
/// waits until one of the others returns, and the process says so once; stats() counts it. With
/// BATON_MAXTHREADS=10000,crash the process ends there with exit code 2 instead, as Go's does.
///
/// The runtime's helpers (sysmon, the standby threads, one that stands by at the probe) and the
/// program's own threads do not count. Threads there are already stay.
/// Throws std::invalid_argument for a number out of range. Any thread, at any time. Never parks.
int set_max_threads(int n);

} // namespace baton
#pragma GCC visibility pop
