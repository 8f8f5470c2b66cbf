// SPDX-License-Identifier: Apache-2.0
//
// select: waits for the first of several channels, as Go's select statement.
//
//     switch (baton::select(baton::on_recv(jobs, [&](std::optional<Job> job) { ... }),
//                           baton::on_send(results, result),
//                           baton::on_until(50ms))) {
//     case 2: // nothing within 50 ms
//     }
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "baton/chan.hpp"
#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {

struct SelectCase {
    ChanCore* chan; // null is never ready
    void* elem;
    bool sends;
};
/// Which case was chosen and how it ended; -1: none (kNotReady, kTimedOut, kStopped).
struct Selected {
    std::int32_t index;
    ChanEnd end;
};
/// Without `until` it returns at once.
Selected select_limited(const SelectCase* cases, std::size_t n, const Until* until);
Selected select_for_ever(const SelectCase* cases, std::size_t n);

enum class CaseKind : std::uint8_t { kChannel, kOtherwise, kUntil };

struct Nothing {
    template <class... Args>
    void operator()(Args&&...) const noexcept {}
};

// A case refers to what it was made of, so it is good only for the call of select that it is made
// in: it can be neither copied nor moved, which lets it be passed there and nowhere else.
struct CaseBase {
    CaseBase() = default;
    CaseBase(const CaseBase&) = delete;
    CaseBase& operator=(const CaseBase&) = delete;
};

template <class T, class F>
class RecvCase : public CaseBase {
public:
    static constexpr CaseKind kKind = CaseKind::kChannel;
    template <class G>
    RecvCase(ChanCore* chan, G&& f) : chan_(chan), f_(std::forward<G>(f)) {}
    SelectCase arm() noexcept { return {chan_, slot_.address(), false}; }
    void run(ChanEnd end) { f_(end == ChanEnd::kDone ? slot_.take() : std::optional<T>()); }

private:
    ChanCore* chan_;
    Slot<T> slot_;
    F f_;
};

template <class T, class Value, class F>
class SendCase : public CaseBase {
public:
    static constexpr CaseKind kKind = CaseKind::kChannel;
    template <class V, class G>
    SendCase(ChanCore* chan, V&& value, G&& f)
        : chan_(chan), value_(std::forward<V>(value)), f_(std::forward<G>(f)) {}
    SelectCase arm() noexcept { return {chan_, std::addressof(value_), true}; }
    void run(ChanEnd end) {
        if (end != ChanEnd::kDone) throw ChanClosed("baton::select: send on a closed channel");
        f_();
    }

private:
    ChanCore* chan_;
    Value value_;
    F f_;
};

template <class F>
class OtherwiseCase : public CaseBase {
public:
    static constexpr CaseKind kKind = CaseKind::kOtherwise;
    explicit OtherwiseCase(F f) : f_(std::move(f)) {}
    void run(ChanEnd) { f_(); }

private:
    F f_;
};

template <class F>
class UntilCase : public CaseBase {
public:
    static constexpr CaseKind kKind = CaseKind::kUntil;
    template <class G>
    UntilCase(const Until& until, G&& f) : until_(until), f_(std::forward<G>(f)) {}
    const Until* limit() const noexcept { return &until_; }
    void run(ChanEnd end) {
        if constexpr (std::invocable<F&, std::error_code>) {
            f_(chan_error(end));
        } else {
            f_();
        }
    }

private:
    const Until& until_;
    F f_;
};

template <class C>
struct IsReceiver : std::false_type {};
template <class T>
struct IsReceiver<Chan<T>> : std::true_type {};
template <class T>
struct IsReceiver<RecvChan<T>> : std::true_type {};
template <class C>
struct IsSender : std::false_type {};
template <class T>
struct IsSender<Chan<T>> : std::true_type {};
template <class T>
struct IsSender<SendChan<T>> : std::true_type {};
template <class C>
concept Receiver = IsReceiver<std::remove_cvref_t<C>>::value;
template <class C>
concept Sender = IsSender<std::remove_cvref_t<C>>::value;
template <class C>
using ValueOf = typename std::remove_cvref_t<C>::value_type;

} // namespace detail

/// A case of select: receives from `chan`. `f` is then called with what came, nothing if the
/// channel is closed and empty.
template <detail::Receiver C, class F = detail::Nothing>
    requires std::invocable < std::decay_t<F>
&, std::optional < detail::ValueOf < C >>> [[nodiscard]] auto on_recv(const C& chan, F&& f = {}) {
    return detail::RecvCase<detail::ValueOf<C>, std::decay_t<F>>(detail::ChanAccess::core(chan),
                                                                 std::forward<F>(f));
}
/// The same; what came goes to `into`, which is left alone if another case is chosen.
template <detail::Receiver C>
[[nodiscard]] auto on_recv(const C& chan, std::optional<detail::ValueOf<C>>& into) {
    using T = detail::ValueOf<C>;
    auto store = [&into](std::optional<T> value) { into = std::move(value); };
    return detail::RecvCase<T, decltype(store)>(detail::ChanAccess::core(chan), store);
}

/// A case of select: sends `value` to `chan`; `f` is called when that is done. What is passed as an
/// rvalue is moved from only if this case is chosen. If the channel is closed, select throws
/// ChanClosed when it chooses this case, which is then always ready.
template <detail::Sender C, class V, class F = detail::Nothing>
    requires std::convertible_to<V, detail::ValueOf<C>> && std::invocable < std::decay_t<F>
& > [[nodiscard]] auto on_send(const C& chan, V&& value, F&& f = {}) {
    using T = detail::ValueOf<C>;
    // A T that may be moved from is used where it is.
    using Value = std::conditional_t<std::is_same_v<V&&, T&&>, T&&, T>;
    return detail::SendCase<T, Value, std::decay_t<F>>(detail::ChanAccess::core(chan),
                                                       std::forward<V>(value), std::forward<F>(f));
}

/// The case that is chosen if no other is ready at once, Go's `default`: select does not wait then.
template <class F = detail::Nothing>
    requires std::invocable < std::decay_t<F>
& > [[nodiscard]] auto otherwise(F&& f = {}) {
    return detail::OtherwiseCase<std::decay_t<F>>(std::forward<F>(f));
}

/// The case that is chosen when the wait is given up: after some time, at some time, when a stop is
/// requested. `f` is called with nothing, or with the std::error_code that tells timed_out from
/// operation_canceled.
template <class F = detail::Nothing>
    requires(std::invocable<std::decay_t<F>&> || std::invocable<std::decay_t<F>&, std::error_code>)
[[nodiscard]] auto on_until(const Until& until, F&& f = {}) {
    return detail::UntilCase<std::decay_t<F>>(until, std::forward<F>(f));
}

namespace detail {

template <class... Cases>
constexpr std::size_t count_of([[maybe_unused]] CaseKind kind) {
    return (std::size_t{0} + ... + (Cases::kKind == kind ? 1 : 0));
}
/// Where the n-th case of a kind is among all.
template <class... Cases>
constexpr std::size_t place_of(CaseKind kind, std::size_t n) {
    constexpr std::array<CaseKind, sizeof...(Cases)> kKinds{Cases::kKind...};
    for (std::size_t i = 0; i < kKinds.size(); i++)
        if (kKinds[i] == kind && n-- == 0) return i;
    return kKinds.size();
}

template <class... Cases>
Selected select_among(Cases&... cases) {
    constexpr std::size_t kChannels = count_of<Cases...>(CaseKind::kChannel);
    std::array<SelectCase, kChannels> arms;
    [[maybe_unused]] SelectCase* next = arms.data();
    const Until* until = nullptr;
    [[maybe_unused]] const auto arm = [&](auto& one) {
        using Case = std::remove_reference_t<decltype(one)>;
        if constexpr (Case::kKind == CaseKind::kChannel) *next++ = one.arm();
        if constexpr (Case::kKind == CaseKind::kUntil) until = one.limit();
    };
    (arm(cases), ...);
    if constexpr (kChannels == 1 && count_of<Cases...>(CaseKind::kOtherwise) == 1) {
        const auto [chan, elem, sends] = arms[0];
        const ChanEnd end = sends ? chan_try_send(chan, elem) : chan_try_recv(chan, elem);
        return {end == ChanEnd::kNotReady ? -1 : 0, end};
    } else if constexpr (count_of<Cases...>(CaseKind::kOtherwise) +
                             count_of<Cases...>(CaseKind::kUntil) !=
                         0) {
        return select_limited(arms.data(), kChannels, until);
    } else {
        return select_for_ever(arms.data(), kChannels);
    }
}

} // namespace detail

/// Waits until one of the cases can proceed, lets it, calls its function, and returns its place
/// among the arguments. Of several that can, each is as likely. All or nothing: of the others none
/// has happened, and whoever waits in their channels goes on waiting. Channels are looked at as of
/// one moment, so `otherwise` is chosen only if at that moment no case was ready.
///
/// Cases are made in the call itself. A channel may be in several cases; with a send and a receive
/// on one channel a select never meets itself. Without cases, or with nil channels only, it waits
/// for ever. Allocates nothing with up to 16 channels. What a case's function throws is passed on.
///
/// Parks where it waits; any thread. Inside blocking() it ends the process if it would have to.
template <class... Cases>
    requires(std::derived_from<Cases, detail::CaseBase>&&...)
std::size_t select(Cases... cases) {
    using detail::CaseKind;
    static_assert(detail::count_of<Cases...>(CaseKind::kOtherwise) +
                          detail::count_of<Cases...>(CaseKind::kUntil) <=
                      1,
                  "select takes one `otherwise` or one `on_until`");
    const detail::Selected chosen = detail::select_among(cases...);
    constexpr std::size_t kLast = detail::count_of<Cases...>(CaseKind::kOtherwise) != 0
                                      ? detail::place_of<Cases...>(CaseKind::kOtherwise, 0)
                                      : detail::place_of<Cases...>(CaseKind::kUntil, 0);
    const std::size_t place =
        chosen.index < 0 ? kLast
                         : detail::place_of<Cases...>(CaseKind::kChannel,
                                                      static_cast<std::size_t>(chosen.index));
    std::size_t i = 0;
    (void)(((i++ == place) && (cases.run(chosen.end), true)) || ...);
    return place;
}

/// What recv_any received, and from which of its channels.
template <class T>
struct Received {
    std::size_t from;
    std::optional<T> value; ///< nothing: that channel is closed and empty
};

namespace detail {

/// A select with a receive into `to` for each of `chans`.
template <Receiver C>
Selected select_receive(std::span<const C> chans, void* to, const Until& until) {
    std::vector<SelectCase> many;
    std::array<SelectCase, 16> few{};
    if (chans.size() > few.size()) many.resize(chans.size());
    SelectCase* cases = many.empty() ? few.data() : many.data();
    for (std::size_t i = 0; i < chans.size(); i++)
        cases[i] = {ChanAccess::core(chans[i]), to, false};
    return select_limited(cases, chans.size(), &until);
}

template <class T>
Received<T> received(const Selected& chosen, Slot<T>& slot) {
    const auto from = static_cast<std::size_t>(chosen.index);
    if (chosen.end != ChanEnd::kDone) return {from, std::nullopt};
    return {from, slot.take()};
}

} // namespace detail

/// Receives from whichever of `chans` has a value first, as a select with a receive for each. For
/// channels whose number is known only when the program runs; of none it waits for `until` alone.
/// Allocates for more than 16. Throws std::system_error (timed_out, operation_canceled) when
/// `until` ends the wait.
template <detail::Receiver C>
Received<detail::ValueOf<C>> recv_any(std::span<const C> chans, const Until& until = {}) {
    detail::Slot<detail::ValueOf<C>> slot;
    const detail::Selected chosen = detail::select_receive(chans, slot.address(), until);
    if (chosen.index < 0) detail::throw_chan_end(chosen.end, "baton::recv_any");
    return detail::received(chosen, slot);
}
/// The same; nothing, with the reason in `ec`, if the wait was given up.
template <detail::Receiver C>
std::optional<Received<detail::ValueOf<C>>> recv_any(std::span<const C> chans, const Until& until,
                                                     std::error_code& ec) {
    detail::Slot<detail::ValueOf<C>> slot;
    const detail::Selected chosen = detail::select_receive(chans, slot.address(), until);
    ec = chosen.index < 0 ? detail::chan_error(chosen.end) : std::error_code();
    if (chosen.index < 0) return std::nullopt;
    return detail::received(chosen, slot);
}
template <class C>
    requires detail::Receiver<C> Received<detail::ValueOf<C>> recv_any(const std::vector<C>& chans,
                                                                       const Until& until = {}) {
        return recv_any(std::span<const C>(chans), until);
    }
template <class C>
    requires detail::Receiver<C> std::optional<Received<detail::ValueOf<C>>>
    recv_any(const std::vector<C>& chans, const Until& until, std::error_code& ec) {
        return recv_any(std::span<const C>(chans), until, ec);
    }

} // namespace baton
#pragma GCC visibility pop
