// SPDX-License-Identifier: Apache-2.0
//
// Chan<T>: a typed conduit between goroutines, as Go's chan.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <type_traits>
#include <utility>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// Thrown by a send on a closed channel, and by a second close. Its code is std::errc::broken_pipe.
class ChanClosed : public std::system_error {
public:
    explicit ChanClosed(const char* what)
        : std::system_error(std::make_error_code(std::errc::broken_pipe), what) {}
};

namespace detail {

struct ChanCore; // the channel proper, shared by its handles

/// What the core has to know of an element type.
struct ElemType {
    std::size_t size; // 0 for an empty class: nothing is stored
    std::size_t align;
    void (*move)(void* to, void* from) noexcept; // constructs *to, leaves *from to be destroyed;
                                                 // null: its bytes are copied
    void (*destroy)(void* value) noexcept;       // null: nothing to do
};

template <class T>
constexpr ElemType elem_type() {
    static_assert(std::is_object_v<T> && !std::is_array_v<T> && std::is_same_v<T, std::decay_t<T>>);
    // Values are moved where no exception could go: on the other goroutine's behalf.
    static_assert(std::is_nothrow_move_constructible_v<T> && std::is_nothrow_destructible_v<T>,
                  "the elements of a channel must move and be destroyed without throwing");
    ElemType type{sizeof(T), alignof(T), nullptr, nullptr};
    if constexpr (!std::is_trivially_copyable_v<T>) {
        type.move = [](void* to, void* from) noexcept {
            ::new (to) T(std::move(*static_cast<T*>(from)));
        };
        type.destroy = [](void* value) noexcept { static_cast<T*>(value)->~T(); };
    } else if constexpr (std::is_empty_v<T>) {
        type.size = 0;
    }
    return type;
}

/// How an operation on a channel ended. kClosed: nothing was sent, or there is nothing to receive
/// any more.
enum class ChanEnd : std::uint8_t { kDone, kClosed, kTimedOut, kStopped, kNotReady };

ChanCore* chan_make(const ElemType& type, std::size_t capacity);
ChanCore* chan_share(ChanCore* chan) noexcept;
void chan_release(ChanCore* chan) noexcept;
ChanEnd chan_send(ChanCore* chan, void* from);
ChanEnd chan_send(ChanCore* chan, void* from, const Until& until);
ChanEnd chan_try_send(ChanCore* chan, void* from) noexcept;
ChanEnd chan_recv(ChanCore* chan, void* to);
ChanEnd chan_recv(ChanCore* chan, void* to, const Until& until);
ChanEnd chan_try_recv(ChanCore* chan, void* to) noexcept;
/// False: there is nothing to close.
bool chan_close(ChanCore* chan) noexcept;
std::size_t chan_size(ChanCore* chan) noexcept;
std::size_t chan_capacity(const ChanCore* chan) noexcept;
[[noreturn]] void throw_chan_end(ChanEnd end, const char* what);
std::error_code chan_error(ChanEnd end) noexcept;

struct ChanAccess {
    template <class C>
    static ChanCore* core(const C& chan) noexcept {
        if constexpr (requires { chan.core_; }) {
            return chan.core_;
        } else {
            return core(chan.chan_);
        }
    }
};

/// Room for a T that a receive may fill.
template <class T>
class Slot {
public:
    Slot() noexcept {}
    ~Slot() {}
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;

    void* address() noexcept { return std::addressof(value); }
    /// Moves the value out; once, and only if there is one.
    std::optional<T> take() noexcept {
        struct Destroy {
            T& it;
            ~Destroy() { it.~T(); }
        } destroy{value};
        return std::optional<T>(std::move(value));
    }

private:
    union {
        T value;
    };
};

} // namespace detail

template <class T>
class SendChan;
template <class T>
class RecvChan;

/// A handle to a channel. Copies are handles to the same channel, which lives as long as one of
/// them does; what is left in its buffer is destroyed with it. As with a pointer, const is the
/// handle's, not the channel's. Capture it by value in a goroutine. SendChan and RecvChan are
/// handles for one direction; a Chan converts to either.
///
/// A handle that was moved from is Go's nil channel: send and recv park for ever, try_send and
/// try_recv fail, a case of select is never ready, close throws, and assigning to it is fine.
///
/// Any number of goroutines and plain threads may use a channel at once; a handle itself is no more
/// thread-safe than an int. Where a goroutine parks a plain thread sleeps. Inside blocking() send
/// and recv may be called while they need not wait; if they have to, the process ends with a
/// message. Who waits longest is served first.
///
/// What a sender did before a send is seen by who receives the value. T must move without throwing;
/// its move constructor and destructor must not use the channel they are moved through, nor park.
///
/// Waits can be limited (Until). Failing is either thrown, or told in a std::error_code& where the
/// overload has one: std::errc::timed_out, operation_canceled, and broken_pipe for a send on a
/// closed channel, which is thrown as ChanClosed.
template <class T>
class Chan {
public:
    using value_type = T;
    class Iterator;

    /// An unbuffered channel: a send completes when a receiver has the value.
    Chan() : Chan(0) {}
    /// A channel with a buffer of `capacity` values. Throws std::length_error or std::bad_alloc if
    /// there cannot be one so large.
    explicit Chan(std::size_t capacity)
        : core_(detail::chan_make(detail::elem_type<T>(), capacity)) {}

    Chan(const Chan& other) noexcept : core_(detail::chan_share(other.core_)) {}
    Chan(Chan&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
    Chan& operator=(Chan other) noexcept {
        std::swap(core_, other.core_);
        return *this;
    }
    ~Chan() { detail::chan_release(core_); }

    /// Sends `value`; parks while there is neither a receiver nor room in the buffer. Throws
    /// ChanClosed if the channel is closed, or is closed while it waits.
    void send(T value) const { check_sent(detail::chan_send(core_, std::addressof(value))); }
    void send(T value, const Until& until) const {
        check_sent(detail::chan_send(core_, std::addressof(value), until));
    }
    /// The same; false with the reason in `ec` if it could not be sent. As everywhere here an
    /// lvalue is copied; what is passed as an rvalue is moved from only if it was sent.
    bool send(T&& value, std::error_code& ec) const {
        return sent(detail::chan_send(core_, std::addressof(value)), ec);
    }
    bool send(T&& value, const Until& until, std::error_code& ec) const {
        return sent(detail::chan_send(core_, std::addressof(value), until), ec);
    }
    template <std::copy_constructible U = T>
    bool send(const std::type_identity_t<U>& value, std::error_code& ec) const {
        return send(T(value), ec);
    }
    template <std::copy_constructible U = T>
    bool send(const std::type_identity_t<U>& value, const Until& until, std::error_code& ec) const {
        return send(T(value), until, ec);
    }
    /// Sends `value` if that can be done without waiting; else returns false, and an rvalue is
    /// left as it is. Throws ChanClosed if the channel is closed.
    [[nodiscard]] bool try_send(T&& value) const {
        const detail::ChanEnd end = detail::chan_try_send(core_, std::addressof(value));
        if (end == detail::ChanEnd::kNotReady) return false;
        check_sent(end);
        return true;
    }
    template <std::copy_constructible U = T>
    [[nodiscard]] bool try_send(const std::type_identity_t<U>& value) const {
        return try_send(T(value));
    }
    /// The same; `ec` tells full (operation_would_block) from closed.
    bool try_send(T&& value, std::error_code& ec) const noexcept {
        return sent(detail::chan_try_send(core_, std::addressof(value)), ec);
    }
    template <std::copy_constructible U = T>
    bool try_send(const std::type_identity_t<U>& value, std::error_code& ec) const {
        return try_send(T(value), ec);
    }

    /// Receives a value; parks while there is none. Nothing once the channel is closed and empty.
    std::optional<T> recv() const {
        detail::Slot<T> slot;
        if (detail::chan_recv(core_, slot.address()) != detail::ChanEnd::kDone) return std::nullopt;
        return slot.take();
    }
    std::optional<T> recv(const Until& until) const {
        detail::Slot<T> slot;
        const detail::ChanEnd end = detail::chan_recv(core_, slot.address(), until);
        if (end == detail::ChanEnd::kDone) return slot.take();
        if (end != detail::ChanEnd::kClosed) detail::throw_chan_end(end, "baton::Chan::recv");
        return std::nullopt;
    }
    /// The same; nothing, with the reason in `ec`, if the wait was given up. Of a channel that is
    /// closed and empty it is nothing and no error.
    std::optional<T> recv(const Until& until, std::error_code& ec) const {
        detail::Slot<T> slot;
        const detail::ChanEnd end = detail::chan_recv(core_, slot.address(), until);
        ec = end == detail::ChanEnd::kClosed ? std::error_code() : detail::chan_error(end);
        if (end != detail::ChanEnd::kDone) return std::nullopt;
        return slot.take();
    }
    /// Receives a value if there is one at once. Nothing does not tell empty from closed.
    [[nodiscard]] std::optional<T> try_recv() const noexcept {
        detail::Slot<T> slot;
        if (detail::chan_try_recv(core_, slot.address()) != detail::ChanEnd::kDone)
            return std::nullopt;
        return slot.take();
    }

    /// No more values will be sent: wakes all who wait. Values in the buffer can still be received.
    /// Throws ChanClosed if it is closed already.
    void close() const {
        if (!detail::chan_close(core_)) throw ChanClosed("close of a closed or a nil channel");
    }
    /// The same; broken_pipe if it is closed already.
    void close(std::error_code& ec) const noexcept {
        ec = detail::chan_error(detail::chan_close(core_) ? detail::ChanEnd::kDone
                                                          : detail::ChanEnd::kClosed);
    }

    /// How many values are in the buffer at this moment.
    [[nodiscard]] std::size_t size() const noexcept { return detail::chan_size(core_); }
    [[nodiscard]] std::size_t capacity() const noexcept { return detail::chan_capacity(core_); }

    /// Are these handles to one channel?
    friend bool operator==(const Chan& a, const Chan& b) noexcept { return a.core_ == b.core_; }

    /// `for (auto& value : chan)` receives until the channel is closed and empty. Leaving the loop
    /// early loses no value but the present one.
    [[nodiscard]] Iterator begin() const { return Iterator(*this); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }

private:
    friend struct detail::ChanAccess;

    static void check_sent(detail::ChanEnd end) {
        if (end != detail::ChanEnd::kDone) [[unlikely]]
            detail::throw_chan_end(end, "baton::Chan::send");
    }
    static bool sent(detail::ChanEnd end, std::error_code& ec) noexcept {
        ec = detail::chan_error(end);
        return end == detail::ChanEnd::kDone;
    }

    detail::ChanCore* core_;
};

/// Receives as it goes; holds the value received last.
template <class T>
class Chan<T>::Iterator {
public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;

    explicit Iterator(const Chan& chan) : chan_(chan), value_(chan.recv()) {}
    [[nodiscard]] T& operator*() const noexcept { return *value_; }
    Iterator& operator++() {
        value_ = std::nullopt; // before the next is waited for
        if (auto next = chan_.recv()) value_.emplace(std::move(*next));
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& it, std::default_sentinel_t) noexcept {
        return !it.value_;
    }

private:
    Chan chan_;
    mutable std::optional<T> value_;
};

/// A handle through which a channel can only be received from, Go's `<-chan T`.
template <class T>
class RecvChan {
public:
    using value_type = T;
    using Iterator = typename Chan<T>::Iterator;

    RecvChan(Chan<T> chan) noexcept : chan_(std::move(chan)) {}

    std::optional<T> recv() const { return chan_.recv(); }
    std::optional<T> recv(const Until& until) const { return chan_.recv(until); }
    std::optional<T> recv(const Until& until, std::error_code& ec) const {
        return chan_.recv(until, ec);
    }
    [[nodiscard]] std::optional<T> try_recv() const noexcept { return chan_.try_recv(); }
    [[nodiscard]] std::size_t size() const noexcept { return chan_.size(); }
    [[nodiscard]] std::size_t capacity() const noexcept { return chan_.capacity(); }
    [[nodiscard]] Iterator begin() const { return chan_.begin(); }
    [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }
    friend bool operator==(const RecvChan& a, const RecvChan& b) noexcept {
        return a.chan_ == b.chan_;
    }

private:
    friend struct detail::ChanAccess;
    Chan<T> chan_;
};

/// A handle through which a channel can only be sent to and closed, Go's `chan<- T`.
template <class T>
class SendChan {
public:
    using value_type = T;

    SendChan(Chan<T> chan) noexcept : chan_(std::move(chan)) {}

    void send(T value) const { chan_.send(std::move(value)); }
    void send(T value, const Until& until) const { chan_.send(std::move(value), until); }
    bool send(T&& value, std::error_code& ec) const { return chan_.send(std::move(value), ec); }
    bool send(T&& value, const Until& until, std::error_code& ec) const {
        return chan_.send(std::move(value), until, ec);
    }
    template <std::copy_constructible U = T>
    bool send(const std::type_identity_t<U>& value, std::error_code& ec) const {
        return chan_.send(value, ec);
    }
    template <std::copy_constructible U = T>
    bool send(const std::type_identity_t<U>& value, const Until& until, std::error_code& ec) const {
        return chan_.send(value, until, ec);
    }
    [[nodiscard]] bool try_send(T&& value) const { return chan_.try_send(std::move(value)); }
    template <std::copy_constructible U = T>
    [[nodiscard]] bool try_send(const std::type_identity_t<U>& value) const {
        return chan_.try_send(value);
    }
    bool try_send(T&& value, std::error_code& ec) const noexcept {
        return chan_.try_send(std::move(value), ec);
    }
    template <std::copy_constructible U = T>
    bool try_send(const std::type_identity_t<U>& value, std::error_code& ec) const {
        return chan_.try_send(value, ec);
    }
    void close() const { chan_.close(); }
    void close(std::error_code& ec) const noexcept { chan_.close(ec); }
    [[nodiscard]] std::size_t size() const noexcept { return chan_.size(); }
    [[nodiscard]] std::size_t capacity() const noexcept { return chan_.capacity(); }
    friend bool operator==(const SendChan& a, const SendChan& b) noexcept {
        return a.chan_ == b.chan_;
    }

private:
    friend struct detail::ChanAccess;
    Chan<T> chan_;
};

} // namespace baton
#pragma GCC visibility pop
