// SPDX-License-Identifier: Apache-2.0
//
// Stopping the world, and changing the number of Ps while it stands.
//
// gcwaiting and a request on each P (kAttnStop) are set; each running M gives its P up (gcstopm) at
// its next pass through the scheduler; idle Ps and those in the kernel are taken here. stopwait
// counts those still out.
#include <stdexcept>
#include <system_error>
#include <vector>

#include "assist/asleep.hpp"
#include "baton/run.hpp"
#include "kernel/clock.hpp"
#include "kernel/cpus.hpp"
#include "kernel/futex.hpp"
#include "runtime/entry.hpp"
#include "runtime/persistentalloc.hpp"
#include "runtime/preempt.hpp"
#include "runtime/ring.hpp"
#include "runtime/sched.hpp"
#include "runtime/sema.hpp"
#include "runtime/start.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::int64_t kLookAgainNs = 100'000; // Ps enter the kernel while we wait
constexpr int kLooksPerSignal = 10;

// sched.lock held. Takes what is idle or in the kernel.
void seize(M* m) {
    const std::uint32_t n = sched.gomaxprocs.load(kRelaxed); // relaxed: only we change it
    while (P* p = pidleget()) {
        assist::give_up(*p->rec, shared::P_GCSTOP);
        sched.stopwait--;
    }
    const assist::Actor me = actor(m);
    for (std::uint32_t i = 0; i < n; i++) {
        P* p = sched.allp[i];
        assist::Word w = assist::load(*p->rec);
        if (w.state == shared::P_RUN) {
            p->attention.fetch_or(kAttnStop, kSeqCst);
            if (!assist::claim_asleep(sched.records, *p->rec, w, me)) continue;
        }
        if (!assist::take(*p->rec, w, me.slot, me)) continue;
        if (w.marked()) nblocked().fetch_sub(1, kSeqCst);
        blocked_ns(p).store(0, kRelaxed); // relaxed: a stamp for people
        assist::give_up(*p->rec, shared::P_GCSTOP);
        sched.stopwait--;
    }
}

P* make_p(std::uint32_t slot) {
    P* p = persistent_new<P>();
    if (!p) fatal("no memory for a processor");
    p->slot = slot;
    p->rec = &sched.records.p[slot];
    assist::give_up(*p->rec, shared::P_GCSTOP);
    return p;
}

// A P that goes: its Gs to the global queue, its timers to `heir`, its requests to the kernel; who
// polls finds its ring.
void destroy_p(P* p, P* heir) {
    ring_submit(p);
    GChains q;
    bool inherit;
    while (G* gp = runqget(p, inherit)) q.push_back(gp);
    {
        LockGuard guard(sched.lock); // plain threads queue Gs even now
        globrunqput_all(q);
    }
    heir->timers.take(p->timers);
    // relaxed: see P::ngo
    sched.ngo_elsewhere.fetch_add(p->ngo.exchange(0, kRelaxed), kRelaxed);
    gfpurge(p);
    assist::give_up(*p->rec, shared::P_DEAD);
}

} // namespace

void stop_the_world() {
    semacquire(&sched.worldsema, false, WaitReason::kStoppingTheWorld);
    M* m = getm();
    sched.lock.lock();
    sched.stopwait = sched.gomaxprocs.load(kRelaxed) - 1; // relaxed: only we change it; ours stands
    sched.gcwaiting.store(true, kSeqCst);
    for (int looks = 0;;) {
        const std::uint32_t seq = sched.stopnote.load(kSeqCst);
        seize(m);
        m->p->attention.fetch_and(~kAttnStop, kSeqCst);
        if (sched.stopwait == 0) break;
        sched.lock.unlock();
        // Most come by themselves within the first wait; a signal now and then for the others, who
        // were asleep at none of the looks.
        if (looks % kLooksPerSignal == 1) preemptall(m->p, looks > 1);
        looks++;
        (void)kernel::futex_wait(&sched.stopnote, seq, kernel::nanotime() + kLookAgainNs);
        sched.lock.lock();
    }
    sched.lock.unlock();
}

void gcstopm(M* m) {
    {
        LockGuard guard(sched.lock);
        P* p = m->p;
        p->attention.fetch_and(~kAttnStop, kSeqCst);
        if (!sched.gcwaiting.load(kRelaxed)) return; // relaxed: changes under this lock
        if (m->spinning) {
            m->spinning = false;
            nmspinning().fetch_sub(1, kSeqCst);
        }
        releasep(m);
        assist::give_up(*p->rec, shared::P_GCSTOP);
        if (--sched.stopwait == 0) {
            sched.stopnote.fetch_add(1, kSeqCst);
            kernel::futex_wake(&sched.stopnote, 1);
        }
    }
    stopm(m);
}

void procresize(std::uint32_t n) {
    const std::uint32_t old = sched.gomaxprocs.load(kRelaxed); // relaxed: the world stands
    for (std::uint32_t i = old; i < n; i++) {
        if (!sched.allp[i]) sched.allp[i] = make_p(i + 1);
        assist::give_up(*sched.allp[i]->rec, shared::P_GCSTOP);
    }
    for (std::uint32_t i = n; i < old; i++) destroy_p(sched.allp[i], sched.allp[0]);
    sched.gomaxprocs.store(n, kSeqCst); // seq_cst: before Ms look at the new ones
}

void start_the_world() {
    M* m = getm();
    P* own = m->p;
    P* runnable = nullptr; // Ps with work of their own, through link
    {
        LockGuard guard(sched.lock);
        const std::uint32_t n = sched.gomaxprocs.load(kRelaxed); // relaxed: only we change it
        if (own->slot > n) { // ours is gone: go on with the first
            releasep(m);
            own = sched.allp[0];
            assist::hand_over(*own->rec, static_cast<std::uint16_t>(m->slot));
            acquirep(m, own);
        }
        sched.gcwaiting.store(false, kSeqCst);
        for (std::uint32_t i = n; i-- > 0;) {
            P* p = sched.allp[i];
            if (p == own) continue;
            if (!has_own_work(p)) {
                pidleput(p);
            } else {
                p->link = runnable;
                runnable = p;
            }
        }
    }
    while (P* p = runnable) {
        runnable = p->link;
        p->link = nullptr;
        startm(p, false);
    }
    wakep();
    semrelease(&sched.worldsema);
}

// By a goroutine, as only who has a P may stop the world. With no stack to be had, at the next
// look.
void follow_procs(std::uint32_t n) {
    if (n == sched.gomaxprocs.load(kRelaxed) || // relaxed: a look at what only changes by us
        sched.following.exchange(true, kSeqCst))
        return;
    try {
        go([n] {
            Entry entry;
            stop_the_world();
            // relaxed: who fixes the number stops the world next, if we were first.
            if (!sched.procs_fixed.load(kRelaxed)) procresize(n);
            start_the_world();
            sched.following.store(false, kSeqCst);
        });
    } catch (const std::system_error&) {
        sched.following.store(false, kSeqCst);
    }
}

void follow_cpus(const std::vector<int>& cpus) {
    // The former sets stay: an M may just be reading one. Changes are few.
    static auto& sets = *new std::vector<const std::vector<int>*>;
    if (sets.empty()) sets.push_back(sched.cpus.load(kRelaxed)); // relaxed: only we change it
    sets.push_back(new std::vector<int>(cpus));
    sched.cpus.store(sets.back(), kSeqCst); // seq_cst: before rebind looks at the Ms, see unsteer
    rebind(sets.back());
    assist::understudies.follow(cpus);
}

} // namespace baton::rt

namespace baton {

int max_procs() noexcept {
    // relaxed: a number for people.
    const std::uint32_t n = rt::sched.gomaxprocs.load(std::memory_order_relaxed);
    return n != 0 ? static_cast<int>(n) : rt::initial_procs();
}

int set_max_procs(int n) {
    if (n < 1 || n > static_cast<int>(rt::kMaxP))
        throw std::invalid_argument("baton::set_max_procs: not a number from 1 to 1024");
    if (!rt::started()) {
        const int old = rt::initial_procs();
        rt::set_initial_procs(n);
        return old;
    }
    // Who stops the world must have a P to keep.
    if (!rt::getm_or_null()) return run([n] { return set_max_procs(n); });
    rt::must_park("set_max_procs");
    rt::EntryWithP entry;
    rt::sched.procs_fixed.store(true, std::memory_order_seq_cst);
    rt::stop_the_world();
    const int old = max_procs();
    rt::procresize(static_cast<std::uint32_t>(n));
    rt::start_the_world();
    return old;
}

} // namespace baton
