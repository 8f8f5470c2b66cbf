// SPDX-License-Identifier: Apache-2.0
//
// The order of a P's timers: a 4-ary heap by when, the times beside the pointers, so that to keep
// it in order touches no Timer.
//
// A P's heap of many timers is not in the cache when it is needed: between two firings their
// goroutines run. So the first entry lies in slot 3, which has the four children of each share a
// cache line, and while they are compared their own children are fetched. Of 290 ns that a timer of
// 50,000 takes to fire and be set again, with the goroutine's memory touched in between, either
// saves 50.
//
// Rejected: a bucket for each millisecond, and a heap for those of the present one alone. It saves
// another 60 ns there, but timers that are moved or stopped would have to be found in it.
//
// Threads: whoever holds the lock of the Timers it belongs to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/persistentalloc.hpp"

namespace baton::rt {

struct Timer;

struct TimerEntry {
    std::int64_t when;
    Timer* timer;
};

class TimerHeap {
public:
    bool empty() const { return size() == 0; }
    std::size_t size() const { return slots_.empty() ? 0 : slots_.size() - kFirst; }
    /// The earliest; not of an empty one.
    const TimerEntry& first() const { return slots_[kFirst]; }
    /// All of them, the earliest first and the others in no order.
    const TimerEntry* begin() const { return slots_.data() + (slots_.empty() ? 0 : kFirst); }
    const TimerEntry* end() const { return slots_.data() + slots_.size(); }

    /// Room for `n` in all.
    void reserve(std::size_t n) {
        if (slots_.empty()) {
            slots_.reserve(n + kFirst > kAtFirst ? n + kFirst : kAtFirst);
            slots_.resize(kFirst);
        } else {
            slots_.reserve(n + kFirst);
        }
    }
    void push(const TimerEntry& entry) {
        if (slots_.empty()) reserve(0);
        slots_.push_back(entry);
        rise(slots_.size() - 1, entry);
    }
    void pop() {
        const TimerEntry last = slots_.back();
        slots_.pop_back();
        if (!empty()) sink(kFirst, last);
    }
    /// The earliest is due at `when` now.
    void move_first(std::int64_t when) { sink(kFirst, {when, first().timer}); }
    /// Keeps the entries that `keep` returns true of; it may change their times.
    template <class Keep>
    void sweep(Keep keep) {
        std::size_t n = 0;
        const std::size_t before = size();
        for (std::size_t i = 0; i < before; i++) {
            TimerEntry entry = slots_[kFirst + i];
            if (keep(entry)) slots_[kFirst + n++] = entry;
        }
        if (before != 0) slots_.resize(kFirst + n);
        if (n < 2) return;
        for (std::size_t i = parent(slots_.size() - 1); i >= kFirst; i--) sink(i, slots_[i]);
    }

private:
    static constexpr std::size_t kArity = 4;
    static constexpr std::size_t kFirst = kArity - 1;
    static constexpr std::size_t kAtFirst = 4096 / sizeof(TimerEntry);

    static constexpr std::size_t parent(std::size_t i) { return i / kArity + 2; }
    static constexpr std::size_t children(std::size_t i) { return (i - 2) * kArity; }

    void rise(std::size_t i, TimerEntry entry) {
        for (; i > kFirst; i = parent(i)) {
            if (slots_[parent(i)].when <= entry.when) break;
            slots_[i] = slots_[parent(i)];
        }
        slots_[i] = entry;
    }
    void sink(std::size_t i, TimerEntry entry) {
        const std::size_t n = slots_.size();
        for (;;) {
            const std::size_t c = children(i);
            if (c >= n) break;
            if (children(c) < n) prefetch_families(&slots_[children(c)]);
            const std::size_t least =
                c + kArity <= n ? c + least_of_four(&slots_[c]) : least_from(c);
            if (slots_[least].when >= entry.when) break;
            slots_[i] = slots_[least];
            i = least;
        }
        slots_[i] = entry;
    }
    /// The children of four siblings: on the way down one of the families is next.
    static void prefetch_families(const TimerEntry* of_first) {
        for (std::size_t i = 0; i < kArity; i++) __builtin_prefetch(of_first + i * kArity, 1);
    }
    /// Without branches, which nobody could foretell.
    static std::size_t least_of_four(const TimerEntry* e) {
        const std::size_t a = e[1].when < e[0].when;
        const std::size_t b = 2 + static_cast<std::size_t>(e[3].when < e[2].when);
        return e[b].when < e[a].when ? b : a;
    }
    std::size_t least_from(std::size_t c) const {
        std::size_t least = c;
        for (std::size_t i = c + 1; i < slots_.size(); i++)
            if (slots_[i].when < slots_[least].when) least = i;
        return least;
    }

    // Page-aligned; those before kFirst are not used.
    std::vector<TimerEntry, PageAllocator<TimerEntry>> slots_;
};

} // namespace baton::rt
