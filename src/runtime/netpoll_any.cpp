// SPDX-License-Identifier: Apache-2.0
//
// One G that waits for several descriptors at once, as poll(2) does. Their words cannot all hold
// the G, as each of them may be told of something just then and one alone may ready it: they say
// kPdAny, and PollDesc::rany or wany which wait of which G that is (limit.hpp). Who takes kPdAny
// off a word claims that wait; the G takes off the others itself.
//
//     waiter, for each                          netpoll, deadline, eviction
//     ----------------                          ---------------------------
//     lock: rany = the wait, word = kPdAny      word: kPdAny becomes ready or nil
//     has it a deadline that has passed?        lock: claims what rany says
//     once it has been woken: word = nil
//
// Between the two steps on the right the G may have been woken by another one, and the next wait
// for this descriptor have begun: that is claimed then, for nothing, and looks for itself. It is
// not the other way round: a wait is in rany before its kPdAny is in the word.
// Against deadlines and evictions: netpoll.cpp's (A) and (B).
#include "runtime/netpoll_any.hpp"

#include <cerrno>
#include <stop_token>

#include "runtime/entry.hpp"
#include "runtime/limit.hpp"
#include "runtime/lock.hpp"
#include "runtime/polldesc.hpp"

namespace baton::rt {

namespace {

PollDesc::AnyWaiter& waiter(PollDesc* pd, PollMode mode) {
    return mode == PollMode::kRead ? pd->rany : pd->wany;
}

/// False: no wait is needed, it is ready.
bool begin(const PollAsk& ask, const Limit& limit) {
    std::uintptr_t nil = kPdNil;
    LockGuard guard(ask.pd->lock);
    waiter(ask.pd, ask.mode) = {limit.g(), limit.number()};
    // seq_cst: (A). relaxed on failure: it was told of something.
    return poll_word(ask.pd, ask.mode)
               .compare_exchange_strong(nil, kPdAny, std::memory_order_seq_cst,
                                        std::memory_order_relaxed) &&
           poll_error(ask.pd, ask.mode) == 0;
}

} // namespace

G* any_ended(PollDesc* pd, PollMode mode) {
    const PollDesc::AnyWaiter& w = waiter(pd, mode);
    return end_wait(w.g, w.number, kWoken) ? w.g : nullptr;
}

int poll_wait_any(const PollAsk* asks, unsigned n, std::int64_t when_ns) {
    Limit limit(when_ns, std::stop_token());
    Entry entry;
    limit.arm();
    unsigned begun = 0;
    bool waits = true;
    while (waits && begun < n) waits = begin(asks[begun++], limit);
    if (waits) {
        netpoll_add_waiter();
        limit.park(WaitReason::kIoWait);
        netpoll_drop_waiters(1);
    }
    limit.disarm();
    // acquire: pairs with the release in netpollunblock (hangup).
    for (unsigned i = 0; i < begun; i++)
        poll_word(asks[i].pd, asks[i].mode).exchange(kPdNil, std::memory_order_acquire);
    return waits && wait_end(limit.g()) == detail::WaitEnd::kTimedOut ? ETIMEDOUT : 0;
}

} // namespace baton::rt
