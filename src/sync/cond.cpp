// SPDX-License-Identifier: Apache-2.0
//
// ConditionVariable: a waiter queues while it has the user's lock still, then unlocks it, which is
// the user's code and may park, then parks itself. Whoever notifies it in between leaves it a note;
// once it has parked it is claimed and readied like any other.
//
//     waiter                                notifier
//     ------                                --------
//     queued, not parked
//     unlock the user's lock                takes it off the queue: notified = true
//     queue held: notified? then go on      parked? then claim it, and ready it
//     parked = true, park
//
// Rejected: the reference's tickets, numbers drawn before the unlock and queues sorted out after
// it: a waiter that gives up would leave a number behind that a notification is spent on.
#include "baton/cond.hpp"

#include "runtime/foreign.hpp"
#include "runtime/sema.hpp"

namespace baton {

namespace {

struct CondWaiter : rt::SemaWaiter {
    // Changed with the queue held.
    bool parked = false;
    bool notified = false;
};

/// Takes the first waiter, and puts its G into `woken` if that has parked. False: it has given up.
bool notify_first(rt::SemaQueue& queue, rt::GQueue& woken) {
    auto* w = static_cast<CondWaiter*>(queue.first());
    if (!w->parked) {
        queue.remove(*w);
    } else {
        if (!queue.take(w)) return false;
        woken.push_back(w->g);
    }
    w->notified = true;
    return true;
}

} // namespace

detail::WaitEnd ConditionVariable::wait_erased(void* lock, OnLock unlock, OnLock relock,
                                               const Until* until) {
    rt::must_park("ConditionVariable::wait");
    rt::limits_work(until); // the last that may throw
    CondWaiter me;
    me.g = rt::waiting_g();
    {
        rt::Entry entry;
        rt::SemaQueue queue(this, rt::WaitReason::kCondWait);
        queue.push(me);
        waiters_.fetch_add(1, std::memory_order_relaxed); // relaxed: see notify
    }
    unlock(lock);
    auto end = detail::WaitEnd::kDone;
    {
        rt::SemaWait turn(this, rt::WaitReason::kCondWait, until);
        me.parked = true;
        if (!me.notified && !turn.park_queued(me) && !me.notified) {
            end = turn.end();
            if (me.queued) {
                turn.queue().remove(me);
                waiters_.fetch_sub(1, std::memory_order_relaxed); // relaxed: see notify
            }
        }
    }
    relock(lock);
    return end;
}

void ConditionVariable::notify_slow(bool all) noexcept {
    rt::GQueue woken;
    rt::Entry entry;
    rt::SemaQueue queue(this, rt::WaitReason::kCondWait);
    bool done = false;
    while (!queue.empty() && !done) {
        waiters_.fetch_sub(1, std::memory_order_relaxed); // relaxed: see notify
        done = notify_first(queue, woken) && !all;
    }
    queue.unlock(); // the last waiter may be on its way to destroy us
    rt::ready_all(woken);
}

} // namespace baton
