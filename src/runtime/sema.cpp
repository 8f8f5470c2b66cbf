// SPDX-License-Identifier: Apache-2.0
//
// The table of sleepers. Each bucket has a list of the addresses waited for, each address a queue
// of its waiters; both run through the waiters, which lie on the stacks of their parked Gs.
//
// Rejected: a treap of addresses per bucket, as the reference has. Addresses with waiters are few,
// even with thousands of locks; waiters of one address, which may be many, cost O(1) here too.
#include "runtime/sema.hpp"

#include <new>

#include "runtime/entry.hpp"
#include "runtime/foreign.hpp"
#include "runtime/lock.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

using Count = std::atomic<std::uint32_t>;

struct SemaWaiter {
    G* g;
    const Count* addr;
    SemaWaiter* next = nullptr;      // the next that waits for this address
    SemaWaiter* last = nullptr;      // the last of them; in the first only
    SemaWaiter* next_addr = nullptr; // the first for another address; in the first only
    bool ticket = false;             // it has been given the count
};

struct alignas(64) SemaRoot {
    Lock lock{Rank::kSema};
    Count nwait{0};              // waiters, or who is about to be one; read without the lock
    SemaWaiter* first = nullptr; // of the first address

    SemaWaiter** find(const Count* addr) {
        SemaWaiter** at = &first;
        while (*at && (*at)->addr != addr) at = &(*at)->next_addr;
        return at;
    }
    void queue(SemaWaiter* w, bool lifo) {
        SemaWaiter** at = find(w->addr);
        SemaWaiter* head = *at;
        if (!head) {
            w->last = w;
            *at = w;
        } else if (lifo) {
            w->next = head;
            w->last = head->last;
            w->next_addr = head->next_addr;
            *at = w;
        } else {
            head->last->next = w;
            head->last = w;
        }
    }
    SemaWaiter* dequeue(const Count* addr) {
        SemaWaiter** at = find(addr);
        SemaWaiter* head = *at;
        if (!head) return nullptr;
        SemaWaiter* second = head->next;
        if (second) {
            second->last = head->last;
            second->next_addr = head->next_addr;
            *at = second;
        } else {
            *at = head->next_addr;
        }
        return head;
    }
};

constexpr std::size_t kBuckets = 251; // prime: addresses come in strides of powers of two
constinit SemaRoot table[kBuckets];

SemaRoot& root_of(const Count* addr) {
    return table[(reinterpret_cast<std::uintptr_t>(addr) >> 3) % kBuckets];
}

bool take_count(Count* addr) {
    // seq_cst: the look of (A).
    std::uint32_t count = addr->load(std::memory_order_seq_cst);
    while (count != 0) {
        // acquire: pairs with the raise in semrelease; what came before it is seen. relaxed on
        // failure: we try again with what is there.
        if (addr->compare_exchange_weak(count, count - 1, std::memory_order_acquire,
                                        std::memory_order_relaxed))
            return true;
    }
    return false;
}

} // namespace

// An acquirer and a releaser must not miss each other:
//
//   (A) acquirer                       (B) releaser
//   -----------                        -----------
//   root.nwait += 1     (seq_cst)      *addr += 1        (seq_cst)
//   look at *addr       (seq_cst)      look at root.nwait (seq_cst)
//   none: sleep                        none: nobody to wake
//
// With less than seq_cst both could look before the other's addition is seen: the count is there,
// the acquirer sleeps, and nobody will wake it. Between the look and the sleep root.lock keeps the
// releaser, who has seen nwait, out.
void semacquire(Count* addr, bool lifo, WaitReason reason) {
    if (take_count(addr)) return;
    Entry entry;
    SemaRoot& root = root_of(addr);
    for (;;) {
        SemaWaiter waiter{.g = waiting_g(), .addr = addr};
        root.lock.lock();
        // seq_cst: the addition of (A).
        root.nwait.fetch_add(1, std::memory_order_seq_cst);
        if (take_count(addr)) {
            // relaxed: a releaser that still sees us looks into the bucket in vain.
            root.nwait.fetch_sub(1, std::memory_order_relaxed);
            root.lock.unlock();
            return;
        }
        root.queue(&waiter, lifo);
        goparkunlock(root.lock, reason);
        if (waiter.ticket || take_count(addr)) return;
    }
}

void semrelease(Count* addr, bool handoff) {
    SemaRoot& root = root_of(addr);
    // seq_cst: the addition and the look of (B). From here on *addr may be gone.
    addr->fetch_add(1, std::memory_order_seq_cst);
    if (root.nwait.load(std::memory_order_seq_cst) == 0) return;
    Entry entry;
    root.lock.lock();
    SemaWaiter* waiter = root.dequeue(addr);
    if (waiter) {
        // relaxed: a releaser that still sees it looks into the bucket in vain.
        root.nwait.fetch_sub(1, std::memory_order_relaxed);
    }
    root.lock.unlock();
    if (!waiter) return;
    const bool ticket = handoff && take_count(addr);
    waiter->ticket = ticket;
    goready(waiter->g);
    if (!ticket) return;
    // It is next in line here: let it run now, in what is left of our time slice.
    M* m = getm_or_null();
    if (m && m->curg && current_p()) goyield();
}

void sema_forget() {
    for (SemaRoot& root : table) new (&root) SemaRoot;
}

bool can_spin(int i) noexcept {
    constexpr int kTries = 4;
    M* m = getm_or_null();
    // A plain thread may be here before the runtime has counted the CPUs.
    if (i >= kTries || (!m && !started()) || sched.ncpu < 2) return false;
    if (!m) return true; // it keeps nobody from running but by the kernel's leave
    // relaxed: hints, all three.
    const std::uint32_t procs = sched.gomaxprocs.load(std::memory_order_relaxed);
    const std::uint32_t idle = npidle().load(std::memory_order_relaxed);
    const std::uint32_t spinning = nmspinning().load(std::memory_order_relaxed);
    return procs > idle + spinning + 1 && current_p() && runqempty(current_p());
}

void spin() noexcept {
    constexpr int kPauses = 30;
    for (int i = 0; i < kPauses; i++) __builtin_ia32_pause();
}

} // namespace baton::rt
