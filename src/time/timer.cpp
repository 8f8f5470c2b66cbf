// SPDX-License-Identifier: Apache-2.0
//
// Timer and Ticker: a channel, or a call, and a timer of the runtime's that belongs to it.
//
// The channel holds one value, but nobody can tell it from an unbuffered one: what was sent and not
// received is taken back by stop and reset. They do so under the timer's lock, as the firing sends
// under it; so what comes after them belongs to what was armed after them. The timer is given back
// with the channel, when its last handle goes.
//
// Rejected: leaving a timer out of the heap while nobody waits for its channel, as the reference
// does since it collects forgotten ones. Here the last handle stops it, and size, select and
// try_recv need not know about it.
#include "baton/timer.hpp"

#include <new>
#include <stdexcept>

#include "chan/chan.hpp"
#include "runtime/entry.hpp"
#include "runtime/user_timer.hpp"

namespace baton::detail {

struct DelayedCalls {
    static rt::UserTimer* timer(DelayedCall* call) {
        return static_cast<rt::UserTimer*>(call->timer_);
    }
    static void set_timer(DelayedCall* call, rt::UserTimer* timer) { call->timer_ = timer; }
    static void share(DelayedCall* call) {
        call->owners_.fetch_add(1, std::memory_order_relaxed); // relaxed: the caller is an owner
    }
    static void release(DelayedCall* call) {
        // acq_rel: what the others did comes before its end.
        if (call->owners_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        if (rt::UserTimer* t = timer(call)) {
            rt::Entry entry;
            rt::user_timer_free(t);
        }
        delete call;
    }
};

namespace {

bool send_time(void* chan, std::int64_t now_ns) {
    std::chrono::steady_clock::time_point now{std::chrono::nanoseconds(now_ns)};
    // Unless the last one has not been received.
    (void)chan_try_send(static_cast<ChanCore*>(chan), &now);
    return true;
}

/// What was sent and not received is gone. True if there was something.
bool take_back(ChanCore* c) {
    rt::LockGuard guard(c->lock);
    const bool was = c->count != 0;
    c->count = 0;
    c->recvx = c->sendx;
    return was;
}

void run_call(void* space) {
    auto* call = *static_cast<DelayedCall**>(space);
    call->call();
    DelayedCalls::release(call); // what the pending firing owned
}

bool start_call(void* call, std::int64_t) { return rt::newproc(run_call, call); }

rt::UserTimer* new_timer(rt::UserTimer::Fire fire, void* owner) {
    rt::ensure_started();
    rt::Entry entry;
    return rt::user_timer_alloc(fire, owner);
}

} // namespace

TimeChan timer_chan(std::int64_t when_ns, std::int64_t period_ns) {
    TimeChan chan(1);
    ChanCore* c = ChanAccess::core(chan);
    c->timer = new_timer(send_time, c);
    if (!c->timer) throw std::bad_alloc();
    timer_chan_reset(chan, when_ns, period_ns);
    return chan;
}

bool timer_chan_reset(const TimeChan& chan, std::int64_t when_ns, std::int64_t period_ns) {
    ChanCore* c = ChanAccess::core(chan);
    if (!c) throw std::logic_error("baton: reset of a timer that was moved from");
    rt::ensure_started(); // in a forked child it may be for the first time
    rt::Entry entry;
    rt::LockGuard guard(c->timer->lock);
    const bool unsent = rt::user_timer_arm(c->timer, when_ns, period_ns);
    return take_back(c) || unsent;
}

bool timer_chan_stop(const TimeChan& chan) noexcept {
    ChanCore* c = ChanAccess::core(chan);
    if (!c) return false;
    rt::Entry entry;
    rt::LockGuard guard(c->timer->lock);
    const bool unsent = rt::user_timer_disarm(c->timer);
    return take_back(c) || unsent;
}

void timer_call_start(DelayedCall* call, std::int64_t when_ns) {
    rt::UserTimer* t = new_timer(start_call, call);
    if (!t) throw std::bad_alloc();
    DelayedCalls::set_timer(call, t);
    timer_call_reset(call, when_ns);
}

bool timer_call_reset(DelayedCall* call, std::int64_t when_ns) {
    rt::ensure_started(); // in a forked child it may be for the first time
    rt::UserTimer* t = DelayedCalls::timer(call);
    rt::Entry entry;
    rt::LockGuard guard(t->lock);
    if (t->armed) return rt::user_timer_arm(t, when_ns, 0);
    DelayedCalls::share(call); // by the pending firing, and then by the goroutine
    return rt::user_timer_arm(t, when_ns, 0);
}

bool timer_call_stop(DelayedCall* call) noexcept {
    rt::UserTimer* t = DelayedCalls::timer(call);
    if (!t) return false;
    bool was;
    {
        rt::Entry entry;
        rt::LockGuard guard(t->lock);
        was = rt::user_timer_disarm(t);
    }
    if (was) DelayedCalls::release(call);
    return was;
}

void timer_call_release(DelayedCall* call) noexcept { DelayedCalls::release(call); }

std::int64_t period_ns(std::chrono::nanoseconds period) {
    if (period.count() <= 0)
        throw std::invalid_argument("baton::Ticker: the period must be more than nothing");
    return period.count();
}

} // namespace baton::detail

namespace baton {

detail::TimeChan Timer::nil() noexcept {
    static const detail::TimeChan chan = [] {
        detail::TimeChan some;
        const detail::TimeChan other = std::move(some);
        return some; // NOLINT(bugprone-use-after-move): that is what makes it nil
    }();
    return chan;
}

} // namespace baton
