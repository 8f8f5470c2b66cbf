// SPDX-License-Identifier: Apache-2.0
#include "assist/ownership.hpp"

namespace baton::assist {

namespace {

bool cas(p_rec& p, std::uint64_t expect, std::uint64_t desired) {
    // acq_rel: (A), acquires what the last owner wrote and releases the taker's id with it.
    // relaxed on failure: nothing is read through a P that was not got.
    return ref(p).compare_exchange_strong(expect, desired, std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
}

// From another CPU than the word's: name ourselves, stop the sequences there, finish.
bool take_remote(p_rec& p, Word seen, std::uint16_t owner, const Actor& me) {
    Word claimed = seen;
    claimed.taker = me.slot;
    if (!cas(p, seen.pack(), claimed.pack())) return false;
    // No sequence begun on that CPU before this can still commit; those begun after it see the
    // taker.
    kernel::membarrier_rseq_cpu(seen.cpu);
    return cas(p, claimed.pack(), run_word(owner));
}

} // namespace

bool take_here(p_rec& p, Word seen, std::uint16_t owner, const Actor& me) {
    static_assert(legal(shared::P_SYSCALL, shared::P_RUN));
    static_assert(legal(shared::P_BLOCKED, shared::P_RUN));
    static_assert(legal(shared::P_OFFCPU, shared::P_RUN));
    if (!seen.in_kernel() || seen.taker != 0) return false;
    if (!use_rseq || seen.marked()) return cas(p, seen.pack(), run_word(owner));
    return arch::rseq_cmp_store(me.rseq, seen.cpu, &p.word, seen.pack(), run_word(owner)) ==
           arch::RseqResult::kCommitted;
}

bool take(p_rec& p, Word seen, std::uint16_t owner, const Actor& me) {
    if (seen.state == shared::P_RUN)
        return seen.taker == me.slot && cas(p, seen.pack(), run_word(owner));
    if (!seen.in_kernel() || seen.taker != 0) return false;
    const bool by_cas = !use_rseq || seen.marked();
    if (by_cas || (!probed && me.cpu() == seen.cpu)) return take_here(p, seen, owner, me);
    return take_remote(p, seen, owner, me);
}

bool claim(p_rec& p, Word& seen, const Actor& me) {
    Word claimed = seen;
    claimed.taker = me.slot;
    if (!cas(p, seen.pack(), claimed.pack())) return false;
    seen = claimed;
    return true;
}

void unclaim(p_rec& p, Word claimed) { (void)cas(p, claimed.pack(), run_word(claimed.owner)); }

bool reclaim(p_rec& p, const Actor& me, bool& was_marked) {
    // Each turn ends it or means that this thread was preempted, moved, or marked by the probe in
    // between; the word leaves our hands at most once.
    for (;;) {
        const Word w = load(p);
        if (w.owner != me.slot) return false;
        was_marked = w.marked();
        if (w.state == shared::P_RUN) { // claimed, perhaps no longer
            if (w.taker == 0 || cas(p, w.pack(), run_word(me.slot))) return true;
            continue;
        }
        if (w.taker != 0 || !w.in_kernel()) return false;
        if (take(p, w, me.slot, me)) return true;
    }
}

} // namespace baton::assist
