// SPDX-License-Identifier: Apache-2.0
//
// Timers::run and what keeps the heap in order. A stopped timer stays in the heap as a zombie until
// it comes to the head or zombies are more than a quarter; a moved one keeps its old entry until
// that comes to the head (moved back) or the new time is due (moved up).
#include "runtime/timer.hpp"

#include <algorithm>

#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

// So many leave the heap under one hold of its lock.
constexpr std::uint32_t kDueAtOnce = 32;

// As much of what a timer was set for is looked at first: what a switch needs of a G.
constexpr std::size_t kArgBytes = 64;

inline void prefetch(const void* at, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch(static_cast<const char*>(at) + i, 1);
    __builtin_prefetch(static_cast<const char*>(at) + bytes - 1, 1);
}

/// Takes the timer out of what Timers guards; its entry must be dropped in the same breath.
void leave(Timer* t) noexcept {
    t->zombie = false;
    // release: pairs with the acquire of the CAS in arm, so that who arms it next, under another
    // heap's lock, writes its fields after we have read them.
    t->heap.store(nullptr, std::memory_order_release);
}

} // namespace

bool timer_reset(Timer* t, std::int64_t when, Timer::Fn f, void* arg, std::uintptr_t seq) {
    P* p = current_p();
    if (!p) p = sched.allp[0]; // on credit, or on a plain thread; this one never goes
    const Timers::Armed armed = p->timers.arm(t, when, f, arg, seq);
    if (armed.sooner) wake_netpoller(when);
    return armed.pending;
}

bool timer_stop(Timer* t) {
    for (;;) {
        // acquire: pairs with the CAS in arm; the heap named has been constructed.
        Timers* home = t->heap.load(std::memory_order_acquire);
        if (!home) return false;
        LockGuard guard(home->lock);
        // relaxed: only changes to or from `home` matter, and those are made under its lock.
        if (t->heap.load(std::memory_order_relaxed) != home) continue;
        if (t->zombie) return false;
        t->zombie = true;
        home->zombies++;
        if (home->heap.first().timer == t) home->clean_head();
        if (home->zombies > home->heap.size() / 4) home->adjust();
        home->publish();
        return true;
    }
}

// noexcept: a G that is being parked cannot be told that there is no memory for its timer.
Timers::Armed Timers::arm(Timer* t, std::int64_t when, Timer::Fn f, void* arg,
                          std::uintptr_t seq) noexcept {
    for (;;) {
        // acquire: pairs with the CAS below; the heap named has been constructed.
        Timers* at = t->heap.load(std::memory_order_acquire);
        const bool fresh = !at;
        Timers* home = fresh ? this : at;
        LockGuard guard(home->lock);
        // acquire: pairs with the release in leave. release: with the acquire loads of `heap`.
        // relaxed on failure, and for the second look: as in timer_stop, we look again.
        if (fresh ? !t->heap.compare_exchange_strong(at, home, std::memory_order_acq_rel,
                                                     std::memory_order_relaxed)
                  : t->heap.load(std::memory_order_relaxed) != home)
            continue;
        t->f = f;
        t->arg = arg;
        t->seq = seq;
        const bool pending = home->place(t, std::max<std::int64_t>(when, 1), fresh);
        return {pending, home->publish()};
    }
}

/// Enters a fresh timer, or notes that one is to be moved. True if it was pending.
bool Timers::place(Timer* t, std::int64_t when, bool fresh) {
    t->when = when;
    if (fresh) {
        t->entry_when = when;
        heap.push({when, t});
        return false;
    }
    const bool pending = !t->zombie;
    if (t->zombie) {
        t->zombie = false;
        zombies--;
    }
    if (heap.first().timer == t) {
        clean_head();
    } else if (when < t->entry_when && (moved_when == 0 || when < moved_when)) {
        moved_when = when;
    }
    return pending;
}

std::int64_t Timers::run(std::int64_t now, std::uint32_t most) {
    // relaxed: the owner sees its own arming; a thief that misses one just made looks again, by the
    // seq_cst load of (B), before it sleeps.
    std::int64_t next = next_when.load(std::memory_order_relaxed);
    while (next != 0 && next <= now && most != 0) {
        Due due[kDueAtOnce];
        lock.lock();
        const std::uint32_t n = take_due(now, due, std::min(most, kDueAtOnce));
        publish();
        lock.unlock();
        for (std::uint32_t i = 0; i < n; i++) due[i].f(due[i].arg, due[i].seq, now - due[i].when);
        most -= n;
        next = next_when.load(std::memory_order_relaxed); // relaxed: as above
    }
    return next;
}

// The heap alone is read first, and what its entries point to meanwhile fetched: with many timers
// each is a cache miss, and so is what it was set for.
std::uint32_t Timers::take_due(std::int64_t now, Due* due, std::uint32_t most) noexcept {
    if (moved_when != 0 && moved_when <= now) adjust();
    TimerEntry popped[kDueAtOnce];
    std::uint32_t npopped = 0;
    for (; npopped < most && !heap.empty() && heap.first().when <= now; npopped++) {
        popped[npopped] = heap.first();
        heap.pop();
    }
    for (std::uint32_t i = 0; i < npopped; i++) __builtin_prefetch(popped[i].timer, 1);
    for (std::uint32_t i = 0; i < npopped; i++)
        __builtin_prefetch(reinterpret_cast<const char*>(popped[i].timer) + sizeof(Timer) - 1, 1);
    if (!heap.empty()) __builtin_prefetch(heap.first().timer);
    std::uint32_t n = 0;
    for (std::uint32_t i = 0; i < npopped; i++) {
        Timer* t = popped[i].timer;
        if (t->zombie) {
            zombies--;
        } else if (t->when != popped[i].when) {
            t->entry_when = t->when;
            heap.push({t->when, t});
            if (t->when > now) continue;
            // It is due after others, which are put back until then.
            while (++i < npopped) heap.push(popped[i]);
            break;
        } else {
            prefetch(t->arg, kArgBytes);
            due[n++] = {t->f, t->arg, t->seq, t->when};
        }
        leave(t);
    }
    clean_head();
    if (zombies > heap.size() / 4) adjust();
    return n;
}

void Timers::take(Timers& from) {
    // One lock at a time: they are of one rank, and nobody else is about.
    TimerHeap moved;
    {
        LockGuard guard(from.lock);
        from.adjust();
        std::swap(moved, from.heap);
        from.publish();
    }
    LockGuard guard(lock);
    heap.reserve(heap.size() + moved.size());
    for (const TimerEntry& entry : moved) {
        // relaxed: the world is stopped, and starting it orders this.
        entry.timer->heap.store(this, std::memory_order_relaxed);
        heap.push(entry);
    }
    publish();
}

/// Says when the first is due. True if that is sooner than what was said before.
bool Timers::publish() noexcept {
    if (heap.empty()) moved_when = 0; // who was to be moved has been stopped
    std::int64_t first = heap.empty() ? 0 : heap.first().when;
    if (moved_when != 0 && (first == 0 || moved_when < first)) first = moved_when;
    // relaxed: it is written under the lock that we hold.
    const std::int64_t said = next_when.load(std::memory_order_relaxed);
    if (first == said) return false;
    if (first != 0 && (said == 0 || first < said)) {
        // seq_cst: (A) next_when, then the look for a sleeper in wake_netpoller. With less, this
        // store could still be in the store buffer when that look finds nobody, and (B) the sleeper
        // not see it.
        next_when.store(first, std::memory_order_seq_cst);
        return true;
    }
    // relaxed: who reads the old, earlier time wakes up early and looks again.
    next_when.store(first, std::memory_order_relaxed);
    return false;
}

/// Restores I3.
void Timers::clean_head() noexcept {
    while (!heap.empty()) {
        Timer* t = heap.first().timer;
        if (t->zombie) {
            leave(t);
            zombies--;
            heap.pop();
        } else if (t->entry_when != t->when) {
            t->entry_when = t->when;
            heap.move_first(t->when);
        } else {
            return;
        }
    }
}

/// Drops all zombies and puts every timer where it belongs: one pass over the heap.
void Timers::adjust() noexcept {
    heap.sweep([](TimerEntry& entry) {
        Timer* t = entry.timer;
        if (t->zombie) {
            leave(t);
            return false;
        }
        entry.when = t->entry_when = t->when;
        return true;
    });
    zombies = 0;
    moved_when = 0;
}

} // namespace baton::rt
