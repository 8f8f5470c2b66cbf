// SPDX-License-Identifier: Apache-2.0
//
// Ms: their threads, parking them, waking them, letting them go.
//
// Idle Ms are kept per CPU where they last ran, in lock-free stacks of slots: an understudy, which
// must not wait for any lock, takes one last seen on its own CPU. M structs are never freed, so a
// stale link read by a pop is harmless; the tag in the head makes its CAS fail.
//
// A parked M is given a P in this order, by whoever holds the P:
//     m->nextp = p;  the P's word names m as owner;  m->park++;  futex wake
// and goes only when both nextp and the word say so, in whichever order they came. The wake may be
// repeated by anybody.
#include <csignal>
#include <cxxabi.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "kernel/clock.hpp"
#include "kernel/cpus.hpp"
#include "kernel/futex.hpp"
#include "kernel/sched_class.hpp"
#include "kernel/syscall.hpp"
#include "runtime/entry.hpp"
#include "runtime/persistentalloc.hpp"
#include "runtime/sched.hpp"
#include "runtime/signals.hpp"
#include "runtime/switch.hpp"

extern "C" {
constinit thread_local void* baton_tls_m = nullptr;
}
namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr std::size_t kG0Stack = 256 << 10;
constexpr std::int32_t kStrays = 16; // wakes steered for one that was not and strayed

IdleMs& idle_on(std::uint32_t cpu) { return sched.idle_ms[cpu]; }

M* pop(IdleMs& list) {
    std::uint64_t head = list.head.load(kSeqCst);
    for (;;) {
        const auto slot = static_cast<std::uint16_t>(head);
        if (slot == 0) return nullptr;
        M* m = sched.allm[slot];
        // relaxed: if m was popped and pushed meanwhile the tag has changed and the CAS fails.
        const std::uint64_t next = m->idlelink.load(kRelaxed);
        if (!list.head.compare_exchange_weak(head, ((head >> 16) + 1) << 16 | next)) continue;
        list.n.fetch_sub(1, kSeqCst); // seq_cst: checkdead counts the reserve
        return m;
    }
}

void push(IdleMs& list, M* m) {
    std::uint64_t head = list.head.load(kSeqCst);
    list.n.fetch_add(1, kSeqCst); // seq_cst: as above
    do {
        // relaxed: published by the CAS.
        m->idlelink.store(static_cast<std::uint16_t>(head), kRelaxed);
    } while (!list.head.compare_exchange_weak(head, ((head >> 16) + 1) << 16 | m->slot));
}

M* pop_idle(IdleMs& list) {
    M* m = pop(list);
    if (m) sched.midle.fetch_sub(1, kSeqCst);
    return m;
}

// m was woken, for the CPU in m->near. Did the kernel put it there?
void note_stray(M* m) {
    const std::uint32_t cpu = m->near - 1;
    m->near = 0;
    // relaxed: a guess.
    if (current_cpu(m) != cpu) idle_on(cpu).strays.store(kStrays, kRelaxed);
}

M* allocate_m() {
    LockGuard guard(sched.mlock);
    if (const std::uint32_t slot = sched.mfree) {
        M* m = sched.allm[slot];
        sched.mfree = m->idlelink.load(kRelaxed); // relaxed: under mlock
        m->order.store(kOrderNone, kSeqCst);
        m->cpus.store(nullptr, kSeqCst);
        return m;
    }
    if (sched.mslots == kMaxM) return nullptr;
    M* m = persistent_new<M>();
    auto* own_rseq = persistent_new<kernel::RseqArea>();
    if (!m || !own_rseq) return nullptr; // before there is a slot without an M
    m->self = m;
    m->own_rseq = own_rseq;
    m->slot = ++sched.mslots;
    m->run = assist::run_word(static_cast<std::uint16_t>(m->slot));
    m->rec = &sched.records.m[m->slot];
    sched.allm[m->slot] = m;
    return m;
}

void free_m(M* m) {
    LockGuard guard(sched.mlock);
    m->idlelink.store(sched.mfree, kRelaxed); // relaxed: under mlock
    sched.mfree = m->slot;
}

// What a thread needs before it may act as m.
void attach(M* m) {
    arch::set_gs_self(m); // first: a signal's handler may enter a call (entersyscall)
    baton_tls_m = m;
    m->rseq = assist::use_rseq ? kernel::rseq_attach(m->own_rseq) : nullptr;
    if (!m->rseq) m->rseq = &assist::no_rseq;
    m->eh = reinterpret_cast<EhGlobals*>(abi::__cxa_get_globals());
    set_state(m, shared::M_RUNTIME);
    m->rng = (std::uint64_t{m->slot} << 32 | 0x9e3779b9u) ^ kernel::cputicks();
    // relaxed: whoever asks for the thread's state knows it from a word that names m.
    std::atomic_ref(m->rec->tid)
        .store(static_cast<shared::u32>(kernel::raw_syscall(SYS_gettid)), kRelaxed);
#if defined(BATON_TSAN)
    m->fiber = __tsan_get_current_fiber();
#elif defined(BATON_ASAN)
    pthread_attr_t attr;
    pthread_getattr_np(pthread_self(), &attr);
    void* bottom;
    pthread_attr_getstack(&attr, &bottom, &m->stack_size);
    pthread_attr_destroy(&attr);
    m->stack_bottom = bottom;
#endif
    if (sched.probe) {
        const int rc = sched.probe->register_thread(m->slot);
        if (rc < 0)
            warn("probe does not see thread %u (error %d): its blocks wait for sysmon", m->rec->tid,
                 -rc);
    }
}

// Not the only M there is, and perhaps all that the kernel grants: at the ring buffer nobody can
// hand it work.
bool may_stand_by() { return sched.probe && sched.mthere.load(kSeqCst) > 1; }

// An M that goes to sleep waits at the ring buffer if nobody does.
bool becomes_standby() {
    // relaxed: the exchange decides.
    return may_stand_by() && !sched.has_standby.load(kRelaxed) &&
           !sched.has_standby.exchange(true, kSeqCst);
}

// The thread of an M. Returns when it is told to leave (mexit).
void* mstart(void* arg) {
    auto* m = static_cast<M*>(arg);
    void* way_out[5]; // as __builtin_setjmp wants it
    if (__builtin_setjmp(way_out) != 0) return nullptr;
    m->way_out = way_out;
    kernel::set_thread_name("baton/m");
    attach(m);
    install_signal_stack(m);
    (void)kernel::set_timer_slack(1);
    sched.mthere.fetch_add(1, kSeqCst);
    sched.mborn.fetch_sub(1, kSeqCst); // seq_cst: before the look at mwanted; see newm
    stopm(m);
    schedule(m);
}

} // namespace

std::uint32_t current_cpu_slow() noexcept {
    unsigned cpu = 0;
    kernel::raw_syscall(SYS_getcpu, &cpu, nullptr, nullptr);
    return cpu < sched.ncpu ? cpu : 0;
}

bool has_nextp(const M* m) {
    const P* p = m->nextp.load(kSeqCst);
    return p && assist::load(*p->rec).owner == m->slot;
}

P* mpark(M* m) {
    for (;;) {
        const std::uint32_t seq = m->park.load(kSeqCst);
        if (has_nextp(m)) {
            P* p = m->nextp.exchange(nullptr, kSeqCst);
            if (m->near != 0) note_stray(m);
            unsteer(m);
            if (m->pair) end_pair(m, m->spinning);
            return p;
        }
        if (m->order.load(kSeqCst) != kOrderNone) {
            if (m->pair) end_pair(m, false);
            return nullptr;
        }
        // seq_cst: mwake raises park and then looks at asleep; the kernel looks at park after this.
        m->asleep.store(true, kSeqCst);
        const std::int64_t look = m->pair ? kernel::nanotime() + m->pair_ns : kernel::kForever;
        const int rc = kernel::futex_wait(&m->park, seq, look);
        m->asleep.store(false, kRelaxed); // relaxed: one wake too many does no harm
        if (rc == -ETIMEDOUT) look_at_pair(m);
    }
}

void mwake(M* m) {
    m->park.fetch_add(1, kSeqCst);
    if (m->asleep.load(kSeqCst)) kernel::futex_wake(&m->park, 1);
}

// By a jump back to where the thread began, over frames of the scheduler's that hold nothing.
//
// Rejected: pthread_exit, which calls what was left on the thread by pthread_cleanup_push. A
// goroutine that parks between that and the pop, as in what pthread_once runs, pops it on another
// thread: the first one keeps a pointer to a stack that is long another's. (longjmp looks there,
// too.)
[[gnu::noinline]] void mexit(M* m) {
    void** const way_out = m->way_out;
    set_state(m, shared::M_DEAD);
    std::atomic_ref(m->rec->tid).store(0, kRelaxed); // relaxed: as in attach
    remove_signal_stack(m);
    if (m->rseq == m->own_rseq) kernel::rseq_detach(m->own_rseq);
    baton_tls_m = nullptr;
    sched.mthere.fetch_sub(1, kSeqCst);
    sched.mcount.fetch_sub(1, kSeqCst);
    if (sched.mwanted.load(kSeqCst)) wake_sysmon(); // there may be another now
    // The thread sleeps on its way out, and so must be nobody by then. If it cannot, its slot is
    // lost.
    if (!sched.probe || sched.probe->unregister_thread() == 0)
        free_m(m); // nothing of m is used by this thread after this
    __builtin_longjmp(way_out, 1);
}

void help_pending(std::uint32_t cpu) {
    // acquire: pairs with hand_blocked's store; the M named is in the table. A stale one is
    // harmless, a wake may be repeated.
    constexpr auto kAcquire = std::memory_order_acquire;
    const std::uint32_t slot = idle_on(cpu).pending.load(kAcquire);
    if (slot == 0) return;
    // Once it has its P it needs no help, but the name stays until the understudy runs again: on a
    // full machine most of the wakes would be for nothing. seq_cst: mpark clears it.
    M* m = sched.allm[slot];
    if (m->nextp.load(kSeqCst) != nullptr) mwake(m);
}

void mput(M* m, std::uint32_t cpu) {
    sched.midle.fetch_add(1, kSeqCst);
    push(idle_on(cpu), m);
}

// Left to itself the kernel wakes a thread on an idle CPU where it ran before, which takes ten
// times as long as a switch on this one. On a machine that idles it may do so with one that ran
// here as well (seen; probably as the M that blocked counts as running here until its lag is made
// up, by delayed dequeue). That comes and goes for minutes, so the next ones are steered, too.
M* mget_near(std::uint32_t cpu) {
    IdleMs& here = idle_on(cpu);
    M* m = pop_idle(here);
    // relaxed, all: guesses.
    if (m && !assist::understudies.cpu(cpu).idled.load(kRelaxed)) return m;
    if (m && here.strays.load(kRelaxed) <= 0) {
        m->near = cpu + 1;
        return m;
    }
    if (m) here.strays.fetch_sub(1, kRelaxed); // relaxed: as above
    if (!m) m = mget_far(cpu);
    if (!m) {
        m = pop(sched.mreserve);
        want_m();
    }
    if (m)
        m->steered = kernel::pin_thread(static_cast<int>(cpu), static_cast<int>(m->rec->tid)) == 0;
    return m;
}

bool release_reserve() {
    bool any = false;
    while (M* m = pop(sched.mreserve)) {
        mput(m, 0);
        any = true;
    }
    return any;
}

void unsteer(M* m) {
    if (!m->steered) return;
    m->steered = false;
    // seq_cst, all: follow_cpus stores the CPUs and then looks at m->cpus (rebind). Either it sees
    // what we are about to set, or we see that there are others.
    const std::vector<int>* cpus = sched.cpus.load(kSeqCst);
    for (const std::vector<int>* before = nullptr; cpus != before;) {
        m->cpus.store(cpus, kSeqCst);
        (void)kernel::set_affinity(*cpus, static_cast<int>(m->rec->tid));
        before = cpus;
        cpus = sched.cpus.load(kSeqCst);
    }
}

// A mask that was set is a bound: what its cpuset gains a thread does not get then (since Linux
// 6.2), nor a CPU that was offline when it was set. And one that was let go just after somebody
// changed all threads' masks has the former one.
void rebind(const std::vector<int>* cpus) {
    std::uint32_t slots;
    {
        LockGuard guard(sched.mlock);
        slots = sched.mslots;
    }
    for (std::uint32_t slot = 1; slot <= slots; slot++) {
        M* m = sched.allm[slot];
        const std::vector<int>* old = m->cpus.load(kSeqCst);
        // relaxed: one that is leaving does without.
        const auto tid = static_cast<int>(std::atomic_ref(m->rec->tid).load(kRelaxed));
        // Another mask than that is the program's own, or that of one steered just now.
        if (!old || old == cpus || tid == 0 || kernel::allowed_cpus(tid) != *old) continue;
        m->cpus.store(cpus, kSeqCst);
        (void)kernel::set_affinity(*cpus, tid);
    }
}

M* mget_far(std::uint32_t cpu) {
    for (std::uint32_t i = 1; i <= sched.ncpu; i++) {
        if (M* m = pop_idle(idle_on((cpu + i) % sched.ncpu))) return m;
    }
    return nullptr;
}

M* mget_spare(std::int32_t least) {
    IdleMs* most = nullptr;
    for (std::uint32_t i = 0; i < sched.ncpu; i++) {
        IdleMs& list = idle_on(i);
        // relaxed: a choice, not a promise.
        if (!most || list.n.load(kRelaxed) > most->n.load(kRelaxed)) most = &list;
    }
    return most->n.load(kRelaxed) >= least ? pop_idle(*most) : nullptr; // relaxed: as above
}

void startm(P* p, bool spinning, Where where) {
    M* self = getm_or_null();
    const std::uint32_t cpu = self ? current_cpu(self) : 0;
    M* m = where == Where::kHere ? pop_idle(idle_on(cpu)) : nullptr;
    if (!m) m = mget_far(cpu);
    if (!m) {
        if (!start_preempted(p, spinning)) newm(p, spinning);
        return;
    }
    m->spinning = spinning;
    name_next(m, p);
    assist::hand_over(*p->rec, static_cast<std::uint16_t>(m->slot));
    mwake(m);
}

bool newosproc(MOrder order) {
    const std::uint32_t n = sched.mcount.fetch_add(1, kSeqCst) + 1;
    const bool allowed = thread_allowed(n);
    M* m = allowed ? allocate_m() : nullptr;
    int rc = allowed ? EAGAIN : 0;
    if (m) {
        m->order.store(order, kSeqCst);
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, kG0Stack);
        pthread_attr_setsigmask_np(&attr, &sched.sigmask); // the template thread blocks all
        pthread_t thread;
        sched.mborn.fetch_add(1, kRelaxed); // relaxed: see make_spares
        rc = pthread_create(&thread, &attr, mstart, m);
        if (rc != 0) sched.mborn.fetch_sub(1, kRelaxed); // relaxed: see make_spares
        pthread_attr_destroy(&attr);
        if (rc == 0) {
            std::uint32_t peak = sched.mpeak.load(kRelaxed); // relaxed, all: for people
            while (n > peak && !sched.mpeak.compare_exchange_weak(peak, n, kRelaxed, kRelaxed)) {
            }
            return true;
        }
        free_m(m);
    }
    sched.mcount.fetch_sub(1, kSeqCst);
    thread_refused(rc, sched.mwanted.load(kSeqCst));
    return false;
}

bool appoint_standby() {
    if (!may_stand_by() || sched.has_standby.exchange(true, kSeqCst)) return true;
    M* self = getm_or_null();
    M* m = mget_far(self ? current_cpu(self) : 0);
    if (!m) {
        sched.has_standby.store(false, kSeqCst);
        return false;
    }
    m->order.store(kOrderStandby, kSeqCst);
    mwake(m);
    return true;
}

void stopm(M* m, P* watched) {
    end_credit(m);
    for (;;) {
        m->spinning = false;
        set_state(m, shared::M_IDLE);
        if (watched) {
            if (P* p = watch_unlisted(m, watched)) return acquirep(m, p);
        }
        const std::uint32_t order = m->order.exchange(kOrderNone, kSeqCst);
        if (order == kOrderExit) mexit(m);
        P* p = nullptr;
        // Not if one is wanted by who has seen that this one is on its way (newm).
        if (order == kOrderReserve && !sched.mwanted.load(kSeqCst)) {
            push(sched.mreserve, m);
            // Who was refused one meanwhile did not see it.
            if (!m_to_be_had() && release_reserve()) heed_mwanted();
            p = mpark(m);
        } else if (order == kOrderStandby || (!watched && becomes_standby())) {
            heed_mwanted();
            if (m->pair) end_pair(m, false);
            p = standby_wait(m);
        } else {
            const std::uint32_t cpu = current_cpu(m);
            help_pending(cpu);
            mput(m, cpu);
            heed_mwanted();
            if (watched) stay_awake(m);
            watched = nullptr;
            p = mpark(m);
        }
        if (p) {
            acquirep(m, p);
            return;
        }
    }
}

M* attach_helper(shared::m_state role) {
    M* m = allocate_m();
    if (!m) fatal("no slot for a helper thread: more than %u threads", kMaxM);
    attach(m);
    set_state(m, role);
    sched.nhelpers.fetch_add(1, kSeqCst);
    return m;
}

} // namespace baton::rt
