// SPDX-License-Identifier: Apache-2.0
//
// select, in the passes of the reference's select.go:
//
//   0  look, without any lock, which cases may be ready; of those try one after the other in random
//      order, each under its own channel's lock, or without where it is closed and empty. Most
//      selects that need not wait end here, with one lock taken instead of all.
//   1  with the locks of all channels, taken in the order of their addresses, try again. Only this
//      can tell that at one moment none was ready.
//   2  queue a waiter for each case and park; the locks are released once the G is off its stack.
//   3  take the locks again, and the other waiters off their queues.
//
// Whoever ends the wait claims it (runtime/limit.hpp), so it ends once. The waiters lie in this
// frame; a G that was woken cannot leave it before all locks of pass 2 are released, as it takes
// them in pass 3.
//
// Rejected: a random order of all cases to begin with, as in the reference: a random number for
// each case, where most have nothing to offer.
#include "baton/select.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>

#include "chan/chan.hpp"
#include "runtime/entry.hpp"
#include "runtime/rand.hpp"

namespace baton::detail {

namespace {

using rt::Sudog;
using rt::WaitReason;
using Index = std::uint16_t;

constexpr std::size_t kInPlace = 16;
constexpr Selected kNone{-1, ChanEnd::kNotReady};

bool may_proceed(const SelectCase& one) {
    if (!one.chan) return false;
    return one.sends ? may_send(one.chan) : may_receive(one.chan);
}

Offer offer_of(const SelectCase& one) {
    return one.sends ? offer_to_send(one.chan) : offer_to_receive(one.chan);
}

Selected finish(const SelectCase* cases, std::size_t i, Offer offer) {
    const SelectCase& one = cases[i];
    const bool done = one.sends ? finish_send(one.chan, offer, one.elem)
                                : finish_receive(one.chan, offer, one.elem);
    return {static_cast<std::int32_t>(i), done ? ChanEnd::kDone : ChanEnd::kClosed};
}

/// Takes a random one of `n` candidates out.
Index draw(Index* candidates, std::size_t& n) {
    const std::size_t k = n == 1 ? 0 : rt::cheaprandn(static_cast<std::uint32_t>(n));
    const Index drawn = candidates[k];
    candidates[k] = candidates[--n];
    return drawn;
}

/// Pass 0.
Selected look(const SelectCase* cases, std::size_t n, Index* candidates) {
    std::size_t ncandidates = 0;
    for (std::size_t i = 0; i < n; i++)
        if (may_proceed(cases[i])) candidates[ncandidates++] = static_cast<Index>(i);
    while (ncandidates > 0) {
        const std::size_t i = draw(candidates, ncandidates);
        ChanCore* c = cases[i].chan;
        if (!cases[i].sends && drained(c)) return {static_cast<std::int32_t>(i), ChanEnd::kClosed};
        c->lock.lock();
        const Offer offer = offer_of(cases[i]);
        if (offer.kind != Offer::kNothing) return finish(cases, i, offer);
        c->lock.unlock();
    }
    return kNone;
}

/// The cases by the addresses of their channels, nil ones left out. Those of one channel are in
/// random order: the first of them is the one that is found in its queue.
class Order {
public:
    Order(const SelectCase* cases, std::size_t n, Index* space) : cases_(cases), order_(space) {
        for (std::size_t i = 0; i < n; i++) {
            if (!cases[i].chan) continue;
            const std::uint32_t k = rt::cheaprandn(static_cast<std::uint32_t>(n_ + 1));
            order_[n_++] = order_[k];
            order_[k] = static_cast<Index>(i);
        }
        std::sort(order_, order_ + n_,
                  [cases](Index a, Index b) { return cases[a].chan < cases[b].chan; });
    }

    std::size_t size() const { return n_; }
    Index operator[](std::size_t k) const { return order_[k]; }
    const SelectCase& at(std::size_t k) const { return cases_[order_[k]]; }

    void lock() const {
        for (std::size_t k = 0; k < n_; k++)
            if (k == 0 || at(k).chan != at(k - 1).chan) at(k).chan->lock.lock();
    }
    void unlock(const ChanCore* keep = nullptr) const {
        for (std::size_t k = 0; k < n_; k++)
            if (at(k).chan != keep && (k == 0 || at(k).chan != at(k - 1).chan))
                at(k).chan->lock.unlock();
    }
    /// Of a G that has parked: once the last is free it may run, and leave the frame of all this.
    void unlock_parked() const {
        for (std::size_t k = 0; k < n_;) {
            ChanCore* c = at(k).chan;
            do k++;
            while (k < n_ && at(k).chan == c);
            const bool last = k == n_;
            c->lock.unlock_last();
            if (last) return;
        }
    }

private:
    const SelectCase* cases_;
    Index* order_;
    std::size_t n_ = 0;
};

/// The locks are held: tries the cases in random order. Releases all if one can proceed.
Selected try_locked(const SelectCase* cases, const Order& order, Index* candidates) {
    std::size_t ncandidates = order.size();
    for (std::size_t k = 0; k < ncandidates; k++) candidates[k] = order[k];
    while (ncandidates > 0) {
        const std::size_t i = draw(candidates, ncandidates);
        const Offer offer = offer_of(cases[i]);
        if (offer.kind == Offer::kNothing) continue;
        order.unlock(cases[i].chan);
        return finish(cases, i, offer);
    }
    return kNone;
}

bool parked(rt::G*, void* order) {
    static_cast<const Order*>(order)->unlock_parked();
    return true;
}

bool parked_limited(rt::G* gp, void* order) {
    const bool stays = rt::wait_parked(gp);
    static_cast<const Order*>(order)->unlock_parked();
    return stays;
}

rt::WaitQ& queue_of(const SelectCase& one) { return one.sends ? one.chan->sendq : one.chan->recvq; }

/// Pass 1 alone.
Selected try_all(const SelectCase* cases, const Order& order, Index* candidates) {
    rt::Entry entry;
    order.lock();
    const Selected chosen = try_locked(cases, order, candidates);
    if (chosen.index < 0) order.unlock();
    return chosen;
}

/// Passes 1 to 3. `number` of a wait that has been opened; 0: nothing but a channel ends it.
Selected wait_for_one(const SelectCase* cases, const Order& order, Index* candidates,
                      Sudog* waiters, rt::G* gp, std::uint64_t number) {
    order.lock();
    const Selected chosen = try_locked(cases, order, candidates);
    if (chosen.index >= 0) return chosen;
    const bool limited = number != 0;
    if (!limited) number = rt::open_wait(gp, rt::kParked);
    for (std::size_t k = 0; k < order.size(); k++) {
        const SelectCase& one = order.at(k);
        auto* waiter =
            ::new (&waiters[k]) Sudog{.g = gp, .elem = one.elem, .chan = one.chan, .wait = number};
        queue_of(one).enqueue(waiter);
    }
    rt::gopark(limited ? parked_limited : parked, const_cast<Order*>(&order),
               order.size() == 0 ? WaitReason::kSelectNoCases : WaitReason::kSelect);
    order.lock();
    for (std::size_t k = 0; k < order.size(); k++) queue_of(order.at(k)).remove(&waiters[k]);
    order.unlock();
    if (const WaitEnd end = rt::wait_end(gp); end != WaitEnd::kDone) return {-1, given_up(end)};
    const auto* woken = static_cast<const Sudog*>(gp->param);
    return {order[static_cast<std::size_t>(woken - waiters)],
            woken->success ? ChanEnd::kDone : ChanEnd::kClosed};
}

/// Room for `n` of what a select works with: in its frame if they are few. Made outside an Entry.
template <class T>
class Room {
public:
    explicit Room(std::size_t n) : at_(few_) {
        if (n <= kInPlace) return;
        many_.reset(new Cell[n]);
        at_ = many_.get();
    }
    T* get() { return &at_->value; }

private:
    union Cell {
        Cell() noexcept {}
        T value;
    };
    Cell* at_;
    std::unique_ptr<Cell[]> many_;
    Cell few_[kInPlace];
};

enum class Patience : std::uint8_t { kNone, kLimited, kForEver };

/// None was ready at first sight.
[[gnu::noinline]] Selected select_slow(const SelectCase* cases, std::size_t n, Index* candidates,
                                       Patience patience, const Until* until) {
    Room<Index> places(n);
    const Order order(cases, n, places.get());
    const WaitEnd end = patience == Patience::kLimited ? rt::over(*until) : WaitEnd::kDone;
    if (patience == Patience::kNone || end != WaitEnd::kDone) {
        const Selected chosen = try_all(cases, order, candidates);
        return chosen.index >= 0 || end == WaitEnd::kDone ? chosen : Selected{-1, given_up(end)};
    }
    rt::G* gp = rt::must_park("select");
    Room<Sudog> waiters(n);
    if (patience == Patience::kForEver) {
        rt::Entry entry;
        return wait_for_one(cases, order, candidates, waiters.get(), gp, 0);
    }
    rt::Limit limit(*until);
    rt::Entry entry;
    limit.arm();
    const Selected chosen =
        wait_for_one(cases, order, candidates, waiters.get(), gp, limit.number());
    limit.disarm();
    return chosen;
}

inline Selected select_any(const SelectCase* cases, std::size_t n, Patience patience,
                           const Until* until) {
    if (n > std::numeric_limits<Index>::max())
        throw std::length_error("baton::select: more than 65,535 cases");
    Room<Index> candidates(n);
    {
        rt::Entry entry;
        const Selected chosen = look(cases, n, candidates.get());
        if (chosen.index >= 0) return chosen;
    }
    // With one channel that was a look at one moment.
    if (n <= 1 && patience == Patience::kNone) return kNone;
    return select_slow(cases, n, candidates.get(), patience, until);
}

} // namespace

Selected select_limited(const SelectCase* cases, std::size_t n, const Until* until) {
    return select_any(cases, n, until ? Patience::kLimited : Patience::kNone, until);
}

Selected select_for_ever(const SelectCase* cases, std::size_t n) {
    return select_any(cases, n, Patience::kForEver, nullptr);
}

} // namespace baton::detail
