// SPDX-License-Identifier: Apache-2.0
//
// The channel proper: a ring buffer and two queues of waiters under one lock (the reference's
// hchan).
//
// Threads: any.
// Invariants: I1 at least one of sendq and recvq is empty, except for one G that selects over both.
// I2 somebody waits to receive only while the buffer is empty, to send only while it is full.
// I3 once closed nobody waits. I4 a waiter that is off its queue is its dequeuer's alone: its G
// stays parked until that one readies it, so the value is moved straight to or from its stack.
// Locks: kChan. Values move into and out of the buffer under it; straight from stack to stack after
// it is released.
// Ordering: the lock's; a value handed over directly is ordered by goready.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "baton/chan.hpp"
#include "runtime/lock.hpp"
#include "runtime/runtime.hpp"

namespace baton::rt {

/// A G that waits on a channel; lies on its stack, or its thread's. A G that selects has one for
/// each case.
struct Sudog {
    G* g;
    void* elem; // where the value to send is, or the one received goes
    detail::ChanCore* chan;
    Sudog* next = nullptr;
    Sudog* prev = nullptr;
    bool is_select = false; // others wait for the same G: the first to claim it has it
    bool success = false;   // woken by a value, not by close
};

/// Waiters, first come first served.
struct WaitQ {
    Sudog* first = nullptr;
    Sudog* last = nullptr;

    bool empty() const { return first == nullptr; }
    void enqueue(Sudog* s) {
        s->prev = last;
        (last ? last->next : first) = s;
        last = s;
    }
    Sudog* dequeue() {
        Sudog* s = first;
        if (!s) return nullptr;
        first = s->next;
        (first ? first->prev : last) = nullptr;
        return s;
    }
};

/// How the values of a channel are moved.
enum class ElemKind : std::uint8_t { kEmpty, kBytes4, kBytes8, kBytes16, kBytes, kObject };

} // namespace baton::rt

namespace baton::detail {

struct alignas(64) ChanCore {
    rt::Lock lock{rt::Rank::kChan};
    bool closed = false;
    rt::ElemKind kind = rt::ElemKind::kEmpty;
    std::uint32_t size = 0; // of an element
    std::uint32_t count = 0;
    std::uint32_t capacity = 0;
    std::uint32_t sendx = 0; // the next slot to fill
    std::uint32_t recvx = 0; // the next to empty
    rt::WaitQ recvq;
    rt::WaitQ sendq;
    // Seldom written, so on a line of its own.
    alignas(64) ElemType type{};
    std::byte* buffer = nullptr; // behind this, in the same allocation
    std::atomic<std::size_t> handles{1};

    std::byte* slot(std::uint32_t i) const { return buffer + std::size_t{i} * size; }
    std::uint32_t after(std::uint32_t i) const { return i + 1 == capacity ? 0 : i + 1; }

    /// Constructs *to from *from, which is left to be destroyed.
    void move(void* to, void* from) const {
        switch (kind) {
        case rt::ElemKind::kBytes8:
            std::memcpy(to, from, 8);
            return;
        case rt::ElemKind::kBytes4:
            std::memcpy(to, from, 4);
            return;
        case rt::ElemKind::kBytes16:
            std::memcpy(to, from, 16);
            return;
        case rt::ElemKind::kEmpty:
            return;
        case rt::ElemKind::kBytes:
            std::memcpy(to, from, size);
            return;
        case rt::ElemKind::kObject:
            type.move(to, from);
            return;
        }
    }
    /// The same, and destroys *from.
    void relocate(void* to, void* from) const {
        move(to, from);
        if (kind == rt::ElemKind::kObject) type.destroy(from);
    }
};

} // namespace baton::detail
