// SPDX-License-Identifier: Apache-2.0
//
// Context: what a request is still worth: until when, whether it was called off and why, and what
// goes along with it. As Go's package context.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <stop_token>
#include <system_error>
#include <typeinfo>
#include <utility>
#include <variant>

#include "baton/chan.hpp"
#include "baton/timer.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
struct ContextNode;
} // namespace detail

class CancelContext;

/// A handle to one; copies are handles to the same. It is over when it is cancelled, when its
/// deadline has passed, or when the one it was derived from is over; then it stays so.
///
///     auto context = baton::with_timeout(request, 50ms);
///     auto row = rows.recv(context); // each call that waits takes one
///
/// Any thread; nothing here parks. Derive others by with_cancel, with_deadline, with_timeout and
/// with_value.
class Context {
public:
    /// The first of all: it is never over. What `background()` returns.
    Context() noexcept = default;
    Context(const Context&) noexcept = default;
    Context(Context&&) noexcept = default;
    Context& operator=(const Context&) noexcept = default;
    Context& operator=(Context&&) noexcept = default;
    ~Context() = default;
    /// `Context c = with_timeout(...)` would be over at once, with the CancelContext that made it:
    /// keep that one, by `auto`.
    Context(CancelContext&&) = delete;
    Context& operator=(CancelContext&&) = delete;
    [[nodiscard]] static Context background() noexcept { return {}; }

    /// When it is over at the latest; nothing if there is no such time.
    [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> deadline() const noexcept;
    /// Closed when it is over. Of one that never is, Go's nil channel.
    [[nodiscard]] RecvChan<std::monostate> done() const noexcept;
    /// Stopped when it is over.
    [[nodiscard]] std::stop_token token() const noexcept;
    /// Why it is over: std::errc::operation_canceled or timed_out. Nothing while it is not.
    [[nodiscard]] std::error_code err() const noexcept;
    /// What cancel was given, here or in the context this one was derived from; without that a
    /// std::system_error with err(). Null while it is not over.
    [[nodiscard]] std::exception_ptr cause() const noexcept;

    /// The value with_value<Key> set, here or in a context this one was derived from; null if none
    /// has. It lives as long as some handle does.
    template <class Key>
    [[nodiscard]] const typename Key::type* value() const noexcept {
        return static_cast<const typename Key::type*>(find(typeid(Key)));
    }

    /// Waits that are given one are given up when it is over: at its deadline (timed_out) or when
    /// it is cancelled (operation_canceled).
    operator Until() const;

protected:
    [[nodiscard]] const std::shared_ptr<detail::ContextNode>& node() const noexcept {
        return node_;
    }
    void become(std::shared_ptr<detail::ContextNode> node) noexcept { node_ = std::move(node); }

private:
    template <class Key>
    friend Context with_value(const Context& parent, typename Key::type value);
    static Context derive(const Context& parent, const std::type_info& key,
                          std::shared_ptr<const void> value);
    [[nodiscard]] const void* find(const std::type_info& key) const noexcept;

    std::shared_ptr<detail::ContextNode> node_;
};

/// One that can be cancelled by who made it, and is when that one ends: Go's `defer cancel()`. Pass
/// it on as a Context, to a goroutine as `[context = baton::Context(context)]`. Nothing cancels
/// what it was derived from.
class CancelContext : public Context {
public:
    ~CancelContext() { cancel(); }
    /// One that was moved from is background(), and cancelling it does nothing.
    CancelContext(CancelContext&& other) noexcept = default;
    CancelContext& operator=(CancelContext&& other) noexcept {
        if (this != &other) {
            cancel();
            Context::operator=(static_cast<Context&&>(other));
        }
        return *this;
    }

    /// It is over, and so is all that was derived from it; nothing, if it is over already. Runs the
    /// callbacks of stop tokens.
    void cancel() noexcept { cancel(std::exception_ptr()); }
    /// The same; `cause` is told to who asks for it.
    void cancel(const std::exception_ptr& cause) noexcept;

private:
    friend CancelContext with_cancel(const Context& parent);
    template <detail::When W>
    friend CancelContext with_deadline(const Context& parent, const W& when);
    CancelContext(const Context& parent, std::int64_t when_ns);
};

/// One that is over with `parent`, or when it is cancelled.
[[nodiscard]] CancelContext with_cancel(const Context& parent);
/// The same, and at `when`, a point in time of any clock or a duration from now, if that is before
/// the deadline of `parent`.
template <detail::When W>
[[nodiscard]] CancelContext with_deadline(const Context& parent, const W& when) {
    return CancelContext(parent, detail::when_ns(when));
}
template <class Rep, class Period>
[[nodiscard]] CancelContext with_timeout(const Context& parent,
                                         const std::chrono::duration<Rep, Period>& from_now) {
    return with_deadline(parent, from_now);
}

/// One with a value, which is over with `parent`. The type of a key names what it is for and the
/// type of its value:
///
///     struct RequestId { using type = std::string; };
///     auto context = baton::with_value<RequestId>(parent, "4711");
///     *context.value<RequestId>() == "4711"
template <class Key>
[[nodiscard]] Context with_value(const Context& parent, typename Key::type value) {
    return Context::derive(parent, typeid(Key),
                           std::make_shared<const typename Key::type>(std::move(value)));
}
/// It would be over at once: keep the parent.
template <class Key>
Context with_value(CancelContext&& parent, typename Key::type value) = delete;

} // namespace baton
#pragma GCC visibility pop
