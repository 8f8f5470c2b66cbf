// SPDX-License-Identifier: Apache-2.0
#include "runtime/limit.hpp"

#include <system_error>

#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/foreign.hpp"
#include "runtime/lock.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

/// Ends wait `number` without what it waited for, if it is not over. Any thread, no locks held.
void give_up(G* gp, std::uint64_t number, WaitState how) {
    if (end_wait(gp, number, how)) goready(gp);
}

void on_deadline(void* g, std::uintptr_t number, std::int64_t) {
    give_up(static_cast<G*>(g), number, kTimedOut);
}

bool parked_unlock(G* gp, void* lock) {
    const bool stays = wait_parked(gp);
    static_cast<Lock*>(lock)->unlock_last(); // the G may be running before this returns
    return stays;
}

} // namespace

bool end_wait(G* gp, std::uint64_t number, WaitState how) {
    const std::uint64_t base = number << kWaitStateBits;
    // relaxed: the CAS below confirms it.
    std::uint64_t word = gp->wait.load(std::memory_order_relaxed);
    while (word == (base | kArming) || word == (base | kParked)) {
        // acq_rel: pairs with wait_parked, whichever of the two is first. relaxed on failure: we
        // look again.
        if (gp->wait.compare_exchange_weak(word, base | how, std::memory_order_acq_rel,
                                           std::memory_order_relaxed))
            return (word & kWaitStateMask) == kParked;
    }
    return false;
}

detail::WaitEnd wait_end(const G* gp) {
    // relaxed: whoever ended the wait readied its G after that, or its G saw so in wait_parked.
    switch (gp->wait.load(std::memory_order_relaxed) & kWaitStateMask) {
    case kTimedOut:
        return detail::WaitEnd::kTimedOut;
    case kStopped:
        return detail::WaitEnd::kStopped;
    default:
        return detail::WaitEnd::kDone;
    }
}

void park_limited(Lock& lock, WaitReason reason) { gopark(parked_unlock, &lock, reason); }

Limit::Limit(std::int64_t when_ns, const std::stop_token& token)
    : g_(waiting_g()), number_(open_wait(g_, kArming)), when_ns_(when_ns) {
    if (when_ns_ != Until::kNever && !getm_or_null()) ensure_started(); // for its timers
    if (token.stop_possible()) stop_.emplace(token, Stop{g_, number_, when_ns_});
}

void Limit::arm() {
    if (when_ns_ != Until::kNever)
        timer_reset(&g_->sleep_timer, when_ns_, on_deadline, g_, number_);
}

void Limit::disarm() {
    if (when_ns_ != Until::kNever) timer_stop(&g_->sleep_timer);
}

void Limit::park(WaitReason reason) {
    gopark([](G* gp, void*) { return wait_parked(gp); }, nullptr, reason);
}

void Limit::Stop::operator()() const noexcept {
    // libstdc++ knows by the thread who requests the stop. Were that goroutine to yield here, the
    // one just readied could run on its thread, take itself for the requester, and destroy this
    // callback without waiting for its end.
    EntryInPlace entry;
    // Who stops others at a deadline, as a context does, is as late as they are: that is no stop.
    const bool late = when_ns != Until::kNever && when_ns <= kernel::nanotime();
    give_up(g, number, late ? kTimedOut : kStopped);
}

detail::WaitEnd over(const Until& until) {
    // Before the clock is read: a stop at the deadline, as a context's, is no stop.
    const bool stopped = until.token().stop_requested();
    if (until.when_ns() != Until::kNever && until.when_ns() <= kernel::nanotime())
        return detail::WaitEnd::kTimedOut;
    return stopped ? detail::WaitEnd::kStopped : detail::WaitEnd::kDone;
}

} // namespace baton::rt

namespace baton::detail {

bool waited(WaitEnd end, std::error_code& ec) noexcept {
    ec = wait_error(end);
    return end == WaitEnd::kDone;
}

void throw_wait_end(WaitEnd end, const char* what) {
    throw std::system_error(wait_error(end), what);
}

std::error_code wait_error(WaitEnd end) noexcept {
    switch (end) {
    case WaitEnd::kDone:
        return {};
    case WaitEnd::kTimedOut:
        return std::make_error_code(std::errc::timed_out);
    case WaitEnd::kStopped:
        return std::make_error_code(std::errc::operation_canceled);
    }
    return {};
}

} // namespace baton::detail
