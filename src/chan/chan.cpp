// SPDX-License-Identifier: Apache-2.0
//
// Send, receive and close, in the order of the reference's chan.go.
#include "chan/chan.hpp"

#include <limits>
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

std::align_val_t alignment(const ElemType& type) {
    return std::align_val_t{type.align > alignof(ChanCore) ? type.align : alignof(ChanCore)};
}

/// What Go does with a nil channel.
void park_for_ever(const char* what, WaitReason reason) {
    rt::must_park(what);
    for (;;) rt::gopark(nullptr, nullptr, reason);
}

/// The waiter has been taken off its queue and the lock released. Whatever is to be read of it must
/// have been: it is on the stack of the G that now goes on.
void ready(Sudog* waiter, bool success) {
    rt::G* gp = waiter->g;
    waiter->success = success;
    gp->param = waiter;
    rt::goready(gp);
}

/// Queues the caller and parks it. True if it got rid of or was given its value, false if the
/// channel was closed. Called with the lock held.
bool wait(ChanCore* c, rt::WaitQ& queue, void* elem, const char* what, WaitReason reason) {
    Sudog me{.g = rt::must_park(what), .elem = elem, .chan = c};
    queue.enqueue(&me);
    rt::goparkunlock(c->lock, reason);
    return me.success;
}

[[noreturn]] void throw_closed(const char* what) { throw ChanClosed(what); }

/// True once the value is sent; false if that would have had to wait and `block` is not set.
inline bool chansend(ChanCore* c, void* from, bool block) {
    c->lock.lock();
    if (c->closed) {
        c->lock.unlock();
        throw_closed("send on closed channel");
    }
    if (Sudog* receiver = c->recvq.dequeue()) {
        c->lock.unlock();
        c->move(receiver->elem, from);
        ready(receiver, true);
        return true;
    }
    if (c->count < c->capacity) {
        c->move(c->slot(c->sendx), from);
        c->sendx = c->after(c->sendx);
        c->count++;
        c->lock.unlock();
        return true;
    }
    if (!block) {
        c->lock.unlock();
        return false;
    }
    if (!wait(c, c->sendq, from, "Chan::send", WaitReason::kChanSend))
        throw_closed("send on closed channel: it was closed while the send waited");
    return true;
}

/// The buffer is not empty; the lock is held, and released here.
inline void recv_buffered(ChanCore* c, void* to) {
    std::byte* slot = c->slot(c->recvx);
    c->relocate(to, slot);
    c->recvx = c->after(c->recvx);
    Sudog* sender = c->sendq.dequeue();
    if (!sender) {
        c->count--;
        c->lock.unlock();
        return;
    }
    // It was full: the slot just emptied is the next to fill.
    c->move(slot, sender->elem);
    c->sendx = c->recvx;
    c->lock.unlock();
    ready(sender, true);
}

/// True once there is a value in *to; false if the channel is closed and empty, or if there is none
/// yet and `block` is not set.
inline bool chanrecv(ChanCore* c, void* to, bool block) {
    c->lock.lock();
    if (c->count > 0) {
        recv_buffered(c, to);
        return true;
    }
    if (Sudog* sender = c->sendq.dequeue()) {
        c->lock.unlock();
        c->move(to, sender->elem);
        ready(sender, true);
        return true;
    }
    if (c->closed || !block) {
        c->lock.unlock();
        return false;
    }
    return wait(c, c->recvq, to, "Chan::recv", WaitReason::kChanReceive);
}

} // namespace

ChanCore* chan_make(const ElemType& type, std::size_t capacity) {
    const std::size_t header = header_bytes(type);
    constexpr std::size_t kMax = std::numeric_limits<std::uint32_t>::max();
    if (capacity > kMax || type.size > kMax ||
        (type.size != 0 && capacity > (PTRDIFF_MAX - header) / type.size))
        throw std::length_error("baton::Chan: the buffer is larger than memory can be");
    void* space = ::operator new(header + capacity * type.size, alignment(type));
    auto* c = ::new (space) ChanCore;
    c->kind = kind_of(type);
    c->size = static_cast<std::uint32_t>(type.size);
    c->capacity = static_cast<std::uint32_t>(capacity);
    c->type = type;
    c->buffer = static_cast<std::byte*>(space) + header;
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
    const ElemType type = c->type;
    if (c->kind == ElemKind::kObject) {
        for (; c->count > 0; c->count--) {
            type.destroy(c->slot(c->recvx));
            c->recvx = c->after(c->recvx);
        }
    }
    c->~ChanCore();
    ::operator delete(c, alignment(type));
}

void chan_send(ChanCore* c, void* from) {
    rt::Entry entry;
    if (!c) park_for_ever("Chan::send on a nil channel", WaitReason::kChanSend);
    chansend(c, from, true);
}

bool chan_try_send(ChanCore* c, void* from) {
    rt::Entry entry;
    return c && chansend(c, from, false);
}

bool chan_recv(ChanCore* c, void* to) {
    rt::Entry entry;
    if (!c) park_for_ever("Chan::recv on a nil channel", WaitReason::kChanReceive);
    return chanrecv(c, to, true);
}

bool chan_try_recv(ChanCore* c, void* to) noexcept {
    rt::Entry entry;
    return c && chanrecv(c, to, false);
}

void chan_close(ChanCore* c) {
    if (!c) throw_closed("close of nil channel");
    rt::GQueue woken;
    rt::Entry entry;
    c->lock.lock();
    if (c->closed) {
        c->lock.unlock();
        throw_closed("close of closed channel");
    }
    c->closed = true;
    // I1: one of the queues is empty.
    for (rt::WaitQ* queue : {&c->recvq, &c->sendq}) {
        while (Sudog* waiter = queue->dequeue()) {
            waiter->success = false;
            waiter->g->param = waiter;
            woken.push_back(waiter->g);
        }
    }
    c->lock.unlock();
    while (rt::G* gp = woken.pop()) rt::goready(gp);
}

std::size_t chan_size(ChanCore* c) noexcept {
    if (!c) return 0;
    rt::Entry entry;
    rt::LockGuard guard(c->lock);
    return c->count;
}

std::size_t chan_capacity(const ChanCore* c) noexcept { return c ? c->capacity : 0; }

} // namespace baton::detail
