// SPDX-License-Identifier: Apache-2.0
//
// Any baton call may be made on any thread of the program. What does not park needs no M and no P:
// Entry does nothing there, goready goes by the global queue. What parks needs something that can
// stand in a wait queue: a G. So a plain thread has one of its own, made when it first waits. To
// park it is to sleep on its futex, to ready it is to wake that.
//
//     foreign_park                              foreign_ready
//     ------------                              -------------
//     wake = kAwake
//     unlockf: others can find the G            plain_wakes++
//     plain_parks++                             was it kAsleep?  wake = kWoken
//     looks at wake for a while                 if it was: futex wake
//     wake: kAwake -> kAsleep                   nothing but the futex is touched after this
//     while kAsleep: futex wait
//
// It looks for a while as two that talk to each other would sleep at each word otherwise. The M
// that has readied it stays awake for the answer likewise (linger, findrunnable.cpp).
//
// Nobody but who took the G off its queue readies it, and once, as with any G. The wake may come
// before the sleep; then there is none. A futex wake that comes late, when the thread has gone on,
// parked anew or ended and left its G to another, finds a word to look at again: G's are kept (I2).
//
// Rejected: the reference's way (needm, dropm): the thread takes an M from a list, waits for a P
// like a goroutine back from a system call, runs as a locked goroutine and gives both back at the
// end. It must, for its code runs on a goroutine's stack and allocates from its P. Here nothing but
// scheduling needs a P, and a plain thread is scheduled by the kernel: waiting for a P would make
// it queue behind goroutines for the right to send a value, keep them from running meanwhile, and
// cost two passes through the scheduler where a thread-local read will do. There is no P to give up
// at once, because there never is one.
#include "runtime/foreign.hpp"

#include <immintrin.h>
#include <pthread.h>
#include <unistd.h>

#include <new>

#include "kernel/clock.hpp"
#include "kernel/futex.hpp"
#include "kernel/syscall.hpp"
#include "runtime/lock.hpp"
#include "runtime/patience.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

enum Wake : std::uint32_t { kAwake, kAsleep, kWoken };

struct Foreign {
    G g;
    Patience patience;
    int tid = 0;             // 0: on the free list
    Foreign* next = nullptr; // all there ever were
};

struct Pool {
    Lock lock{Rank::kLeaf};
    GList free;
    Foreign* all = nullptr;
};
constinit Pool pool;

constinit thread_local G* own_g = nullptr;

Foreign* of(G* gp) { return reinterpret_cast<Foreign*>(gp); }

void release(void* g) {
    auto* gp = static_cast<G*>(g);
    if (gp->locals) gp->locals->end(gp);
    own_g = nullptr; // a later destructor of this thread's that waits takes another
    LockGuard guard(pool.lock);
    of(gp)->tid = 0;
    pool.free.push(gp);
}

G* from_pool() {
    LockGuard guard(pool.lock);
    return pool.free.pop();
}

G* make() {
    auto* f = new (std::nothrow) Foreign;
    if (!f) fatal("no memory for a thread that waits");
    f->g.foreign = true;
    LockGuard guard(pool.lock);
    f->next = pool.all;
    pool.all = f;
    return &f->g;
}

[[gnu::noinline, gnu::cold]] G* acquire() {
    // A key, not a thread_local's destructor: it runs after those, which may wait in baton too.
    static const pthread_key_t key = [] {
        pthread_key_t k;
        if (pthread_key_create(&k, release) != 0)
            fatal("no pthread key left for the threads that wait");
        return k;
    }();
    G* gp = from_pool();
    if (!gp) gp = make();
    {
        LockGuard guard(pool.lock);
        of(gp)->tid = static_cast<int>(kernel::raw_syscall(SYS_gettid));
    }
    gp->forks = forks;
    pthread_setspecific(key, gp); // without memory for it the G is lost when the thread ends
    own_g = gp;
    return gp;
}

std::atomic<std::int32_t> nlooking{0}; // threads in look_for_wake

bool look_for_wake(const G* gp) {
    const std::int64_t until = kernel::nanotime() + Patience::kNs;
    do {
        for (int i = 0; i < 16; i++) {
            // acquire: as in await.
            if (gp->wake.load(std::memory_order_acquire) == kWoken) return true;
            _mm_pause();
        }
    } while (kernel::nanotime() < until);
    return false;
}

void await(G* gp) {
    Patience& patience = of(gp)->patience;
    // relaxed, all: a bound, not a promise.
    if (started() && nlooking.load(kRelaxed) < spare_cpus() && patience.worth_it()) {
        nlooking.fetch_add(1, kRelaxed);
        const bool woken = look_for_wake(gp);
        nlooking.fetch_sub(1, kRelaxed);
        patience.note(woken);
        if (woken) return;
    }
    std::uint32_t awake = kAwake;
    // acquire, both: pair with foreign_ready; what the waker wrote is seen. relaxed: tells nothing.
    if (!gp->wake.compare_exchange_strong(awake, kAsleep, kRelaxed, std::memory_order_acquire))
        return;
    while (gp->wake.load(std::memory_order_acquire) == kAsleep)
        (void)kernel::futex_wait(&gp->wake, kAsleep);
}

} // namespace

G* foreign_g() noexcept {
    G* gp = own_g;
    return gp ? gp : acquire();
}

void foreign_park(UnlockFn unlockf, void* lock, WaitReason reason) {
    G* gp = foreign_g();
    gp->waitreason = reason;
    tick_coarse_clock(kernel::nanotime()); // which stands still while no goroutine runs
    note_wait(gp);
    gp->status.store(GStatus::kWaiting, kRelaxed); // relaxed: see G::status
    gp->wake.store(kAwake, kRelaxed);              // relaxed: published by what unlockf does
    if (!unlockf || unlockf(gp, lock)) {
        sched.plain_parks.fetch_add(1, kSeqCst);
        await(gp);
    }
    gp->status.store(GStatus::kRunning, kRelaxed); // relaxed: see G::status
}

void foreign_ready(G* gp) {
    sched.plain_wakes.fetch_add(1, kSeqCst);
    // release: pairs with await.
    if (gp->wake.exchange(kWoken, std::memory_order_release) == kAsleep) {
        kernel::futex_wake(&gp->wake, 1);
    } else if (M* m = getm_or_null()) {
        m->answered = true;
    }
}

void foreign_forget() {
    nlooking.store(0, kRelaxed); // relaxed: there is but one thread
    new (&pool) Pool;
    own_g = nullptr;
}

BATON_NO_TSAN void each_foreign(void (*visit)(int tid, WaitReason reason, void* arg), void* arg) {
    LockGuard guard(pool.lock);
    for (Foreign* f = pool.all; f; f = f->next) {
        // relaxed: see G::status
        const bool waits = f->g.status.load(std::memory_order_relaxed) == GStatus::kWaiting;
        if (f->tid != 0 && waits) visit(f->tid, f->g.waitreason, arg);
    }
}

} // namespace baton::rt
