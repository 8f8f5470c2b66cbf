// SPDX-License-Identifier: Apache-2.0
//
// TaskGroup: goroutines that end before the scope that started them does, as with Go's errgroup.
#pragma once

#include <concepts>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/sync.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Goroutines that do parts of one task. The first exception that escapes one asks the others to
/// stop, and comes out of wait().
///
///     baton::TaskGroup group;
///     for (auto& url : urls)
///         group.go([&](std::stop_token stop) { fetch(url, stop); });
///     group.wait();
///
/// The destructor asks those that run to stop and waits for all, so that they may use what lives
/// longer than the group. If one has failed and no wait() has told of it, the process ends with
/// exit code 2, as where an exception escapes a goroutine, unless the scope is left by an exception
/// of its own.
///
/// Any thread may call any function at any time, but the destructor, and set_limit while tasks run.
/// Tasks may start more. Inside blocking() what has to wait ends the process.
class TaskGroup {
public:
    TaskGroup() = default;
    /// Its tasks are asked to stop when `parent` is, that of a Context or of another group.
    explicit TaskGroup(std::stop_token parent)
        : parent_(std::in_place, std::move(parent), Stop{stop_}) {}
    ~TaskGroup();
    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;

    /// Starts `f(args...)` as a goroutine, or `f(stop_token, args...)` if it takes one. Parks while
    /// as many run as set_limit allows. Throws what baton::go throws.
    template <class F, class... Args>
        requires(!std::convertible_to<F, Until>)
    [[gnu::always_inline]] void go(F&& f, Args&&... args) {
        if (slots_) slots_->send({});
        start(std::forward<F>(f), std::forward<Args>(args)...);
    }
    /// The same, but gives up at `until`: throws the std::system_error that says so, or tells so in
    /// `ec` and returns false. Nothing was started then.
    template <class F, class... Args>
        requires(!std::same_as<F, std::error_code&>)
    [[gnu::always_inline]] void go(const Until& until, F&& f, Args&&... args) {
        if (slots_) slots_->send({}, until);
        start(std::forward<F>(f), std::forward<Args>(args)...);
    }
    template <class F, class... Args>
    [[gnu::always_inline]] bool go(const Until& until, std::error_code& ec, F&& f, Args&&... args) {
        ec.clear();
        if (slots_ && !slots_->send(std::monostate{}, until, ec)) return false;
        start(std::forward<F>(f), std::forward<Args>(args)...);
        return true;
    }
    /// The same, unless as many run as set_limit allows: then it returns false.
    template <class F, class... Args>
    [[nodiscard, gnu::always_inline]] bool try_go(F&& f, Args&&... args) {
        if (slots_ && !slots_->try_send(std::monostate{})) return false;
        start(std::forward<F>(f), std::forward<Args>(args)...);
        return true;
    }

    /// Parks until no task runs; then rethrows the first exception that escaped one, once.
    void wait();
    /// The same, but gives up at `until`: throws the std::system_error that says so. The tasks go
    /// on.
    void wait(const Until& until);
    /// The same; false, with the reason in `ec`, if it gave up. What escaped a task is thrown.
    bool wait(const Until& until, std::error_code& ec);

    /// Asks all tasks to stop, those to come too.
    void request_stop() noexcept { stop_.request_stop(); }
    /// What the tasks are handed: stopped by a failure, request_stop or the parent.
    [[nodiscard]] std::stop_token token() const noexcept { return stop_.get_token(); }

    /// At most `n` tasks run at once from here on. Throws std::invalid_argument for 0, and
    /// std::logic_error while tasks run.
    void set_limit(std::size_t n);

private:
    struct Stop {
        std::stop_source source;
        // A copy, as the group may end before this does (until.hpp).
        void operator()() const noexcept { std::stop_source(source).request_stop(); }
    };

    // Inlined, as those that call it, for the caller of these to be who made the goroutine.
    template <class F, class... Args>
    [[gnu::always_inline]] void start(F&& f, Args&&... args) {
        begin();
        try {
            baton::go(
                [this](auto&&... call) {
                    std::exception_ptr error;
                    try {
                        // Callable and arguments end before the wait does; no parameters by value,
                        // as in WaitGroup::go.
                        std::tuple<std::decay_t<F>, std::decay_t<Args>...> own(
                            std::forward<decltype(call)>(call)...);
                        std::apply(
                            [&](auto& g, auto&... as) { // this, or nothing
                                if constexpr (std::invocable<std::decay_t<F>, std::stop_token,
                                                             std::decay_t<Args>...>) {
                                    std::invoke(std::move(g), token(), std::move(as)...);
                                } else {
                                    std::invoke(std::move(g), std::move(as)...);
                                }
                            },
                            own);
                    } catch (...) {
                        error = std::current_exception();
                    }
                    end(error);
                },
                std::forward<F>(f), std::forward<Args>(args)...);
        } catch (...) {
            end(nullptr);
            throw;
        }
    }
    void begin();
    void end(const std::exception_ptr& error) noexcept;
    /// Waits; true: nobody ran any more, and `error` is the first failure.
    detail::WaitEnd quiet(const Until& until, std::exception_ptr& error);

    std::stop_source stop_;
    std::optional<std::stop_callback<Stop>> parent_;
    std::optional<Chan<std::monostate>> slots_; // a value for each task, where there is a limit
    Mutex mutex_;
    std::size_t running_ = 0; // under mutex_, as what follows
    std::exception_ptr error_;
    std::optional<Chan<std::monostate>> quiet_; // closed by the last that ends
};

} // namespace baton
#pragma GCC visibility pop
