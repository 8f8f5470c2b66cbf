// SPDX-License-Identifier: Apache-2.0
//
// The channel proper: a ring buffer and two queues of waiters under one lock (the reference's
// hchan).
//
// Threads: any.
// Invariants: I1 at least one of sendq and recvq is empty, except for one G that selects over both.
// I2 somebody waits to receive only while the buffer is empty, to send only while it is full.
// I3 once closed nobody waits. I4 a waiter that was claimed is its claimer's alone: its G stays
// parked until that one readies it, so the value is moved straight to or from its stack.
// Locks: kChan; a select takes those of all its channels, by address. Values move into and out of
// the buffer under it; straight from stack to stack after it is released.
// Ordering: the lock's; a value handed over directly is ordered by goready.
// A channel may be destroyed by who learns through it that nobody needs it any more. So once
// another can go on because of what was done, nothing of it is touched: the lock is released last
// (unlock_last), or a partner readied last, who still waits in it.
// Rejected: sudogs from a cache of the P's, as the reference has: the stacks here do not move, so a
// waiter may lie on its G's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "baton/chan.hpp"
#include "runtime/limit.hpp"
#include "runtime/lock.hpp"
#include "runtime/runtime.hpp"
#include "runtime/user_timer.hpp"

namespace baton::rt {

/// A G that waits on a channel; lies on its stack, or its thread's. A G that selects has one for
/// each case.
struct Sudog {
    G* g;
    void* elem; // where the value to send is, or the one received goes
    detail::ChanCore* chan;
    std::uint64_t wait; // 0: nobody but who dequeues it ends this wait; else to be claimed
    Sudog* next = nullptr;
    Sudog* prev = nullptr;
    bool success = false; // woken by a value, not by close
};

/// Guarded by the channel's lock, and readable without it, as a hint.
template <class T>
class Peeked {
public:
    // relaxed, both: under the lock the lock orders them; without it nothing is concluded from the
    // value but where to look first, or that there was such a moment.
    operator T() const { return value_.load(std::memory_order_relaxed); }
    Peeked& operator=(T value) {
        value_.store(value, std::memory_order_relaxed);
        return *this;
    }
    /// The same so that who has seen the value sees what was done before.
    // release, acquire: pair with each other.
    void publish(T value) { value_.store(value, std::memory_order_release); }
    T seen() const { return value_.load(std::memory_order_acquire); }

private:
    std::atomic<T> value_{};
};

/// Waiters, first come first served.
struct WaitQ {
    Peeked<Sudog*> first;
    Sudog* last = nullptr;

    void enqueue(Sudog* s) {
        s->prev = last;
        if (last) {
            last->next = s;
        } else {
            first = s;
        }
        last = s;
    }
    /// The first waiter that can be claimed, which is the caller's then.
    Sudog* dequeue() {
        for (;;) {
            Sudog* s = first;
            if (!s) return nullptr;
            remove(s);
            if (s->wait == 0 || claim_wait(s->g, s->wait)) return s;
        }
    }
    /// Takes `s` out, if it is still in.
    void remove(Sudog* s) {
        if (s->prev) {
            s->prev->next = s->next;
        } else if (first == s) {
            first = s->next;
        } else {
            return;
        }
        (s->next ? s->next->prev : last) = s->prev;
        s->next = s->prev = nullptr;
    }
};

/// How the values of a channel are moved.
enum class ElemKind : std::uint8_t { kEmpty, kBytes4, kBytes8, kBytes16, kBytes, kObject };

} // namespace baton::rt

namespace baton::detail {

struct alignas(64) ChanCore {
    rt::Lock lock{rt::Rank::kChan};
    rt::Peeked<bool> closed;
    rt::ElemKind kind = rt::ElemKind::kEmpty;
    std::uint32_t size = 0; // of an element
    rt::Peeked<std::uint32_t> count;
    std::uint32_t capacity = 0;
    std::uint32_t sendx = 0; // the next slot to fill
    std::uint32_t recvx = 0; // the next to empty
    rt::WaitQ recvq;
    rt::WaitQ sendq;
    // Seldom written, so on a line of its own.
    alignas(64) ElemType type{};
    std::byte* buffer = nullptr; // behind this, in the same allocation
    void* space = nullptr;       // which that is
    // Who sends to it, and may take back what it sent: to others the channel looks unbuffered. Goes
    // with the channel.
    rt::UserTimer* timer = nullptr;
    std::atomic<std::size_t> handles{1};

    std::byte* slot(std::uint32_t i) const { return buffer + std::size_t{i} * size; }
    std::uint32_t after(std::uint32_t i) const { return i + 1 == capacity ? 0 : i + 1; }

    /// Constructs *to from *from, which is left to be destroyed.
    void move(void* to, void* from) const {
        if (kind == rt::ElemKind::kBytes8) {
            std::memcpy(to, from, 8);
        } else if (kind == rt::ElemKind::kBytes4) {
            std::memcpy(to, from, 4);
        } else {
            move_other(to, from);
        }
    }
    /// The same, and destroys *from.
    void relocate(void* to, void* from) const {
        move(to, from);
        if (kind == rt::ElemKind::kObject) type.destroy(from);
    }

private:
    void move_other(void* to, void* from) const;
};

/// What a channel has for a sender or a receiver, at this moment and under its lock.
struct Offer {
    enum Kind : std::uint8_t { kNothing, kBuffer, kPartner, kClosed } kind;
    rt::Sudog* partner = nullptr; // claimed
};

inline Offer offer_to_send(ChanCore* c) {
    if (c->closed) return {Offer::kClosed};
    if (rt::Sudog* receiver = c->recvq.dequeue()) return {Offer::kPartner, receiver};
    return {c->count < c->capacity ? Offer::kBuffer : Offer::kNothing};
}

inline Offer offer_to_receive(ChanCore* c) {
    if (c->count > 0) return {Offer::kBuffer};
    if (rt::Sudog* sender = c->sendq.dequeue()) return {Offer::kPartner, sender};
    return {c->closed ? Offer::kClosed : Offer::kNothing};
}

inline ChanEnd given_up(WaitEnd end) {
    return end == WaitEnd::kTimedOut ? ChanEnd::kTimedOut : ChanEnd::kStopped;
}

/// Might there be an offer? Without the lock; a no was true at some moment of the call.
inline bool may_send(const ChanCore* c) {
    if (c->closed) return true;
    return c->capacity == 0 ? c->recvq.first != nullptr : c->count < c->capacity;
}
inline bool may_receive(const ChanCore* c) {
    return (c->capacity == 0 ? c->sendq.first != nullptr : c->count > 0) || c->closed;
}

/// Is it closed and empty for sure? That lasts, so no lock is needed; but who closes it must be
/// through with it.
inline bool drained(ChanCore* c) { return c->closed.seen() && c->count == 0 && c->lock.is_free(); }

/// The waiter has been claimed and the lock released. Whatever is to be read of it must have been:
/// it is on the stack of the G that now goes on.
inline void ready(rt::Sudog* waiter, bool success) {
    rt::G* gp = waiter->g;
    waiter->success = success;
    gp->param = waiter;
    rt::goready(gp);
}

/// Inline for an M: most of what else a value in a buffer takes is done in line, too.
inline void unlock_last(rt::Lock& lock) {
    if (const rt::M* m = rt::getm_or_null()) [[likely]]
        return lock.unlock_last(m->rseq);
    lock.unlock_last();
}

/// Moves a value into the buffer, which has room and nobody who waits; releases the lock.
inline void put(ChanCore* c, void* from) {
    c->move(c->slot(c->sendx), from);
    c->sendx = c->after(c->sendx);
    c->count = c->count + 1;
    unlock_last(c->lock);
}
/// The same out of a buffer that is not empty and that no sender waits for.
inline void take(ChanCore* c, void* to) {
    c->relocate(to, c->slot(c->recvx));
    c->recvx = c->after(c->recvx);
    c->count = c->count - 1;
    unlock_last(c->lock);
}

/// Takes up an offer other than kNothing; releases the lock. False: the channel is closed.
inline bool finish_send(ChanCore* c, Offer offer, void* from) {
    if (offer.kind == Offer::kPartner) {
        c->lock.unlock();
        c->move(offer.partner->elem, from);
        ready(offer.partner, true);
        return true;
    }
    if (offer.kind == Offer::kClosed) [[unlikely]] {
        c->lock.unlock();
        return false;
    }
    put(c, from);
    return true;
}

/// The same for a receive; false: closed and empty, so that nothing was constructed at `to`.
inline bool finish_receive(ChanCore* c, Offer offer, void* to) {
    if (offer.kind == Offer::kPartner) {
        c->lock.unlock();
        c->move(to, offer.partner->elem);
        ready(offer.partner, true);
        return true;
    }
    if (offer.kind == Offer::kClosed) [[unlikely]] {
        c->lock.unlock();
        return false;
    }
    if (!c->sendq.first) {
        take(c, to);
        return true;
    }
    std::byte* slot = c->slot(c->recvx);
    c->relocate(to, slot);
    c->recvx = c->after(c->recvx);
    rt::Sudog* sender = c->sendq.dequeue();
    if (!sender) {
        c->count = c->count - 1;
        c->lock.unlock_last();
        return true;
    }
    // It was full: the slot just emptied is the next to fill.
    c->move(slot, sender->elem);
    c->sendx = c->recvx;
    c->lock.unlock_last(); // its value may be received, and be the last, before it goes on
    ready(sender, true);
    return true;
}

} // namespace baton::detail
