// SPDX-License-Identifier: Apache-2.0
//
// WaitGroup: waits for a number of goroutines to finish, as Go's sync.WaitGroup.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>

#include "baton/go.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

/// A counter to wait for. It may be destroyed as soon as a wait has returned and nobody else waits
/// or will call it. When a wait has returned it may be used again.
class WaitGroup {
public:
    WaitGroup() = default;
    WaitGroup(const WaitGroup&) = delete;
    WaitGroup& operator=(const WaitGroup&) = delete;

    /// Adds `n`, which may be negative, to the counter; at zero every waiter is made runnable. Ends
    /// the process if it falls below zero, or rises from zero while somebody waits. Never parks.
    void add(int n = 1) noexcept;
    /// Takes one off the counter.
    void done() noexcept { add(-1); }
    /// Parks until the counter is zero; inside blocking() only if it is zero already. What was done
    /// before each done() is seen after it.
    void wait() { (void)wait_within(nullptr); }
    /// The same, as long as `until` lets it; throws std::system_error, with the code timed_out or
    /// operation_canceled, if the counter is not zero then.
    void wait(const Until& until) {
        if (const auto end = wait_within(&until); end != detail::WaitEnd::kDone)
            detail::throw_wait_end(end, "baton::WaitGroup::wait");
    }
    /// The same; false with the reason in `ec` if it is not zero.
    [[nodiscard]] bool wait(const Until& until, std::error_code& ec) {
        return detail::waited(wait_within(&until), ec);
    }

    /// Starts `f(args...)` as a goroutine counted by this group. Throws what baton::go throws.
    template <class F, class... Args>
    [[gnu::always_inline]] void go(F&& f, Args&&... args) { // its caller made the goroutine
        add(1);
        try {
            baton::go(
                [this](auto&&... call) {
                    // Callable and arguments end before the wait does; an exception ends the
                    // process instead. They are no parameters by value: of those gcc tells the user
                    // that the ABI has changed, if one is aligned to more than 16 bytes.
                    {
                        std::tuple<std::decay_t<F>, std::decay_t<Args>...> own(
                            std::forward<decltype(call)>(call)...);
                        std::apply([](auto&... it) { std::invoke(std::move(it)...); }, own);
                    }
                    done();
                },
                std::forward<F>(f), std::forward<Args>(args)...);
        } catch (...) {
            done();
            throw;
        }
    }

private:
    detail::WaitEnd wait_within(const Until* until);

    std::atomic<std::uint64_t> state_{0}; // high half: the counter; lowest bit: somebody waits
};

} // namespace baton
#pragma GCC visibility pop
