// SPDX-License-Identifier: Apache-2.0
//
// Buckets of addresses. The queues of one bucket are in a treap: a binary tree by address, and a
// heap by a hash of the address, which keeps it balanced as random priorities would. Its nodes are
// the first waiters; the others of a queue hang in a ring from theirs.
//
// Rejected: a list of addresses per bucket: thousands of parked connections, each with a lock of
// its own, would make every wait a walk along them. Random priorities, as the reference has: they
// must be kept in the node and come from an M, which a plain thread has none of.
#include "runtime/sema.hpp"

#include <new>

#include "runtime/foreign.hpp"
#include "runtime/lock.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

using Count = std::atomic<std::uint32_t>;

std::uint64_t priority(const SemaWaiter* w) {
    // Fibonacci hashing, then the high bits, which depend on all of the address, to the low ones.
    const std::uint64_t mixed = reinterpret_cast<std::uintptr_t>(w->addr) * 0x9e3779b97f4a7c15;
    return (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15;
}

// Before the queue of waiter `w`?
bool before(const void* addr, WaitReason what, const SemaWaiter* w) {
    return addr != w->addr ? addr < w->addr : what < w->what;
}

} // namespace

struct alignas(64) SemaRoot {
    Lock lock{Rank::kSema};
    Count nwait{0}; // in semacquire, or about to be; read without the lock
    SemaWaiter* treap = nullptr;

    SemaWaiter* find(const void* addr, WaitReason what) const;
    void insert(SemaWaiter* w);
    void erase(SemaWaiter* w);
    /// `w` takes the place of `old`.
    void replace(SemaWaiter* old, SemaWaiter* w);

private:
    SemaWaiter*& link_to(const SemaWaiter* w) {
        if (!w->parent) return treap;
        return w->parent->left == w ? w->parent->left : w->parent->right;
    }
    void rotate_up(SemaWaiter* w);
};

namespace {

constexpr std::size_t kBuckets = 251; // prime: addresses come in strides of powers of two
constinit SemaRoot table[kBuckets];

SemaRoot& root_of(const void* addr) {
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

// ---- the treap ----

SemaWaiter* SemaRoot::find(const void* addr, WaitReason what) const {
    SemaWaiter* w = treap;
    while (w && (w->addr != addr || w->what != what))
        w = before(addr, what, w) ? w->left : w->right;
    return w;
}

void SemaRoot::insert(SemaWaiter* w) {
    w->parent = w->left = w->right = nullptr;
    SemaWaiter** at = &treap;
    while (*at) {
        w->parent = *at;
        at = before(w->addr, w->what, *at) ? &(*at)->left : &(*at)->right;
    }
    *at = w;
    while (w->parent && priority(w->parent) < priority(w)) rotate_up(w);
}

void SemaRoot::erase(SemaWaiter* w) {
    while (w->left || w->right) {
        const bool left = !w->right || (w->left && priority(w->left) > priority(w->right));
        rotate_up(left ? w->left : w->right);
    }
    link_to(w) = nullptr;
}

void SemaRoot::replace(SemaWaiter* old, SemaWaiter* w) {
    link_to(old) = w;
    w->parent = old->parent;
    w->left = old->left;
    w->right = old->right;
    if (w->left) w->left->parent = w;
    if (w->right) w->right->parent = w;
}

/// (p (w a b) c) becomes (w a (p b c)), or the mirror image.
void SemaRoot::rotate_up(SemaWaiter* w) {
    SemaWaiter* p = w->parent;
    link_to(p) = w;
    w->parent = p->parent;
    p->parent = w;
    SemaWaiter*& inner = p->left == w ? w->right : w->left;
    SemaWaiter*& outer = p->left == w ? p->left : p->right;
    outer = inner;
    if (inner) inner->parent = p;
    inner = p;
}

// ---- queues ----

SemaQueue::SemaQueue(const void* addr, WaitReason what)
    : root_(root_of(addr)), addr_(addr), what_(what) {
    lock();
}

void SemaQueue::lock() {
    root_.lock.lock();
    held_ = true;
    first_ = root_.find(addr_, what_);
}

void SemaQueue::unlock() {
    held_ = false;
    root_.lock.unlock();
}

void SemaQueue::push(SemaWaiter& w, bool lifo) {
    w.addr = addr_;
    w.what = what_;
    w.queued = true;
    w.next = nullptr;
    if (!first_) {
        w.prev = &w;
        root_.insert(&w);
        first_ = &w;
    } else if (lifo) {
        w.next = first_;
        w.prev = first_->prev;
        first_->prev = &w;
        root_.replace(first_, &w);
        first_ = &w;
    } else {
        w.prev = first_->prev;
        w.prev->next = &w;
        first_->prev = &w;
    }
}

void SemaQueue::remove(SemaWaiter& w) {
    w.queued = false;
    if (&w != first_) {
        w.prev->next = w.next;
        (w.next ? w.next : first_)->prev = w.prev;
        return;
    }
    first_ = w.next;
    if (first_) {
        first_->prev = w.prev;
        root_.replace(&w, first_);
    } else {
        root_.erase(&w);
    }
}

bool SemaQueue::take(SemaWaiter* w) {
    remove(*w);
    return w->wait == 0 || claim_wait(w->g, w->wait);
}

SemaWaiter* SemaQueue::pop() {
    while (SemaWaiter* w = first_) {
        if (take(w)) return w;
    }
    return nullptr;
}

void SemaQueue::park(SemaWaiter& w, WaitReason reason) {
    held_ = false;
    if (w.wait == 0) {
        goparkunlock(root_.lock, reason);
    } else {
        park_limited(root_.lock, reason);
    }
}

// ---- waits ----

SemaWait::SemaWait(const void* addr, WaitReason what, const Until* until)
    : end_(until ? over(*until) : detail::WaitEnd::kDone),
      limit_(until && end_ == detail::WaitEnd::kDone ? std::optional<Limit>(std::in_place, *until)
                                                     : std::nullopt),
      armed_(limit_ ? &*limit_ : nullptr), queue_(addr, what) {
    waiter_.g = waiting_g();
}

bool SemaWait::park(bool lifo) {
    if (end_ != detail::WaitEnd::kDone) return false;
    queue_.push(waiter_, lifo);
    if (park_queued(waiter_)) return true;
    if (waiter_.queued) queue_.remove(waiter_);
    return false;
}

bool SemaWait::park_queued(SemaWaiter& w) {
    if (end_ != detail::WaitEnd::kDone) return false;
    if (limit_) w.wait = limit_->number();
    queue_.park(w);
    if (!limit_) return true;
    end_ = wait_end(w.g);
    if (end_ == detail::WaitEnd::kDone) return true;
    queue_.lock();
    return false;
}

void limits_work(const Until* until) {
    if (until && until->when_ns() != Until::kNever && !getm_or_null()) ensure_started();
}

void hand_over(SemaWaiter* w) {
    ready(w);
    // It is next in line here: let it run now, in what is left of our time slice.
    M* m = getm_or_null();
    if (m && m->curg && current_p()) goyield();
}

void ready_all(GQueue& woken) {
    while (G* gp = woken.pop()) goready(gp);
}

// ---- counting semaphores ----

// An acquirer and a releaser must not miss each other:
//
//   (A) acquirer                       (B) releaser
//   -----------                        -----------
//   root.nwait += 1     (seq_cst)      *addr += 1        (seq_cst)
//   look at *addr       (seq_cst)      look at root.nwait (seq_cst)
//   none: sleep                        none: nobody to wake
//
// With less than seq_cst both could look before the other's addition is seen: the count is there,
// the acquirer sleeps, and nobody will wake it. Between the look and the sleep the queue is held,
// which keeps the releaser, who has seen nwait, out.
void semacquire(Count* addr, bool lifo, WaitReason reason) {
    if (take_count(addr)) return;
    Entry entry;
    SemaRoot& root = root_of(addr);
    for (;;) {
        SemaWaiter waiter{.g = waiting_g()};
        SemaQueue queue(addr, WaitReason::kSemacquire);
        // seq_cst: the addition of (A).
        root.nwait.fetch_add(1, std::memory_order_seq_cst);
        if (take_count(addr)) {
            // relaxed: a releaser that still sees us looks into the bucket in vain.
            root.nwait.fetch_sub(1, std::memory_order_relaxed);
            return;
        }
        queue.push(waiter, lifo);
        queue.park(waiter, reason);
        if (waiter.ticket != 0 || take_count(addr)) return;
    }
}

detail::WaitEnd semacquire(Count* addr, const Until* until, WaitReason reason) {
    if (!until) {
        semacquire(addr, false, reason);
        return detail::WaitEnd::kDone;
    }
    SemaRoot& root = root_of(addr);
    while (!take_count(addr)) {
        SemaWait turn(addr, WaitReason::kSemacquire, until);
        // seq_cst: the addition of (A).
        root.nwait.fetch_add(1, std::memory_order_seq_cst);
        const bool taken = take_count(addr);
        if (taken || !turn.park()) {
            // relaxed: a releaser that still sees us looks into the bucket in vain.
            root.nwait.fetch_sub(1, std::memory_order_relaxed);
            return taken ? detail::WaitEnd::kDone : turn.end();
        }
        if (turn.waiter().ticket != 0) break;
    }
    return detail::WaitEnd::kDone;
}

void semrelease(Count* addr, bool handoff) {
    SemaRoot& root = root_of(addr);
    // seq_cst: the addition and the look of (B). From here on *addr may be gone.
    addr->fetch_add(1, std::memory_order_seq_cst);
    if (root.nwait.load(std::memory_order_seq_cst) == 0) return;
    Entry entry;
    SemaQueue queue(addr, WaitReason::kSemacquire);
    SemaWaiter* waiter = queue.pop();
    if (!waiter) return;
    // relaxed: a releaser that still sees it looks into the bucket in vain.
    root.nwait.fetch_sub(1, std::memory_order_relaxed);
    queue.unlock();
    waiter->ticket = handoff && take_count(addr);
    if (waiter->ticket != 0) {
        hand_over(waiter);
    } else {
        ready(waiter);
    }
}

void sema_forget() {
    for (SemaRoot& root : table) new (&root) SemaRoot;
}

// ---- spinning ----

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
