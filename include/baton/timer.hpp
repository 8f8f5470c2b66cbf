// SPDX-License-Identifier: Apache-2.0
//
// Timer and Ticker, as in Go's time package: something happens once, or again and again, at a time
// to come. To give up waiting at some time, hand the time to the call that waits (until.hpp).
#pragma once

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include "baton/chan.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {

/// CLOCK_MONOTONIC, in nanoseconds, at the end of a duration from now, or at a point in time.
template <class Rep, class Period>
std::int64_t when_ns(const std::chrono::duration<Rep, Period>& from_now) {
    return saturating_deadline_ns(saturating_ns(from_now));
}
template <class Clock, class Duration>
std::int64_t when_ns(const std::chrono::time_point<Clock, Duration>& t) {
    return deadline_ns(t);
}
template <class T>
concept When = requires(const T& t) {
    { when_ns(t) } -> std::same_as<std::int64_t>;
};

using TimeChan = Chan<std::chrono::steady_clock::time_point>;

/// A function that is called at some time, shared by its Timer, its pending firing and the
/// goroutines that run it.
class DelayedCall {
public:
    virtual void call() = 0;

protected:
    DelayedCall() = default;
    virtual ~DelayedCall() = default;

private:
    friend struct DelayedCalls;
    std::atomic<std::uint32_t> owners_{1};
    void* timer_ = nullptr;
};

TimeChan timer_chan(std::int64_t when_ns, std::int64_t period_ns);
bool timer_chan_reset(const TimeChan& chan, std::int64_t when_ns, std::int64_t period_ns);
bool timer_chan_stop(const TimeChan& chan) noexcept;
void timer_call_start(DelayedCall* call, std::int64_t when_ns);
bool timer_call_reset(DelayedCall* call, std::int64_t when_ns);
bool timer_call_stop(DelayedCall* call) noexcept;
void timer_call_release(DelayedCall* call) noexcept;
/// A ticker's; throws if it is no period.
std::int64_t period_ns(std::chrono::nanoseconds period);

} // namespace detail

/// One event, at a time to come: the time is sent on a channel, or, if after_func made it, a
/// function is called.
///
/// Times are durations from now or points in time of any clock, which is read once; the past and
/// negative durations mean at once, what is beyond the clock's range means never. Events come no
/// sooner than asked for.
///
/// stop and reset may be called by several threads at once; the handle itself is no more
/// thread-safe than an int. Nothing here parks. Starts the runtime if need be. After a fork none is
/// pending in the child, where reset works.
class Timer {
public:
    using TimePoint = std::chrono::steady_clock::time_point;

    /// Sends the time on chan() at `when`. Throws std::bad_alloc, or std::system_error if the
    /// runtime cannot start.
    template <detail::When W>
    explicit Timer(const W& when) : chan_(detail::timer_chan(detail::when_ns(when), 0)) {}
    /// Stops it. A function that runs goes on, and so do the channel's other handles: nothing will
    /// come through them.
    ~Timer() { release(); }
    /// One that was moved from never fires; reset throws std::logic_error.
    Timer(Timer&& other) noexcept
        : chan_(std::move(other.chan_)), call_(std::exchange(other.call_, nullptr)) {}
    Timer& operator=(Timer&& other) noexcept {
        if (this != &other) {
            release();
            chan_ = std::move(other.chan_);
            call_ = std::exchange(other.call_, nullptr);
        }
        return *this;
    }

    /// The channel through which the time comes; it is never closed, and size() and capacity() are
    /// 0 always. Of a timer that calls a function it is Go's nil channel: nothing ever comes.
    [[nodiscard]] RecvChan<TimePoint> chan() const noexcept { return chan_; }

    /// Calls it off. True if this call did: it was pending, or had fired and nobody had received
    /// the time. False if it was stopped before, or the time had been received, or the function's
    /// goroutine started; that is not waited for. After it has returned no time is received.
    bool stop() noexcept {
        return call_ ? detail::timer_call_stop(call_) : detail::timer_chan_stop(chan_);
    }
    /// Has it fire at `when`, whatever it was to do before; a time sent for that before and not
    /// received never is. True where stop() would have returned true. A function may be called
    /// again while an earlier call runs.
    template <detail::When W>
    bool reset(const W& when) {
        const std::int64_t ns = detail::when_ns(when);
        return call_ ? detail::timer_call_reset(call_, ns) : detail::timer_chan_reset(chan_, ns, 0);
    }
    /// The event comes about though nobody has the Timer any more. Afterwards this one is as if it
    /// was moved from.
    void detach() noexcept {
        if (call_) detail::timer_call_release(std::exchange(call_, nullptr));
        chan_ = nil();
    }

private:
    template <detail::When W, class F>
        requires std::invocable < std::decay_t<F>
    & > friend Timer after_func(const W& when, F&& f);

    explicit Timer(detail::DelayedCall* call) : chan_(nil()), call_(call) {}
    static detail::TimeChan nil() noexcept;
    void release() noexcept {
        stop();
        if (call_) detail::timer_call_release(call_);
    }

    detail::TimeChan chan_;
    detail::DelayedCall* call_ = nullptr;
};

/// Calls `f()` at `when` in a goroutine of its own. An exception that escapes it ends the process.
/// While there is no memory for the goroutine the call is put off. The timer returned calls it off
/// as it ends: detach() it to let it be.
template <detail::When W, class F>
    requires std::invocable < std::decay_t<F>
& > [[nodiscard]] Timer after_func(const W& when, F&& f) {
    struct Call final : detail::DelayedCall {
        explicit Call(F&& g) : f(std::forward<F>(g)) {}
        void call() override { std::invoke(f); }
        std::decay_t<F> f;
    };
    const std::int64_t ns = detail::when_ns(when);
    Timer timer(new Call(std::forward<F>(f)));
    detail::timer_call_start(timer.call_, ns);
    return timer;
}

/// The channel of a timer that nobody can stop: the time comes through it once. If its last handle
/// ends before that, so does the timer.
template <detail::When W>
[[nodiscard]] RecvChan<std::chrono::steady_clock::time_point> after(const W& when) {
    return detail::timer_chan(detail::when_ns(when), 0);
}

/// Sends the time on a channel again and again. Ticks that come while the last one waits to be
/// received are left out, so that a slow receiver gets the next one at its time.
///
/// Threads, and what stop and reset do to what was sent: as with Timer.
class Ticker {
public:
    using TimePoint = std::chrono::steady_clock::time_point;

    /// The first tick comes after one `period`. Throws std::invalid_argument if that is not more
    /// than nothing, and what Timer throws.
    template <class Rep, class Period>
    explicit Ticker(const std::chrono::duration<Rep, Period>& period)
        : chan_(make(detail::period_ns(detail::saturating_ns(period)))) {}
    ~Ticker() { stop(); }
    /// One that was moved from never ticks; reset throws std::logic_error.
    Ticker(Ticker&&) noexcept = default;
    Ticker& operator=(Ticker&& other) noexcept {
        if (this != &other) {
            stop();
            chan_ = std::move(other.chan_);
        }
        return *this;
    }

    /// The channel through which the ticks come; as Timer's.
    [[nodiscard]] RecvChan<TimePoint> chan() const noexcept { return chan_; }
    /// No more ticks come, until reset. The channel is not closed.
    void stop() noexcept { detail::timer_chan_stop(chan_); }
    /// The next tick comes after one `period`, and so do those that follow.
    template <class Rep, class Period>
    void reset(const std::chrono::duration<Rep, Period>& period) {
        const std::int64_t ns = detail::period_ns(detail::saturating_ns(period));
        detail::timer_chan_reset(chan_, first_ns(ns), ns);
    }

private:
    static std::int64_t first_ns(std::int64_t period) {
        return detail::when_ns(std::chrono::nanoseconds(period));
    }
    static detail::TimeChan make(std::int64_t period) {
        return detail::timer_chan(first_ns(period), period);
    }

    detail::TimeChan chan_;
};

} // namespace baton
#pragma GCC visibility pop
