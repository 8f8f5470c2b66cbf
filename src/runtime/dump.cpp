// SPDX-License-Identifier: Apache-2.0
//
// The work is done by a goroutine of its own: who stops the world needs a P, and who finds names a
// deep stack. While the world stands nothing allocates (snapshot.hpp); names are found afterwards.
#include "runtime/dump.hpp"

#include <sys/syscall.h>

#include <exception>
#include <string>

#include "baton/debug.hpp"
#include "baton/go.hpp"
#include "kernel/syscall.hpp"
#include "runtime/crash.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "runtime/sema.hpp"

namespace baton::rt {

namespace {

constexpr std::size_t kDeepStack = std::size_t{1} << 20;

/// The world is stopped for a scope, by a goroutine.
class StoppedWorld {
public:
    StoppedWorld() { stop_the_world(); }
    ~StoppedWorld() { start_the_world(); }
    StoppedWorld(const StoppedWorld&) = delete;
    StoppedWorld& operator=(const StoppedWorld&) = delete;

private:
    EntryWithP entry_;
};

void append(const std::string& text, void* to) { static_cast<std::string*>(to)->append(text); }

Show show() { return {traceback_level() >= Traceback::kSystem, false}; }

/// Runs f on a goroutine with a deep stack, and waits for it. Throws what f throws.
template <class F>
void on_deep_stack(F f) {
    std::atomic<std::uint32_t> sema{0};
    std::exception_ptr error;
    go({.stack_bytes = kDeepStack}, [&] {
        try {
            f();
        } catch (...) {
            error = std::current_exception();
        }
        Entry entry;
        semrelease(&sema);
    });
    {
        Entry entry;
        semacquire(&sema, false, WaitReason::kStackDump);
    }
    if (error) std::rethrow_exception(error);
}

/// The caller of stack_dump, as it was there.
struct Caller {
    const G* gp; ///< null: a plain thread
    Stack stack;

    std::string text(Symbolizer& symbols) const {
        char head[256];
        std::size_t n;
        GoroutineSnap g;
        if (gp) {
            g = snap(gp);
            g.state = GoroutineSnap::State::kRunning;
            g.minutes = 0;
            n = header(g, show().runtime, head, sizeof head);
        } else {
            n = static_cast<std::size_t>(
                std::snprintf(head, sizeof head, "thread %d [running]:\n", tid));
        }
        std::uintptr_t pcs[Stack::kInner + Stack::kOuter];
        std::string all(head, n);
        all.append(frames(snap(stack, pcs), show(), symbols));
        return all.append(created_by(g, symbols));
    }
    int tid = static_cast<int>(kernel::raw_syscall(SYS_gettid));
};

bool neither_caller_nor_us(const G* gp, const void* caller) {
    return gp != getg() && gp != static_cast<const Caller*>(caller)->gp;
}

bool leaked(const G* gp, const void*) {
    // relaxed: see G::status
    if (gp->status.load(std::memory_order_relaxed) != GStatus::kWaiting) return false;
    switch (gp->waitreason) {
    case WaitReason::kNone:
    case WaitReason::kSleep:
    case WaitReason::kIoWait:
    case WaitReason::kFdReadLock:
    case WaitReason::kFdWriteLock:
    case WaitReason::kStackDump:
    case WaitReason::kStoppingTheWorld:
        return false;
    default:
        return true;
    }
}

void print_leaks() {
    Snapshot leaks;
    {
        StoppedWorld stopped;
        leaks.take(Ask::kGently, leaked, nullptr);
    }
    if (leaks.size() == 0) return;
    warn("leak: at exit %zu goroutines wait for a channel or a lock", leaks.total());
    Symbolizer symbols;
    write_goroutines(
        leaks, show(), symbols,
        [](const std::string& text, void*) {
            kernel::raw_syscall(SYS_write, 2, text.data(), text.size());
        },
        nullptr);
}

} // namespace

void report_leaks() noexcept {
    const M* m = getm_or_null();
    if (!started() || (m && in_bracket(m))) return;
    try {
        on_deep_stack(print_leaks);
    } catch (const std::exception& e) {
        warn("no leak report: %s", e.what());
    }
}

} // namespace baton::rt

namespace baton {

std::string stack_dump(bool all) {
    using namespace rt;
    must_park("stack_dump");
    const M* m = getm_or_null();
    Caller caller{m ? m->curg : nullptr, {}};
    walk_here(&caller.stack);
    std::string text;
    on_deep_stack([&] {
        Snapshot others;
        if (all) {
            StoppedWorld stopped;
            others.take(Ask::kGently, neither_caller_nor_us, &caller);
        }
        Symbolizer symbols;
        text = caller.text(symbols);
        write_goroutines(others, show(), symbols, append, &text);
        if (all) write_threads(append, &text);
    });
    return text;
}

} // namespace baton
