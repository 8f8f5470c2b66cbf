// SPDX-License-Identifier: Apache-2.0
//
// Send, receive and close, in the order of the reference's chan.go.
#include "chan/chan.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "runtime/entry.hpp"

namespace baton::detail {

namespace {

using rt::ElemKind;
using rt::Sudog;
using rt::WaitReason;

ElemKind kind_of(const ElemType& type) {
    if (type.move) return ElemKind::kObject;
    switch (type.size) {
    case 0:
        return ElemKind::kEmpty;
    case 4:
        return ElemKind::kBytes4;
    case 8:
        return ElemKind::kBytes8;
    case 16:
        return ElemKind::kBytes16;
    default:
        return ElemKind::kBytes;
    }
}

/// Where the buffer begins, from the start of the allocation.
std::size_t header_bytes(const ElemType& type) {
    return (sizeof(ChanCore) + type.align - 1) / type.align * type.align;
}

std::size_t alignment(const ElemType& type) { return std::max(type.align, alignof(ChanCore)); }

/// The two directions, so that what they have in common is written once.
struct Sending {
    static constexpr const char* kWhat = "Chan::send";
    static constexpr WaitReason kReason = WaitReason::kChanSend;
    static constexpr WaitReason kNilReason = WaitReason::kChanSendNil;
    static rt::WaitQ& queue(ChanCore* c) { return c->sendq; }
    static bool maybe(const ChanCore* c) { return may_send(c); }
    static bool is_over(ChanCore*) { return false; }
    /// Done, and the lock released, if it takes but the buffer.
    static bool buffered(ChanCore* c, void* elem) {
        if (c->count >= c->capacity || c->closed || c->recvq.first) return false;
        put(c, elem);
        return true;
    }
    static Offer offer(ChanCore* c) { return offer_to_send(c); }
    static bool finish(ChanCore* c, Offer o, void* elem) { return finish_send(c, o, elem); }
};
struct Receiving {
    static constexpr const char* kWhat = "Chan::recv";
    static constexpr WaitReason kReason = WaitReason::kChanReceive;
    static constexpr WaitReason kNilReason = WaitReason::kChanReceiveNil;
    static rt::WaitQ& queue(ChanCore* c) { return c->recvq; }
    static bool maybe(const ChanCore* c) { return may_receive(c); }
    static bool is_over(ChanCore* c) { return drained(c); }
    static bool buffered(ChanCore* c, void* elem) {
        if (c->count == 0 || c->sendq.first) return false;
        take(c, elem);
        return true;
    }
    static Offer offer(ChanCore* c) { return offer_to_receive(c); }
    static bool finish(ChanCore* c, Offer o, void* elem) { return finish_receive(c, o, elem); }
};

constexpr ChanEnd done_or_closed(bool done) { return done ? ChanEnd::kDone : ChanEnd::kClosed; }

template <class Direction>
[[gnu::noinline]] ChanEnd take_up(ChanCore* c, void* elem) {
    const Offer offer = Direction::offer(c);
    if (offer.kind == Offer::kNothing) return ChanEnd::kNotReady;
    return done_or_closed(Direction::finish(c, offer, elem));
}

/// If that can be done without waiting; with kNotReady the lock is held.
template <class Direction>
[[gnu::always_inline]] inline ChanEnd at_once(ChanCore* c, void* elem) {
    c->lock.lock();
    return Direction::buffered(c, elem) ? ChanEnd::kDone : take_up<Direction>(c, elem);
}

/// What Go does with a nil channel.
template <class Direction>
[[noreturn]] void park_for_ever() {
    rt::Entry entry;
    rt::must_park(Direction::kWhat);
    for (;;) rt::gopark(nullptr, nullptr, Direction::kNilReason);
}

template <class Direction>
inline ChanEnd operate(ChanCore* c, void* elem) {
    if (!c) park_for_ever<Direction>();
    rt::Entry entry;
    const ChanEnd end = at_once<Direction>(c, elem);
    if (end != ChanEnd::kNotReady) return end;
    Sudog me{.g = rt::must_park(Direction::kWhat), .elem = elem, .chan = c, .wait = 0};
    Direction::queue(c).enqueue(&me);
    rt::goparkunlock(c->lock, Direction::kReason);
    return done_or_closed(me.success);
}

/// Waits as long as `limit` lets it, with a channel that was not ready before; null is a nil one.
template <class Direction>
ChanEnd wait_limited(ChanCore* c, void* elem, rt::Limit& limit) {
    if (!c) {
        limit.park(Direction::kNilReason);
        return given_up(rt::wait_end(limit.g()));
    }
    const ChanEnd end = at_once<Direction>(c, elem);
    if (end != ChanEnd::kNotReady) return end;
    Sudog me{.g = limit.g(), .elem = elem, .chan = c, .wait = limit.number()};
    Direction::queue(c).enqueue(&me);
    rt::park_limited(c->lock, Direction::kReason);
    const WaitEnd how = rt::wait_end(me.g);
    if (how == WaitEnd::kDone) return done_or_closed(me.success);
    rt::LockGuard guard(c->lock);
    Direction::queue(c).remove(&me);
    return given_up(how);
}

template <class Direction>
ChanEnd operate_until(ChanCore* c, void* elem, const Until& until) {
    if (c) {
        rt::Entry entry;
        const ChanEnd end = at_once<Direction>(c, elem);
        if (end != ChanEnd::kNotReady) return end;
        c->lock.unlock();
    }
    if (const WaitEnd end = rt::over(until); end != WaitEnd::kDone) return given_up(end);
    rt::must_park(Direction::kWhat);
    rt::Limit limit(until);
    rt::Entry entry;
    limit.arm();
    const ChanEnd end = wait_limited<Direction>(c, elem, limit);
    limit.disarm();
    return end;
}

template <class Direction>
ChanEnd try_operate(ChanCore* c, void* elem) {
    if (!c || !Direction::maybe(c)) return ChanEnd::kNotReady;
    if (Direction::is_over(c)) return ChanEnd::kClosed;
    rt::Entry entry;
    const ChanEnd end = at_once<Direction>(c, elem);
    if (end == ChanEnd::kNotReady) c->lock.unlock();
    return end;
}

} // namespace

void ChanCore::move_other(void* to, void* from) const {
    switch (kind) {
    case ElemKind::kEmpty:
        return;
    case ElemKind::kBytes16:
        std::memcpy(to, from, 16);
        return;
    case ElemKind::kObject:
        type.move(to, from);
        return;
    default:
        std::memcpy(to, from, size);
    }
}

/// Aligned by hand: an aligned new takes glibc a tenth of a microsecond.
ChanCore* chan_make(const ElemType& type, std::size_t capacity) {
    const std::size_t header = header_bytes(type);
    const std::size_t spare = alignment(type) - __STDCPP_DEFAULT_NEW_ALIGNMENT__;
    constexpr std::size_t kMax = std::numeric_limits<std::uint32_t>::max();
    if (capacity > kMax || type.size > kMax ||
        (type.size != 0 && capacity > (PTRDIFF_MAX - header - spare) / type.size))
        throw std::length_error("baton::Chan: the buffer is larger than memory can be");
    const std::size_t bytes = header + capacity * type.size;
    std::size_t room = bytes + spare;
    void* const space = ::operator new(room);
    void* at = space;
    auto* c = ::new (std::align(alignment(type), bytes, at, room)) ChanCore;
    c->kind = kind_of(type);
    c->size = static_cast<std::uint32_t>(type.size);
    c->capacity = static_cast<std::uint32_t>(capacity);
    c->type = type;
    c->buffer = static_cast<std::byte*>(at) + header;
    c->space = space;
    return c;
}

ChanCore* chan_share(ChanCore* c) noexcept {
    // relaxed: the caller's own handle keeps it alive.
    if (c) c->handles.fetch_add(1, std::memory_order_relaxed);
    return c;
}

void chan_release(ChanCore* c) noexcept {
    // acq_rel: what others did through their handles comes before its end. Nobody waits in it: who
    // waits has a handle.
    if (!c || c->handles.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    if (c->timer) {
        rt::Entry entry;
        rt::user_timer_free(c->timer);
    }
    const ElemType type = c->type;
    if (c->kind == ElemKind::kObject) {
        for (; c->count > 0; c->count = c->count - 1) {
            type.destroy(c->slot(c->recvx));
            c->recvx = c->after(c->recvx);
        }
    }
    void* const space = c->space;
    c->~ChanCore();
    ::operator delete(space);
}

ChanEnd chan_send(ChanCore* c, void* from) { return operate<Sending>(c, from); }
ChanEnd chan_recv(ChanCore* c, void* to) { return operate<Receiving>(c, to); }
ChanEnd chan_send(ChanCore* c, void* from, const Until& until) {
    return operate_until<Sending>(c, from, until);
}
ChanEnd chan_recv(ChanCore* c, void* to, const Until& until) {
    return operate_until<Receiving>(c, to, until);
}
ChanEnd chan_try_send(ChanCore* c, void* from) noexcept { return try_operate<Sending>(c, from); }
ChanEnd chan_try_recv(ChanCore* c, void* to) noexcept { return try_operate<Receiving>(c, to); }

bool chan_close(ChanCore* c) noexcept {
    if (!c) return false;
    rt::GQueue woken;
    rt::Entry entry;
    c->lock.lock();
    if (c->closed) {
        c->lock.unlock();
        return false;
    }
    c->closed.publish(true);
    // I1: but for a G that selects over both, which is claimed once, one of the queues is empty.
    for (rt::WaitQ* queue : {&c->recvq, &c->sendq}) {
        while (Sudog* waiter = queue->dequeue()) {
            waiter->success = false;
            waiter->g->param = waiter;
            woken.push_back(waiter->g);
        }
    }
    c->lock.unlock_last();
    while (rt::G* gp = woken.pop()) rt::goready(gp);
    return true;
}

std::size_t chan_size(ChanCore* c) noexcept { return c && !c->timer ? std::size_t{c->count} : 0; }

std::size_t chan_capacity(const ChanCore* c) noexcept { return c && !c->timer ? c->capacity : 0; }

void throw_chan_end(ChanEnd end, const char* what) {
    switch (end) {
    case ChanEnd::kTimedOut:
        throw_wait_end(WaitEnd::kTimedOut, what);
    case ChanEnd::kStopped:
        throw_wait_end(WaitEnd::kStopped, what);
    default:
        throw ChanClosed(what);
    }
}

std::error_code chan_error(ChanEnd end) noexcept {
    switch (end) {
    case ChanEnd::kDone:
        return {};
    case ChanEnd::kTimedOut:
        return std::make_error_code(std::errc::timed_out);
    case ChanEnd::kStopped:
        return std::make_error_code(std::errc::operation_canceled);
    case ChanEnd::kNotReady:
        return std::make_error_code(std::errc::operation_would_block);
    case ChanEnd::kClosed:
        return std::make_error_code(std::errc::broken_pipe);
    }
    return {};
}

} // namespace baton::detail
