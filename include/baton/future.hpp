// SPDX-License-Identifier: Apache-2.0
//
// Future, Promise and async: one result, of a goroutine or of whoever has the promise.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/select.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {

/// What a future and its promise share.
template <class T>
struct Result {
    using Value = std::conditional_t<
        std::is_void_v<T>, std::monostate,
        std::conditional_t<std::is_reference_v<T>, std::remove_reference_t<T>*, T>>;

    Chan<std::monostate> done; // closed once one of the others is there
    std::optional<Value> value;
    std::exception_ptr error;
};

// They throw or make a std::future_error. Who catches one includes <future>: a third of what this
// header would take to compile.
[[noreturn]] void throw_no_state();
[[noreturn]] void throw_future_already_retrieved();
[[noreturn]] void throw_promise_already_satisfied();
std::exception_ptr broken_promise() noexcept;

} // namespace detail

template <class T>
class Promise;

/// A result to come, for one to take, as std::future. Move-only; a handle is used by one thread at
/// a time. One that is dropped leaves the goroutine that works on it alone: use a TaskGroup to wait
/// for it and stop it.
template <class T>
class Future {
public:
    /// One without a result to come.
    Future() noexcept = default;

    /// Is there a result to come, or to be taken?
    [[nodiscard]] bool valid() const noexcept { return result_ != nullptr; }
    /// Is it there, so that get() would not wait?
    [[nodiscard]] bool ready() const {
        std::error_code ec;
        state().done.recv(std::chrono::seconds(-1), ec);
        return !ec;
    }
    /// Closed when the result is there: to select over.
    [[nodiscard]] RecvChan<std::monostate> done() const { return state().done; }

    /// Parks until the result is there, and takes it: returns the value, or throws what the other
    /// side threw. Afterwards the future is not valid. Here and below one that is not valid throws
    /// std::future_error (<future>).
    T get() { return get(Until()); }
    /// The same; if it is given up it throws the std::system_error that says so, and the result can
    /// still be waited for.
    T get(const Until& until) {
        wait(until);
        const std::shared_ptr<detail::Result<T>> result = std::exchange(result_, nullptr);
        if (result->error) std::rethrow_exception(result->error);
        if constexpr (std::is_void_v<T>) {
            return;
        } else if constexpr (std::is_reference_v<T>) {
            return static_cast<T>(**result->value);
        } else {
            return std::move(*result->value);
        }
    }

    /// Parks until the result is there.
    void wait() const { wait(Until()); }
    void wait(const Until& until) const { (void)state().done.recv(until); }
    /// The same; false, with the reason in `ec`, if it was given up.
    bool wait(const Until& until, std::error_code& ec) const {
        (void)state().done.recv(until, ec);
        return !ec;
    }

private:
    friend class Promise<T>;
    explicit Future(std::shared_ptr<detail::Result<T>> result) noexcept
        : result_(std::move(result)) {}
    [[nodiscard]] const detail::Result<T>& state() const {
        if (!result_) detail::throw_no_state();
        return *result_;
    }

    std::shared_ptr<detail::Result<T>> result_;
};

/// The side that gives the result, once; it may end as soon as the result is there. If it ends
/// without, the future throws std::future_error (broken_promise). Never parks. Move-only; used by
/// one thread at a time.
template <class T>
class Promise {
public:
    /// Throws std::bad_alloc.
    Promise() : result_(std::make_shared<detail::Result<T>>()) {}
    Promise(Promise&& other) noexcept = default;
    Promise& operator=(Promise&& other) noexcept {
        if (this != &other) {
            abandon();
            result_ = std::move(other.result_);
            taken_ = other.taken_;
            set_ = other.set_;
        }
        return *this;
    }
    ~Promise() { abandon(); }

    /// Its future; a second call throws std::future_error.
    [[nodiscard]] Future<T> get_future() {
        if (!result_) detail::throw_no_state();
        if (std::exchange(taken_, true)) detail::throw_future_already_retrieved();
        return Future<T>(result_);
    }

    /// Gives the result. Throws std::future_error if there is one already, and what the value's
    /// constructor throws.
    template <class... Args>
    void set_value(Args&&... args) {
        detail::Result<T>& r = unset();
        if constexpr (std::is_reference_v<T>) {
            r.value.emplace(std::addressof(args)...);
        } else {
            r.value.emplace(std::forward<Args>(args)...);
        }
        release();
    }
    void set_exception(const std::exception_ptr& error) {
        unset().error = error;
        release();
    }
    /// Gives what `f(args...)` returns or throws.
    template <class F, class... Args>
    void set_result_of(F&& f, Args&&... args) {
        try {
            if constexpr (std::is_void_v<T>) {
                std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
                set_value();
            } else {
                set_value(std::invoke(std::forward<F>(f), std::forward<Args>(args)...));
            }
        } catch (...) {
            set_exception(std::current_exception());
        }
    }

private:
    detail::Result<T>& unset() {
        if (!result_) detail::throw_no_state();
        if (set_) detail::throw_promise_already_satisfied();
        return *result_;
    }
    void release() {
        set_ = true;
        // By a handle of its own: who is told may end the promise at once.
        const Chan<std::monostate> done = result_->done;
        done.close();
    }
    void abandon() noexcept {
        if (!result_ || set_) return;
        result_->error = detail::broken_promise();
        release();
    }

    std::shared_ptr<detail::Result<T>> result_;
    bool taken_ = false;
    bool set_ = false;
};

/// Starts `f(args...)` as a goroutine; its result, or what it throws, comes through the future.
/// Throws what baton::go throws.
template <class F, class... Args>
    requires std::invocable<std::decay_t<F>, std::decay_t<Args>...>
[[nodiscard, gnu::always_inline]] inline auto async(F&& f, Args&&... args)
    -> Future<std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>> {
    using R = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;
    Promise<R> promise;
    Future<R> future = promise.get_future();
    baton::go(
        [](Promise<R> mine, auto&& g, auto&&... as) {
            mine.set_result_of(std::forward<decltype(g)>(g), std::forward<decltype(as)>(as)...);
        },
        std::move(promise), std::forward<F>(f), std::forward<Args>(args)...);
    return future;
}

namespace detail {

template <class T>
inline constexpr bool kIsFuture = false;
template <class T>
inline constexpr bool kIsFuture<Future<T>> = true;
/// A std::vector<Future<T>>, a std::span of them, ...
template <class R>
concept Futures = std::ranges::forward_range<const R> &&
    kIsFuture<std::remove_cvref_t<std::ranges::range_reference_t<const R>>>;

template <Futures R>
std::vector<RecvChan<std::monostate>> done_of(const R& futures) {
    std::vector<RecvChan<std::monostate>> done;
    for (const auto& future : futures) done.push_back(future.done());
    if (done.empty()) throw std::invalid_argument("baton::wait_any: of no futures");
    return done;
}
inline std::optional<std::size_t>
which(const std::optional<Received<std::monostate>>& received) noexcept {
    return received ? std::optional(received->from) : std::nullopt;
}

} // namespace detail

/// Parks until all of the results are there.
template <class... T>
void wait_all(const Future<T>&... futures) {
    (futures.wait(), ...);
}
/// The same, or until `until`: then it throws, or tells so in `ec` and returns false.
template <class... T>
void wait_all(const Until& until, const Future<T>&... futures) {
    (futures.wait(until), ...);
}
template <class... T>
bool wait_all(const Until& until, std::error_code& ec, const Future<T>&... futures) {
    ec.clear();
    return (futures.wait(until, ec) && ...);
}
/// The same for a range of futures, such as a std::vector.
template <detail::Futures R>
void wait_all(const R& futures) {
    for (const auto& future : futures) future.wait();
}
template <detail::Futures R>
void wait_all(const Until& until, const R& futures) {
    for (const auto& future : futures) future.wait(until);
}
template <detail::Futures R>
bool wait_all(const Until& until, std::error_code& ec, const R& futures) {
    ec.clear();
    return std::ranges::all_of(futures, [&](const auto& f) { return f.wait(until, ec); });
}

/// Parks until one of the results is there; which one, counted from 0. Of several each is as
/// likely.
template <class... T>
    requires(sizeof...(T) > 0)
std::size_t wait_any(const Until& until, const Future<T>&... futures);
template <class... T>
    requires(sizeof...(T) > 0)
std::size_t wait_any(const Future<T>&... futures) { return wait_any(Until(), futures...); }
/// The same, or until `until`: then it throws, or tells so in `ec` and returns nothing.
template <class... T>
    requires(sizeof...(T) > 0)
std::size_t wait_any(const Until& until, const Future<T>&... futures) {
    const std::array<RecvChan<std::monostate>, sizeof...(T)> done{futures.done()...};
    return recv_any(std::span<const RecvChan<std::monostate>>(done), until).from;
}
template <class... T>
    requires(sizeof...(T) > 0)
std::optional<std::size_t> wait_any(const Until& until, std::error_code& ec,
                                    const Future<T>&... futures) {
    const std::array<RecvChan<std::monostate>, sizeof...(T)> done{futures.done()...};
    return detail::which(recv_any(std::span<const RecvChan<std::monostate>>(done), until, ec));
}
/// The same for a range of futures, such as a std::vector. Throws std::invalid_argument if there is
/// none, and std::bad_alloc.
template <detail::Futures R>
std::size_t wait_any(const Until& until, const R& futures) {
    return recv_any(detail::done_of(futures), until).from;
}
template <detail::Futures R>
std::size_t wait_any(const R& futures) {
    return wait_any(Until(), futures);
}
template <detail::Futures R>
std::optional<std::size_t> wait_any(const Until& until, std::error_code& ec, const R& futures) {
    return detail::which(recv_any(detail::done_of(futures), until, ec));
}

} // namespace baton
#pragma GCC visibility pop
