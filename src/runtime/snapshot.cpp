// SPDX-License-Identifier: Apache-2.0
//
// Where a G's registers are: in its context if it parked; where stopped_at points if it waits for a
// P with its thread, which stays in that very call until it is handed one. Else it runs, and its
// thread is asked (ask.hpp).
//
// Gs that run without a P go on while the world is stopped, so what is read of one may be changing:
// it is for people, and at worst of two moments. ThreadSanitizer is told not to look.
#include "runtime/snapshot.hpp"

#include <algorithm>

#include "kernel/build.hpp"
#include "kernel/clock.hpp"
#include "runtime/galloc.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

using State = GoroutineSnap::State;
constexpr std::int64_t kAskForNs = 1'000'000'000; // all of them together

bool in_call(const M* m) {
    if (!m) return false;
    // relaxed: it may change at any moment.
    const auto s = std::atomic_ref(m->rec->state).load(std::memory_order_relaxed);
    return s == shared::M_SYSCALL || s == shared::M_BLOCKED;
}

BATON_NO_TSAN State state_of_g(const G* gp) {
    switch (gp->status.load(std::memory_order_relaxed)) { // relaxed: see G::status
    case GStatus::kWaiting:
        return State::kWaiting;
    case GStatus::kRunnable:
        return State::kRunnable;
    default:
        return in_call(gp->m) ? State::kSyscall : State::kRunning;
    }
}

bool runs(State s) { return s == State::kRunning || s == State::kSyscall; }

// Of a G that does not run. False: they are not to be had.
BATON_NO_TSAN bool walk_stopped(G* gp, Stack* stack) {
    if (const M* m = gp->lockedm) {
        // acquire: pairs with the release of who waits there; relaxed when it goes on, as nobody
        // hands it a P while the world is stopped. In a process that ends it may.
        const arch::Registers* at = m->stopped_at.load(std::memory_order_acquire);
        if (at) walk(*at, stack);
        return at != nullptr;
    }
    const auto* sp = static_cast<const std::byte*>(gp->sched.sp);
    if (sp < gp->stack_lo || sp >= stack_top(gp->stack)) return false;
    walk(arch::registers_of(gp->sched), stack);
    return true;
}

} // namespace

BATON_NO_TSAN GoroutineSnap snap(const G* gp) {
    GoroutineSnap s;
    s.goid = gp->goid;
    s.gp = gp;
    s.state = state_of_g(gp);
    s.m = runs(s.state) && gp->m ? gp->m->slot : 0;
    s.locked = gp->lockedm && gp->lockedm->lockedext != 0; // not if it was preempted there
    if (s.state == State::kWaiting) {
        s.reason = gp->waitreason;
        const auto now = static_cast<std::uint32_t>(kernel::nanotime() / 1'000'000'000);
        // relaxed: see note_wait.
        const std::uint32_t since = gp->waitsince.load(std::memory_order_relaxed);
        s.minutes = now > since ? (now - since) / 60 : 0;
    }
    s.gopc = gp->gopc;
    s.parent = gp->parent;
    return s;
}

void Snapshot::add(G* gp, Ask how) {
    Entry e{.goroutine = snap(gp), .first = pcs_.size()};
    Stack stack;
    bool had = false;
    e.begun = runs(e.goroutine.state) || gp->sched.sp;
    if (e.begun && !runs(e.goroutine.state)) {
        had = walk_stopped(gp, &stack);
    } else if (e.begun && gp->m && kernel::nanotime() < asked_until_) {
        had = ask_stack(gp->m, gp, how, &stack);
    }
    if (had) {
        e.n = stack.kept();
        e.elided = stack.elided();
        e.torn = stack.torn;
        for (std::uint32_t i = 0; i < e.n; i++) pcs_.push_back(stack[i]);
    }
    all_.push_back(e);
}

void Snapshot::take(Ask how, Wanted wanted, const void* arg) {
    struct Born {
        std::uint64_t goid;
        G* gp;
    };
    struct Found {
        Wanted wanted;
        const void* arg;
        Pages<Born> gs;
    } found{wanted, arg, {}};
    each_g(
        [](G* gp, void* to) {
            auto& f = *static_cast<Found*>(to);
            // relaxed: see G::status
            const GStatus status = gp->status.load(std::memory_order_relaxed);
            if (status == GStatus::kIdle || status == GStatus::kDead || gp->forks != forks) return;
            if (f.wanted(gp, f.arg)) f.gs.push_back({gp->goid, gp});
        },
        &found);
    std::sort(found.gs.begin(), found.gs.end(),
              [](const Born& a, const Born& b) { return a.goid < b.goid; });
    if (found.gs.size() > kMost) {
        left_out_ = found.gs.size() - kMost;
        found.gs.resize(kMost);
    }
    asked_until_ = kernel::nanotime() + kAskForNs;
    for (const Born& b : found.gs) add(b.gp, how);
}

StackSnap Snapshot::stack(std::size_t i) const {
    const Entry& e = all_[i];
    return {pcs_.data() + e.first, e.n, e.elided, e.torn, e.begun};
}

} // namespace baton::rt
