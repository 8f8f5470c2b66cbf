// SPDX-License-Identifier: Apache-2.0
//
// Doing something once: Once as std::call_once, OnceFunc and OnceValue as Go's sync.OnceFunc.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Calls a function once, whoever comes first, and lets everybody else wait until it has returned.
/// If it throws, that one gets the exception and the next in turn calls again, as with
/// std::call_once. Calling a Once inside its own function is a deadlock. Waiting parks the
/// goroutine, and ends the process inside blocking().
class Once {
public:
    Once() = default;
    Once(const Once&) = delete;
    Once& operator=(const Once&) = delete;

    /// When it returns a call has returned, here or elsewhere; what it did is seen.
    template <std::invocable F>
    void call(F&& f) {
        if (!done() && begin(nullptr) == Turn::kMine) run(std::forward<F>(f));
    }
    /// The same, waiting for another's call only as long as `until` lets it; throws
    /// std::system_error, with the code timed_out or operation_canceled, if it goes on then.
    template <std::invocable F>
    void call(F&& f, const Until& until) {
        const Turn turn = done() ? Turn::kDone : begin(&until);
        if (turn == Turn::kMine) run(std::forward<F>(f));
        if (const auto end = end_of(turn); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::Once::call");
    }
    /// The same; false with the reason in `ec`.
    template <std::invocable F>
    [[nodiscard]] bool call(F&& f, const Until& until, std::error_code& ec) {
        const Turn turn = done() ? Turn::kDone : begin(&until);
        if (turn == Turn::kMine) run(std::forward<F>(f));
        return detail::waited(end_of(turn), ec);
    }
    /// Has a call returned?
    [[nodiscard]] bool done() const noexcept {
        // acquire: pairs with the release in finish; what the call did is seen.
        return state_.load(std::memory_order_acquire) == kIsDone;
    }

private:
    enum class Turn : std::uint8_t { kMine, kDone, kTimedOut, kStopped };
    static constexpr std::uint32_t kIsDone = 1;

    template <class F>
    void run(F&& f) {
        struct Finish {
            Once& once;
            bool returned = false;
            ~Finish() { once.finish(returned); }
        } finish{*this};
        (void)std::invoke(std::forward<F>(f));
        finish.returned = true;
    }
    static detail::WaitEnd end_of(Turn turn) noexcept {
        if (turn == Turn::kTimedOut) return detail::WaitEnd::kTimedOut;
        return turn == Turn::kStopped ? detail::WaitEnd::kStopped : detail::WaitEnd::kDone;
    }
    Turn begin(const Until* until);
    void finish(bool returned) noexcept;

    std::atomic<std::uint32_t> state_{0};
};

/// A function that is called once however often this is; if it throws, every call throws the same.
/// Who comes while it runs elsewhere parks, as with Once.
template <class F>
    requires std::invocable<F&>
class OnceFunc {
public:
    explicit OnceFunc(F f) : f_(std::move(f)) {}

    void operator()() {
        once_.call([this] { run(); });
        check();
    }
    /// The same, waiting for another's call only as long as `until` lets it; throws
    /// std::system_error, with the code timed_out or operation_canceled, if it goes on then.
    void operator()(const Until& until) {
        once_.call([this] { run(); }, until);
        check();
    }
    /// The same; false with the reason in `ec`. What the function threw is thrown.
    [[nodiscard]] bool operator()(const Until& until, std::error_code& ec) {
        if (!once_.call([this] { run(); }, until, ec)) return false;
        check();
        return true;
    }

private:
    void run() noexcept {
        try {
            (void)std::invoke(*f_);
        } catch (...) {
            error_ = std::current_exception();
        }
        f_.reset(); // what it holds is not needed any longer
    }
    void check() const {
        if (error_) std::rethrow_exception(error_);
    }

    Once once_;
    std::optional<F> f_;
    std::exception_ptr error_;
};

/// The same for a function with a result, which every call returns a reference to.
template <class F>
    requires std::invocable<F&>
class OnceValue {
public:
    using value_type = std::decay_t<std::invoke_result_t<F&>>;

    explicit OnceValue(F f) : f_(std::move(f)) {}

    const value_type& operator()() {
        once_.call([this] { run(); });
        return value();
    }
    /// As OnceFunc's.
    const value_type& operator()(const Until& until) {
        once_.call([this] { run(); }, until);
        return value();
    }
    /// The same; null with the reason in `ec`. What the function threw is thrown.
    [[nodiscard]] const value_type* operator()(const Until& until, std::error_code& ec) {
        return once_.call([this] { run(); }, until, ec) ? &value() : nullptr;
    }

private:
    void run() noexcept {
        try {
            value_.emplace(std::invoke(*f_));
        } catch (...) {
            error_ = std::current_exception();
        }
        f_.reset();
    }
    const value_type& value() const {
        if (error_) std::rethrow_exception(error_);
        return *value_;
    }

    Once once_;
    std::optional<F> f_;
    std::optional<value_type> value_;
    std::exception_ptr error_;
};

} // namespace baton
#pragma GCC visibility pop
