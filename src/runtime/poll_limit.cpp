// SPDX-License-Identifier: Apache-2.0
#include "runtime/poll_limit.hpp"

#include <cerrno>

#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/foreign.hpp"
#include "runtime/limit.hpp"

namespace baton::rt {

namespace {

void read_over(void* pd, std::uintptr_t number, std::int64_t) {
    poll_cut(static_cast<PollDesc*>(pd), PollMode::kRead, number, ETIMEDOUT);
}
void write_over(void* pd, std::uintptr_t number, std::int64_t) {
    poll_cut(static_cast<PollDesc*>(pd), PollMode::kWrite, number, ETIMEDOUT);
}

} // namespace

PollLimit::PollLimit(PollDesc* pd, PollMode mode, const Until& until)
    : pd_(pd), mode_(mode), when_ns_(until.when_ns()), number_(poll_limit_begin(pd, mode)) {
    if (until.token().stop_possible())
        stop_.emplace(until.token(), Stop{pd, mode, number_, when_ns_});
    if (when_ns_ == Until::kNever) return;
    Entry entry;
    timer_reset(&waiting_g()->sleep_timer, when_ns_,
                mode == PollMode::kRead ? read_over : write_over, pd, number_);
}

PollLimit::~PollLimit() {
    stop_.reset();
    if (when_ns_ != Until::kNever) {
        Entry entry;
        timer_stop(&waiting_g()->sleep_timer);
    }
    poll_limit_end(pd_, mode_);
}

void PollLimit::Stop::operator()() const noexcept {
    EntryInPlace entry; // as in Limit::Stop
    const bool late = when_ns != Until::kNever && when_ns <= kernel::nanotime();
    poll_cut(pd, mode, number, late ? ETIMEDOUT : ECANCELED);
}

int poll_wait(PollDesc* pd, PollMode mode, const Until* until) {
    if (!until) return poll_wait(pd, mode);
    switch (over(*until)) {
    case detail::WaitEnd::kTimedOut:
        return ETIMEDOUT;
    case detail::WaitEnd::kStopped:
        return ECANCELED;
    case detail::WaitEnd::kDone:
        break;
    }
    const PollLimit limit(pd, mode, *until);
    return poll_wait(pd, mode);
}

} // namespace baton::rt
