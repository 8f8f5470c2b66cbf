// SPDX-License-Identifier: Apache-2.0
//
// The run queues: a ring of 256 per P with one producer (the owner) and many consumers, a runnext
// slot before it, and the global queue behind. As the reference's runqput, runqget, runqgrab.
//
// Ordering: (A) the owner publishes slots by a release store of runqtail; a consumer loads it with
//   acquire, so it sees the slots. (B) A consumer takes slots by a CAS of runqhead with release;
//   the producer loads runqhead with acquire before it writes a slot again, so a slot is not
//   overwritten before its consumer has read it. With one P there are no thieves, and the owner's
//   CAS is a store.
#include <algorithm>

#include "assist/ownership.hpp"
#include "kernel/clock.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;

// Half the ring and gp go to the global queue. False if a thief made room meanwhile.
bool runqputslow(P* p, G* gp, std::uint32_t head, std::uint32_t tail) {
    const std::uint32_t n = (tail - head) / 2;
    GChains batch;
    G* taken[kRunqSize / 2];
    // relaxed: the owner wrote these slots itself.
    for (std::uint32_t i = 0; i < n; i++) taken[i] = p->runq[(head + i) % kRunqSize].load(kRelaxed);
    // release: (B). relaxed on failure: we look again from the start.
    if (!p->runqhead.compare_exchange_strong(head, head + n, kRelease, kRelaxed)) return false;
    for (std::uint32_t i = 0; i < n; i++) batch.push_back(taken[i]);
    batch.push_back(gp);
    LockGuard guard(sched.lock);
    globrunqput_all(batch);
    return true;
}

// Claims n slots from head on for the owner.
bool claim(P* p, std::uint32_t head, std::uint32_t n) {
    if (only_p()) {
        p->runqhead.store(head + n, kRelaxed); // relaxed: nobody else takes from this ring
        return true;
    }
    // release: (B). relaxed on failure: the caller looks again.
    return p->runqhead.compare_exchange_strong(head, head + n, kRelease, kRelaxed);
}

// The stacks of the next group of those on p's ring that have not run for long. A thief may have
// one by now, which then runs, or begins: its context changes as we look. Gs are never unmapped.
BATON_NO_TSAN void ask_for_stacks(P* p, std::uint32_t head) {
    // relaxed: only the owner writes it.
    p->cold = std::min(p->cold, p->runqtail.load(kRelaxed) - head);
    p->asked = std::min(p->cold, kAskAtOnce);
    p->cold -= p->asked;
    for (std::uint32_t i = 0; i < p->asked; i++) {
        // relaxed: the owner wrote it.
        const G* gp = p->runq[(head + i) % kRunqSize].load(kRelaxed);
        if (const void* sp = gp->sched.sp) prefetch_stack(sp, kColdLines);
    }
}

} // namespace

void runq_is_cold(P* p, std::uint32_t asked) {
    const std::uint32_t head = p->runqhead.load(kRelaxed);     // relaxed: thieves make it a guess
    const std::uint32_t n = p->runqtail.load(kRelaxed) - head; // relaxed: only the owner writes it
    p->asked = std::min(asked, n);
    p->cold = n - p->asked;
    if (p->asked == 0) ask_for_stacks(p, head);
}

void runqput(P* p, G* gp, bool next) {
    if (next) {
        // relaxed: only the owner makes runnext non-null. seq_cst: hands gp to a thief, takes over
        // what the old one's waker wrote, and is goready's barrier (pair.cpp).
        G* old = p->runnext.load(kRelaxed);
        if (only_p()) {
            p->runnext.store(gp, kRelaxed); // relaxed: nobody else looks
        } else {
            old = p->runnext.exchange(gp, kSeqCst);
        }
        if (!old) return;
        gp = old;
    }
    for (;;) {
        const std::uint32_t head = p->runqhead.load(kAcquire); // acquire: (B)
        const std::uint32_t tail = p->runqtail.load(kRelaxed); // relaxed: only the owner writes it
        if (tail - head < kRunqSize) {
            p->runq[tail % kRunqSize].store(gp, kRelaxed); // relaxed: published by the next line
            p->runqtail.store(tail + 1, kRelease);         // release: (A)
            return;
        }
        if (runqputslow(p, gp, head, tail)) return;
    }
}

void runqput_all(P* p, GQueue& q) {
    while (G* gp = q.pop()) runqput(p, gp, false);
}

G* runqget(P* p, bool& inherit) {
    // relaxed: only the owner makes it non-null, so null is no news.
    if (G* next = p->runnext.load(kRelaxed)) {
        inherit = true;
        if (only_p()) {
            p->runnext.store(nullptr, kRelaxed); // relaxed: nobody else looks
            return next;
        }
        // A thief may have been first; then it is gone, and we go on with the ring.
        // acq_rel: against the thief's CAS. relaxed on failure: nothing was had.
        if (p->runnext.compare_exchange_strong(next, nullptr, std::memory_order_acq_rel, kRelaxed))
            return next;
    }
    inherit = false;
    for (;;) {
        const std::uint32_t head = p->runqhead.load(kAcquire); // acquire: (B), against thieves
        // relaxed: only the owner writes it
        if (p->runqtail.load(kRelaxed) == head) return nullptr;
        G* gp = p->runq[head % kRunqSize].load(kRelaxed); // relaxed: the owner wrote it
        if (!claim(p, head, 1)) continue;
        // The group is used up.
        if (p->asked != 0 && --p->asked == 0) [[unlikely]]
            ask_for_stacks(p, head + 1);
        return gp;
    }
}

bool runqempty(const P* p) {
    // Must not say "empty" while a G moves from runnext to the ring, or through the owner's hands:
    // so runnext, and whether it does, are read between two reads of the tail that agree (the
    // reference's runqempty; it has none in hand).
    for (;;) {
        // seq_cst: also the second half of "publish work, then look" in findrunnable.
        const std::uint32_t head = p->runqhead.load(kSeqCst);
        const std::uint32_t tail = p->runqtail.load(kSeqCst);
        G* next = p->runnext.load(kSeqCst);
        const bool moving = p->moving.load(kSeqCst);
        if (tail == p->runqtail.load(kSeqCst)) return head == tail && !next && !moving;
    }
}

G* runqsteal(P* p, P* victim, bool runnext_too) {
    const std::uint32_t t = p->runqtail.load(kRelaxed); // relaxed: our own
    for (;;) {
        const std::uint32_t head = victim->runqhead.load(kAcquire); // acquire: (B)
        const std::uint32_t tail = victim->runqtail.load(kAcquire); // acquire: (A)
        std::uint32_t n = tail - head;
        n -= n / 2;
        if (n == 0) {
            if (!runnext_too) return nullptr;
            G* next = victim->runnext.load(kRelaxed); // relaxed: the CAS below decides
            if (next && assist::load(*victim->rec).state == shared::P_RUN &&
                runs_next_itself(victim))
                return nullptr;
            // acq_rel: (A) and (B) at once. relaxed on failure: nothing was had.
            if (next && victim->runnext.compare_exchange_strong(
                            next, nullptr, std::memory_order_acq_rel, kRelaxed))
                return next;
            return nullptr;
        }
        if (n > kRunqSize / 2) continue; // head and tail were read at different times
        for (std::uint32_t i = 0; i < n; i++) {
            // relaxed: ordered by the acquire of tail before and the CAS after; a slot overwritten
            // in between makes the CAS fail.
            G* gp = victim->runq[(head + i) % kRunqSize].load(kRelaxed);
            p->runq[(t + i) % kRunqSize].store(gp, kRelaxed);
        }
        std::uint32_t expect = head;
        // acq_rel: (B). relaxed on failure: we start again.
        if (!victim->runqhead.compare_exchange_strong(expect, head + n, std::memory_order_acq_rel,
                                                      kRelaxed))
            continue;
        G* gp = p->runq[(t + n - 1) % kRunqSize].load(kRelaxed); // relaxed: we just wrote it
        if (n > 1) p->runqtail.store(t + n - 1, kRelease);       // release: (A)
        runq_is_cold(p, 0);
        return gp;
    }
}

namespace {

void publish_runqsize() { runqsize().store(sched.runq.size() + sched.hogq.n, kSeqCst); }

} // namespace

void globrunqput(G* gp) {
    sched.runq.push_back(gp);
    publish_runqsize();
}

void globrunqput_all(GChains& q) {
    sched.runq.append(q);
    publish_runqsize();
}

void globrunqput_hog(G* gp) {
    gp->hog_ns = kernel::nanotime();
    sched.hogq.push_back(gp);
    publish_runqsize();
}

G* globrunqget_other() {
    G* gp = sched.runq.pop();
    if (gp) publish_runqsize();
    return gp;
}

G* globrunqget_preempted() {
    G* before = nullptr;
    for (G* gp = sched.hogq.head; gp; before = gp, gp = gp->schedlink) {
        if (!gp->lockedm) continue;
        sched.hogq.drop_after(before);
        publish_runqsize();
        return gp;
    }
    return nullptr;
}

GQueue globrunqget(P* p, std::uint32_t max) {
    GQueue q;
    const G* hog = sched.hogq.head;
    const bool others = max == 1 || !sched.runq.empty(); // with max 1 the caller has some itself
    // In turns: each hog may run for as long as makes the next one old enough.
    const bool turn = !sched.hog_ran && hog && kernel::nanotime() - hog->hog_ns >= kForcePreemptNs;
    sched.hog_ran = hog && (turn || !others);
    if (sched.hog_ran) {
        q.push_back(sched.hogq.pop());
        publish_runqsize();
        return q;
    }
    if (sched.runq.empty()) return q;
    // relaxed: changes only while the world is stopped.
    const std::uint32_t procs = sched.gomaxprocs.load(kRelaxed);
    std::uint32_t n = std::min(sched.runq.size() / procs + 1, kRunqSize / 2);
    if (max) n = std::min(n, max);
    runq_moves(p);
    while (q.n < n && !sched.runq.empty()) {
        GQueue more = sched.runq.pop_chain(n - q.n);
        q.push_back_all(more);
    }
    publish_runqsize();
    return q;
}

G* first_of(P* p, GQueue q) {
    G* first = q.pop();
    while (G* gp = q.pop()) runqput(p, gp, false);
    runq_moved(p);
    return first;
}

} // namespace baton::rt
