// SPDX-License-Identifier: Apache-2.0
#include "assist/understudy.hpp"

#include <cerrno>
#include <csignal>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "assist/asleep.hpp"
#include "kernel/clock.hpp"
#include "kernel/cpus.hpp"
#include "kernel/futex.hpp"
#include "kernel/sched_class.hpp"
#include "kernel/syscall.hpp"

namespace baton::assist {

namespace {

constexpr std::int64_t kLookNs = 5'000;
constexpr std::int64_t kGapNs = 1'500; // longer between two looks: we had lost the CPU

} // namespace

constinit Understudies understudies;

void Understudies::prepare(std::uint32_t ncpu) {
    ncpu_ = ncpu;
    started_ = false;
    cpus_ = new Cpu[ncpu];
}

void Understudies::arm(std::uint32_t cpu) noexcept {
    Cpu& c = cpus_[cpu];
    // relaxed: see (A); the futex call orders the rest. Counters are for people.
    if (c.armed.exchange(1, std::memory_order_relaxed) != 0) return;
    c.arms.fetch_add(1, std::memory_order_relaxed);
    kernel::futex_wake(&c.armed, 1);
}

// Is a P with this word one that the understudy of `cpu` may have?
bool Understudies::takeable(Word w, std::uint32_t cpu) const noexcept {
    if (w.taker != 0) return false;
    // relaxed: a guess. An M that migrated inside its call is blocked here though it entered
    // elsewhere.
    const bool here =
        std::atomic_ref(records_.m[w.owner].cpu).load(std::memory_order_relaxed) == cpu;
    if (by_probe_) return w.marked() && (w.cpu == cpu || here);
    return w.state == shared::P_RUN ? here && sees_sleepers
                                    : w.state == shared::P_SYSCALL && w.cpu == cpu;
}

Found Understudies::look(std::uint32_t cpu, const Actor& me) noexcept {
    const std::uint32_t n =
        hooks_.procs->load(std::memory_order_acquire); // acquire: with procresize
    Found all = Found::kNothing;
    for (std::uint32_t slot = 1; slot <= n; slot++) {
        const Word w = load(records_.p[slot]);
        if (!takeable(w, cpu)) continue;
        const Found found = hooks_.dispatch(slot, w, me, cpu);
        if (found == Found::kTaken) return found;
        if (found != Found::kNothing) all = found;
    }
    return all;
}

void Understudies::run(std::uint32_t cpu) noexcept {
    const Actor me = hooks_.attach();
    Cpu& c = cpus_[cpu];
    for (;;) {
        std::int64_t start = kernel::nanotime();
        for (std::int64_t last = start;;) {
            // The kernel lets a thread go anywhere that is runnable where a CPU goes offline.
            // relaxed: a guess; follow sees to the mask of one whose CPU was taken from us.
            if (sched_getcpu() != static_cast<int>(cpu) && c.ours.load(std::memory_order_relaxed))
                (void)kernel::pin_thread(static_cast<int>(cpu));
            const Found found = look(cpu, me);
            const std::int64_t now = kernel::nanotime();
            // relaxed, and below: its own, and a guess for others.
            if (found == Found::kTaken) c.idled.store(false, std::memory_order_relaxed);
            // In a gap an M ran: its block is news.
            if (found == Found::kTaken || (now - last > kGapNs && found != Found::kAwake))
                start = now;
            last = now;
            if (now - start > kLookNs) break;
            _mm_pause();
        }
        c.armed.store(0, kSeqCst); // seq_cst: before the words are read again, see (A)
        if (look(cpu, me) == Found::kTaken) {
            c.armed.store(1, kSeqCst);
            continue;
        }
        c.dozes.fetch_add(1, std::memory_order_relaxed); // relaxed: for people
        // relaxed: the futex call looks again in the kernel.
        while (c.armed.load(std::memory_order_relaxed) == 0) (void)kernel::futex_wait(&c.armed, 0);
        c.idled.store(true, std::memory_order_relaxed);
    }
}

// The thread of one understudy; how it came up goes to Cpu::start. Whoever waits for that puts it
// in SCHED_IDLE, from where a busy machine lets it wait for seconds, and who starts us with it. It
// does not go there by itself as well: that might be when it has the CPU again, after hurry().
void* Understudies::thread_main(void* arg) {
    auto* c = static_cast<Cpu*>(arg);
    const auto cpu = static_cast<std::uint32_t>(c - understudies.cpus_);
    const bool alone = c->start.load(kSeqCst) == Cpu::kAlone;
    char name[16];
    std::snprintf(name, sizeof name, "baton/us%u", cpu);
    kernel::set_thread_name(name);
    c->tid.store(static_cast<int>(kernel::raw_syscall(SYS_gettid)), kSeqCst);
    int err = kernel::pin_thread(static_cast<int>(cpu));
    if (err == 0 && alone) err = kernel::become_sched_idle();
    c->start.store(err || alone ? static_cast<std::uint32_t>(-err) : Cpu::kUp, kSeqCst);
    kernel::futex_wake(&c->start, 1);
    if (err == 0 && !alone) {
        while (c->start.load(kSeqCst) == Cpu::kUp) (void)kernel::futex_wait(&c->start, Cpu::kUp);
        err = static_cast<int>(c->start.load(kSeqCst));
    }
    if (err == 0) understudies.run(cpu);
    c->tid.store(0, kSeqCst);
    c->armed.store(1, kSeqCst); // nobody there: nobody shall arm it
    return nullptr;
}

// `how`: Cpu::kPending, and wait_started follows, or kAlone. 0 or -errno.
int Understudies::start_thread(Cpu& c, std::uint32_t how) noexcept {
    c.start.store(how, kSeqCst);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 128 << 10);
    pthread_t thread;
    const int rc = -pthread_create(&thread, &attr, thread_main, &c);
    pthread_attr_destroy(&attr);
    return rc;
}

// 0 or -errno.
int Understudies::wait_started(Cpu& c) noexcept {
    while (c.start.load(kSeqCst) == Cpu::kPending)
        (void)kernel::futex_wait(&c.start, Cpu::kPending);
    if (const std::uint32_t err = c.start.load(kSeqCst); err != Cpu::kUp)
        return -static_cast<int>(err);
    const int rc = kernel::become_sched_idle(c.tid.load(kSeqCst));
    c.start.store(static_cast<std::uint32_t>(-rc), kSeqCst); // it ends if that is refused
    kernel::futex_wake(&c.start, 1);
    return rc;
}

// Waits for no thread to come up: there is no hurry.
void Understudies::follow(const std::vector<int>& cpus) noexcept {
    if (!started_) return;
    for (std::uint32_t i = 0; i < ncpu_; i++) {
        Cpu& c = cpus_[i];
        const int cpu = static_cast<int>(i);
        const int tid = c.tid.load(kSeqCst);
        const bool ours = std::find(cpus.begin(), cpus.end(), cpu) != cpus.end();
        c.ours.store(ours, kSeqCst);
        if (tid != 0) { // whoever changed our mask may have changed its
            (void)(ours ? kernel::pin_thread(cpu, tid) : kernel::set_affinity(cpus, tid));
        } else if (ours) {
            (void)start_thread(c, Cpu::kAlone); // without one, as where there are no understudies
        }
    }
}

void Understudies::hurry() noexcept {
    for (std::uint32_t i = 0; i < ncpu_; i++) {
        // Refused where that needs a capability; then the end takes its time.
        if (const int tid = cpus_[i].tid.load(kSeqCst)) (void)kernel::leave_sched_idle(tid);
    }
}

int Understudies::start(const Records& records, const UnderstudyHooks& hooks, bool by_probe) {
    records_ = records;
    hooks_ = hooks;
    by_probe_ = by_probe;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (int cpu : kernel::allowed_cpus()) {
        if (static_cast<std::uint32_t>(cpu) >= ncpu_) continue;
        Cpu& c = cpus_[cpu];
        c.ours.store(true, kSeqCst);
        rc = start_thread(c, Cpu::kPending);
        if (rc == 0) rc = wait_started(c);
        if (rc != 0) break;
    }
    started_ = rc == 0;
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    return rc;
}

} // namespace baton::assist
