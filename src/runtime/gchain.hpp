// SPDX-License-Identifier: Apache-2.0
//
// GChains: a list of Gs from which many are taken at once without a look at each. To follow a list
// of Gs that have not run for long is a cache miss for each, and the lists that Ps share were so
// followed under the lock that all of them want. Here the first of each chain says how many hang
// together and which is the last.
//
// Threads: who holds the lock of the list; a list that is being made is its maker's.
#pragma once

#include <cstdint>

#include "runtime/runtime.hpp"

namespace baton::rt {

class GChains {
public:
    /// As long as a chain grows. Takers of fewer get them singly.
    static constexpr std::uint32_t kLength = 32;

    bool empty() const { return first_ == nullptr; }
    std::uint32_t size() const { return n_; }

    void push_back(G* gp) {
        gp->schedlink = nullptr;
        n_++;
        if (last_ && last_->chain.n < kLength) {
            last_->chain.tail->schedlink = gp;
            last_->chain.tail = gp;
            last_->chain.n++;
            return;
        }
        gp->chain = {nullptr, gp, 1};
        (last_ ? last_->chain.next : first_) = gp;
        last_ = gp;
    }
    void push_front(G* gp) {
        n_++;
        if (first_ && first_->chain.n < kLength) {
            gp->schedlink = first_;
            gp->chain = first_->chain;
            gp->chain.n++;
        } else {
            gp->schedlink = nullptr;
            gp->chain = {first_, gp, 1};
        }
        if (!first_ || last_ == gp->schedlink) last_ = gp;
        first_ = gp;
    }
    /// All of `q` at the end, or at the front. Looks at no more than the ends.
    void append(GChains& q) {
        if (q.empty()) return;
        (last_ ? last_->chain.next : first_) = q.first_;
        last_ = q.last_;
        n_ += q.n_;
        q = {};
    }
    void prepend(GChains& q) {
        q.append(*this);
        *this = q;
        q = {};
    }
    G* pop() {
        G* gp = first_;
        if (!gp) return nullptr;
        G* next = gp->schedlink;
        if (next) {
            next->chain = gp->chain;
            next->chain.n--;
        } else {
            next = gp->chain.next;
        }
        if (last_ == gp) last_ = next;
        first_ = next;
        n_--;
        gp->schedlink = nullptr;
        return gp;
    }
    /// The first chain, or as much of it as `max`. With max 0, or none there, an empty one.
    GQueue pop_chain(std::uint32_t max) {
        GQueue q;
        if (first_ && first_->chain.n <= max) {
            const G::Chain chain = first_->chain;
            q = {first_, chain.tail, chain.n};
            first_ = chain.next;
            if (!first_) last_ = nullptr;
            n_ -= chain.n;
            return q;
        }
        for (; first_ && q.n < max;) q.push_back(pop());
        return q;
    }

private:
    G* first_ = nullptr; // of the first chain
    G* last_ = nullptr;  // the first of the last chain
    std::uint32_t n_ = 0;
};

} // namespace baton::rt
