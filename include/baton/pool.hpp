// SPDX-License-Identifier: Apache-2.0
//
// Pool<T>: objects to be used again, as Go's sync.Pool.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#pragma GCC visibility push(default)
namespace baton {

namespace detail {

struct PoolShard;
struct PoolHoard;

/// The objects, and nothing of their type but how to destroy one.
class PoolCore {
public:
    explicit PoolCore(void (*destroy)(void*) noexcept);
    ~PoolCore();
    PoolCore(const PoolCore&) = delete;
    PoolCore& operator=(const PoolCore&) = delete;

    /// Null if there is none.
    void* get() noexcept;
    void put(void* object) noexcept;
    void clear() noexcept;
    std::size_t size() const noexcept;

private:
    friend struct PoolHoard;
    PoolShard& own_shard() const noexcept;
    void drop_idle() noexcept;
    void heed_fork() const noexcept;
    void start_afresh(std::uint32_t seen) const noexcept;

    void (*destroy_)(void*) noexcept;
    std::size_t n_;
    std::unique_ptr<PoolShard[]> shards_;
    std::unique_ptr<PoolHoard> hoard_;
    mutable std::atomic<std::uint32_t> forks_; // in which child of a fork it is as it should be
};

} // namespace detail

/// A cache of objects that are dear to make and all alike: buffers, parsers, connections' states.
/// Each processor has a shelf of its own, so that get and put cost some nanoseconds and share no
/// memory; where that is empty get takes from another's. Any thread; never parks, but for what
/// making and destroying a T does.
///
/// A shelf holds 64 at most; more are destroyed. So are, while a shelf is used, those on it that
/// nobody has needed for a second. Of a pool that nobody uses they go within four minutes: a
/// goroutine of the runtime's, once that has started, looks at all pools every two. Objects come
/// back as they were put: reset them before or after. In a forked child a pool is empty.
template <class T>
class Pool {
public:
    /// A T that goes back to its pool, which must outlive it.
    class Lease;

    /// Makes each new T by `T()`.
    Pool() requires std::default_initializable<T> : Pool([] { return std::make_unique<T>(); }) {}
    /// Makes them by `make`, which may be called by several threads at once, and may throw: then
    /// get does.
    template <std::invocable F>
        requires std::convertible_to<std::invoke_result_t<F&>, std::unique_ptr<T>>
    explicit Pool(F make)
        : make_(std::move(make)), core_([](void* t) noexcept { delete static_cast<T*>(t); }) {}

    /// One that was put, or a new one.
    [[nodiscard]] std::unique_ptr<T> get() {
        if (void* t = core_.get()) return std::unique_ptr<T>(static_cast<T*>(t));
        return make_();
    }
    /// For the next to get. Null is ignored.
    void put(std::unique_ptr<T> t) noexcept {
        if (t) core_.put(t.release());
    }
    /// get, with the put at the end of a scope.
    [[nodiscard]] Lease lease() { return Lease(*this, get()); }
    /// Destroys all that have been put, at this moment.
    void clear() noexcept { core_.clear(); }
    /// How many there are to get, at this moment.
    [[nodiscard]] std::size_t size() const noexcept { return core_.size(); }

private:
    std::function<std::unique_ptr<T>()> make_;
    detail::PoolCore core_;
};

template <class T>
class Pool<T>::Lease {
public:
    Lease(Pool& pool, std::unique_ptr<T> t) noexcept : pool_(&pool), t_(std::move(t)) {}
    ~Lease() { pool_->put(std::move(t_)); }
    Lease(Lease&&) noexcept = default;
    Lease& operator=(Lease&& other) noexcept {
        pool_->put(std::move(t_));
        pool_ = other.pool_;
        t_ = std::move(other.t_);
        return *this;
    }

    [[nodiscard]] T& operator*() const noexcept { return *t_; }
    [[nodiscard]] T* operator->() const noexcept { return t_.get(); }
    [[nodiscard]] T* get() const noexcept { return t_.get(); }

private:
    Pool* pool_;
    std::unique_ptr<T> t_;
};

} // namespace baton
#pragma GCC visibility pop
