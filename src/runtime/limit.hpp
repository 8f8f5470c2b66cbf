// SPDX-License-Identifier: Apache-2.0
//
// Waits that more than one may end: a select, which waits in several queues, and whatever has a
// deadline or a std::stop_token (baton::Until).
//
// Such a wait has a number, the G's own count of them, and its G a word {number, state}. Who wants
// to end it claims it, by a CAS of that word; who succeeds readies the G, once. A claim that comes
// late names a wait that is over and fails, whatever the G does by then; so timers and stop
// callbacks need no taking back before the frame they were armed in is left, and touch nothing but
// the G, whose memory stays.
//
//     arming ---> parked ---> woken       by who took its waiter off a queue, under that lock
//        |           +------> timed out   by the timer
//        |           +------> stopped     by a stop callback
//        +--> timed out, stopped: the G has not parked yet; it sees so and does not
//        +--> woken: the same, of a wait for several descriptors (netpoll_any.cpp)
//
// A waker finds the G by a queue, and that only once the G has parked: the queue's lock is held
// from before the waiter is in it until then. A waker that loses leaves the waiter off the queue
// and goes on to the next one. The G whose wait was given up takes its waiters off the queues
// itself, those that are there still.
//
// Threads: open_wait, park_limited and Limit on the thread that waits; claims on any.
// Locks: Limit is made and ended in G code, outside an Entry: std::stop_token has a spinning lock
// of its own, and waits for a callback that runs elsewhere.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <stop_token>

#include "baton/until.hpp"
#include "runtime/runtime.hpp"

namespace baton::rt {

class Lock;

enum WaitState : std::uint64_t { kWoken, kArming, kParked, kTimedOut, kStopped };
inline constexpr int kWaitStateBits = 3;
inline constexpr std::uint64_t kWaitStateMask = (std::uint64_t{1} << kWaitStateBits) - 1;

/// Begins a wait of the caller's; returns its number, never 0. In state kParked where nobody can
/// claim it before it has.
inline std::uint64_t open_wait(G* gp, WaitState state) {
    constexpr auto kRelaxed = std::memory_order_relaxed;
    // relaxed, both: only its G opens waits; who may claim this one learns its number by a lock, by
    // arming a timer or from std::stop_callback, each of which orders this store before the claim.
    const std::uint64_t number = (gp->wait.load(kRelaxed) >> kWaitStateBits) + 1;
    gp->wait.store(number << kWaitStateBits | state, kRelaxed);
    return number;
}

/// A waiter of wait `number` was taken off its queue, under the lock that was held until its G had
/// parked: is it the claimer's to ready?
inline bool claim_wait(G* gp, std::uint64_t number) {
    std::uint64_t parked = number << kWaitStateBits | kParked;
    // relaxed, both: only who succeeds goes on, and what it does to the G is ordered by the lock
    // the waiter was found under and by goready; who fails does nothing to it.
    return gp->wait.compare_exchange_strong(parked, number << kWaitStateBits | kWoken,
                                            std::memory_order_relaxed, std::memory_order_relaxed);
}

/// As an UnlockFn's first act, every lock still held: the caller has parked. False: the wait has
/// been given up before that, so it must not.
inline bool wait_parked(G* gp) {
    // relaxed: the CAS confirms it. Only kArming can be there, or that the wait is over.
    std::uint64_t arming = gp->wait.load(std::memory_order_relaxed);
    if ((arming & kWaitStateMask) != kArming) return false;
    // release: pairs with the acquire in give_up, which readies the G if it sees this; all that the
    // G left behind is seen then. acquire: if that one was first, what its caller did is seen.
    return gp->wait.compare_exchange_strong(arming, arming - kArming + kParked,
                                            std::memory_order_acq_rel, std::memory_order_relaxed);
}

/// Ends wait `number`, parked or not, if it is not over. True: its G has parked, and is the
/// caller's to ready.
bool end_wait(G* gp, std::uint64_t number, WaitState how);
/// How the caller's last wait ended.
detail::WaitEnd wait_end(const G* gp);

/// goparkunlock for a wait opened in kArming.
void park_limited(Lock& lock, WaitReason reason);

/// Arms what ends the caller's wait early. Opens the wait.
class Limit {
public:
    /// Starts the runtime where a plain thread waits with a deadline: throws std::system_error if
    /// that fails. From here on it may be stopped.
    explicit Limit(const Until& until) : Limit(until.when_ns(), until.token()) {}
    Limit(std::int64_t when_ns, const std::stop_token& token);
    ~Limit() = default;
    Limit(const Limit&) = delete;
    Limit& operator=(const Limit&) = delete;

    G* g() const { return g_; }
    std::uint64_t number() const { return number_; }
    /// In an Entry: from here on the deadline counts.
    void arm();
    /// In an Entry, after the wait.
    void disarm();
    /// In an Entry, between the two, for who waits for nothing else.
    void park(WaitReason reason);

private:
    struct Stop {
        G* g;
        std::uint64_t number;
        std::int64_t when_ns;
        void operator()() const noexcept;
    };
    G* g_;
    std::uint64_t number_;
    std::int64_t when_ns_;
    std::optional<std::stop_callback<Stop>> stop_;
};

/// Is `until` over already: then a wait would be given up at once.
detail::WaitEnd over(const Until& until);

} // namespace baton::rt
