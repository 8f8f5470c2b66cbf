// SPDX-License-Identifier: Apache-2.0
//
// Chan<T>: a typed conduit between goroutines, as Go's chan.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace [[gnu::visibility("default")]] baton {

/// Thrown by a send on a closed channel, and by a second close.
class ChanClosed : public std::logic_error {
public:
    using std::logic_error::logic_error;
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

ChanCore* chan_make(const ElemType& type, std::size_t capacity);
ChanCore* chan_share(ChanCore* chan) noexcept;
void chan_release(ChanCore* chan) noexcept;
void chan_send(ChanCore* chan, void* from);
bool chan_try_send(ChanCore* chan, void* from);
bool chan_recv(ChanCore* chan, void* to);
bool chan_try_recv(ChanCore* chan, void* to) noexcept;
void chan_close(ChanCore* chan);
std::size_t chan_size(ChanCore* chan) noexcept;
std::size_t chan_capacity(const ChanCore* chan) noexcept;

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

/// A handle to a channel. Copies are handles to the same channel, which lives as long as one of
/// them does; what is left in its buffer is destroyed with it. As with a pointer, const is the
/// handle's, not the channel's. Capture it by value in a goroutine.
///
/// A handle that was moved from is Go's nil channel: send and recv park for ever, try_send and
/// try_recv fail, close throws, and assigning to it is fine.
///
/// Any number of goroutines and plain threads may use a channel at once; a handle itself is no more
/// thread-safe than an int. Where a goroutine parks a plain thread sleeps. Inside blocking() send
/// and recv may be called while they need not wait; if they have to, the process ends with a
/// message.
///
/// What a sender did before a send is seen by who receives the value. T must move without throwing;
/// its move constructor and destructor must not use the channel they are moved through, nor park.
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
    void send(T value) const { detail::chan_send(core_, std::addressof(value)); }
    /// Sends `value` if that can be done without waiting; else leaves it as it is and returns
    /// false. Throws ChanClosed if the channel is closed.
    [[nodiscard]] bool try_send(T& value) const {
        return detail::chan_try_send(core_, std::addressof(value));
    }
    [[nodiscard]] bool try_send(T&& value) const { return try_send(value); }

    /// Receives a value; parks while there is none. Nothing once the channel is closed and empty.
    std::optional<T> recv() const {
        detail::Slot<T> slot;
        if (!detail::chan_recv(core_, slot.address())) return std::nullopt;
        return slot.take();
    }
    /// Receives a value if there is one at once. Nothing does not tell empty from closed.
    [[nodiscard]] std::optional<T> try_recv() const noexcept {
        detail::Slot<T> slot;
        if (!detail::chan_try_recv(core_, slot.address())) return std::nullopt;
        return slot.take();
    }

    /// No more values will be sent: wakes all who wait. Values in the buffer can still be received.
    /// Throws ChanClosed if it is closed already.
    void close() const { detail::chan_close(core_); }

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

} // namespace baton
