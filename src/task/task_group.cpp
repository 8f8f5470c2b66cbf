// SPDX-License-Identifier: Apache-2.0
//
// TaskGroup: who waits, waits for a channel that the last task closes. It does so after it has let
// go of the mutex, and by a handle of its own: from then on the group may be gone.
#include "baton/task_group.hpp"

#include <stdexcept>
#include <typeinfo>

#include "runtime/runtime.hpp"

namespace baton {

namespace {

[[noreturn]] void die_of(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        rt::fatal("a task failed and its TaskGroup ended without a wait(), which would have "
                  "thrown what the task did: %s",
                  e.what());
    } catch (...) {
        rt::fatal("a task failed and its TaskGroup ended without a wait(), which would have "
                  "thrown what the task did");
    }
}

} // namespace

TaskGroup::~TaskGroup() {
    stop_.request_stop();
    std::exception_ptr error;
    quiet(Until(), error);
    if (error && std::uncaught_exceptions() == 0) die_of(error);
}

void TaskGroup::begin() {
    const std::lock_guard guard(mutex_);
    if (running_ == 0) quiet_.emplace();
    running_++;
}

void TaskGroup::end(const std::exception_ptr& error) noexcept {
    if (slots_) (void)slots_->try_recv();
    if (error) {
        {
            const std::lock_guard guard(mutex_);
            if (!error_) error_ = error;
        }
        stop_.request_stop();
    }
    mutex_.lock();
    const bool last = --running_ == 0;
    const Chan<std::monostate> quiet = *quiet_;
    mutex_.unlock();
    std::error_code closed_once; // so there is none
    if (last) quiet.close(closed_once);
}

detail::WaitEnd TaskGroup::quiet(const Until& until, std::exception_ptr& error) {
    for (;;) {
        std::optional<Chan<std::monostate>> quiet;
        {
            const std::lock_guard guard(mutex_);
            quiet = quiet_;
        }
        if (!quiet) return detail::WaitEnd::kDone; // none was ever started
        std::error_code ec;
        quiet->recv(until, ec);
        if (ec == std::errc::timed_out) return detail::WaitEnd::kTimedOut;
        if (ec) return detail::WaitEnd::kStopped;
        const std::lock_guard guard(mutex_);
        if (!(*quiet_ == *quiet)) continue; // more have been started
        error = std::exchange(error_, nullptr);
        return detail::WaitEnd::kDone;
    }
}

void TaskGroup::wait() { wait(Until()); }

void TaskGroup::wait(const Until& until) {
    std::exception_ptr error;
    const detail::WaitEnd end = quiet(until, error);
    if (end != detail::WaitEnd::kDone) detail::throw_wait_end(end, "baton::TaskGroup::wait");
    if (error) std::rethrow_exception(error);
}

bool TaskGroup::wait(const Until& until, std::error_code& ec) {
    std::exception_ptr error;
    ec = detail::wait_error(quiet(until, error));
    if (error) std::rethrow_exception(error);
    return !ec;
}

void TaskGroup::set_limit(std::size_t n) {
    if (n == 0) throw std::invalid_argument("baton::TaskGroup: no task could run");
    const std::lock_guard guard(mutex_);
    if (running_ != 0) throw std::logic_error("baton::TaskGroup: set_limit while tasks run");
    slots_.emplace(n);
}

} // namespace baton
