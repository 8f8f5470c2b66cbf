// SPDX-License-Identifier: Apache-2.0
//
// Local<T>: a variable of which each goroutine has its own, as thread_local is for threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#pragma GCC visibility push(default)
namespace baton {

namespace detail {

/// Which variable: a place in each goroutine's table, and how many have had that place before.
struct LocalKey {
    std::uint32_t index;
    std::uint32_t generation;
};
LocalKey local_key();
void local_key_free(LocalKey key) noexcept;
/// The caller's value; null if it has none yet.
void* local_find(LocalKey key) noexcept;
/// Gives the caller, which has none, a value. Throws std::bad_alloc; then it is still yours.
void local_set(LocalKey key, void* value, void (*destroy)(void*) noexcept);

} // namespace detail

/// A value for each goroutine, made when that first asks for it, and destroyed on the goroutine as
/// it ends, the last made first; there it may still use others, and park. A plain thread has one
/// too, destroyed when the thread ends; the main thread's is not. Goroutines do not inherit values.
///
///     baton::Local<std::mt19937> random([] { return std::mt19937(std::random_device{}()); });
///     auto n = (*random)();
///
/// Unlike a thread_local's, the address of a value is good across calls that park. When a Local
/// ends, the values stay until their goroutines do, without a way to them. In a forked child the
/// goroutine that forked starts afresh.
///
/// There may be 4096 at a time; one more throws std::system_error. Any thread. Finding a value
/// costs a few nanoseconds. What the constructor of a value throws comes out of the call that
/// asked; the next one tries again.
template <class T>
class Local {
    static_assert(std::is_object_v<T> && std::is_nothrow_destructible_v<T>);

public:
    /// Values are value-initialised.
    Local() requires std::is_default_constructible_v<T> : Local([] { return T(); }) {}
    /// Values are what `make()` returns, on the goroutine that asks.
    explicit Local(std::function<T()> make) : key_(detail::local_key()), make_(std::move(make)) {}
    ~Local() { detail::local_key_free(key_); }
    Local(const Local&) = delete;
    Local& operator=(const Local&) = delete;

    /// The caller's value.
    [[nodiscard]] T& get() const {
        if (void* value = detail::local_find(key_)) [[likely]]
            return *static_cast<T*>(value);
        return create();
    }
    [[nodiscard]] T& operator*() const { return get(); }
    [[nodiscard]] T* operator->() const { return &get(); }
    /// The caller's value if it has been asked for before; else null.
    [[nodiscard]] T* find() const noexcept { return static_cast<T*>(detail::local_find(key_)); }

private:
    [[gnu::noinline]] T& create() const {
        std::unique_ptr<T> value(new T(make_()));
        // The constructor may have asked for the value itself.
        if (T* there = find()) return *there;
        detail::local_set(key_, value.get(), [](void* v) noexcept { delete static_cast<T*>(v); });
        return *value.release();
    }

    detail::LocalKey key_;
    std::function<T()> make_;
};

} // namespace baton
#pragma GCC visibility pop
