// SPDX-License-Identifier: Apache-2.0
//
// How many Ms there may be, and what happens when there may not be another: the P that wanted one
// goes to the idle list with its work, and an M that comes back from its call, or sysmon's next
// round, takes both up. The reference ends the process at its limit; here that is an option.
//
// An M on its way to sleep is on no list yet, so who looks for one just then is refused as well,
// and nobody would start that M for what is there to do. Both do their store first, then look:
//
//     who is refused                          an M that goes to sleep (stopm)
//     --------------                          -------------------------------
//     mwanted = true                          is on an idle list, or stands by
//     an M to be had after all?               mwanted?  then wakep
//     then sysmon is to wakep
//
// Where Ps keep their work from the Ms there are (one that comes back from its call takes its old P
// first, one with work does not look elsewhere), these take turns: sysmon, having seen an idle P
// with work twice, tells all Ps (kAttnTurn), and each M that holds one puts it on the idle list and
// goes on with the one that has waited longest.
//
// An M that waits at the probe's ring buffer does not count: it cannot be handed work, so with a
// limit of one it would be the one.
#include <cerrno>
#include <stdexcept>

#include "baton/run.hpp"
#include "kernel/clock.hpp"
#include "runtime/ring.hpp"
#include "runtime/sched.hpp"
#include "runtime/start.hpp"

namespace baton::rt {

bool thread_allowed(std::uint32_t mcount) {
    const std::uint32_t standby = sched.has_standby.load(kSeqCst) ? 1 : 0;
    return mcount <= sched.maxmcount.load(kSeqCst) + standby;
}

bool m_to_be_had() {
    return sched.midle.load(kSeqCst) > 0 || thread_allowed(sched.mcount.load(kSeqCst) + 1);
}

void heed_mwanted() {
    if (sched.mwanted.load(kSeqCst) && sched.mwanted.exchange(false, kSeqCst)) wakep();
}

bool left_behind(const P* p, std::int64_t now) {
    // relaxed: a hint.
    const std::int64_t when = p->timers.next_when.load(std::memory_order_relaxed);
    return has_own_work(p) || (when != 0 && when <= now);
}

bool take_turn(M* m) {
    ring_submit(m->p); // what is left there waits for a while
    P* next = nullptr;
    {
        LockGuard guard(sched.lock);
        // relaxed: changes under this lock
        if (sched.gcwaiting.load(std::memory_order_relaxed)) return false;
        const std::int64_t now = kernel::nanotime();
        for (P* p = sched.pidle; p; p = p->link)
            if (left_behind(p, now)) next = p; // the list's last has been there longest
        if (!next) return false;
        (void)pidleget(next);
        pidleput(releasep(m));
    }
    next->attention.fetch_and(~kAttnTurn, kSeqCst); // it has it
    assist::hand_over(*next->rec, static_cast<std::uint16_t>(m->slot));
    acquirep(m, next);
    return true;
}

void thread_refused(int error, bool needed) {
    (void)release_reserve();
    sched.mrefused.fetch_add(1, kSeqCst);
    // The kernel, having refused one, is asked again at sysmon's own pace.
    if (needed && (error == 0 ? m_to_be_had() : sched.midle.load(kSeqCst) > 0)) wake_sysmon();
    const std::uint32_t limit = max_threads();
    if (error == 0 && needed && sched.crash_at_limit.load(kSeqCst)) {
        // Both lines in one write: another thread may have its own to say.
        warn("program exceeds %u-thread limit\nfatal error: thread exhaustion", limit);
        die();
    }
    static std::atomic<bool> said{false};
    if (said.exchange(true, kSeqCst)) return;
    if (error == 0) {
        warn("%u threads are in use, as many as BATON_MAXTHREADS or set_max_threads allows; work "
             "waits for one of them",
             limit);
    } else {
        warn("cannot start a thread (%s): see ulimit -u and the cgroup's pids.max; work waits for "
             "one of the %u there are",
             error == EAGAIN ? "EAGAIN" : "ENOMEM", sched.mcount.load(kSeqCst));
    }
}

std::uint32_t max_threads() {
    const std::uint32_t n = sched.maxmcount.load(kSeqCst);
    return n != 0 ? n : read_config().threads;
}

} // namespace baton::rt

namespace baton {

int set_max_threads(int n) {
    if (n < 1 || n > static_cast<int>(rt::kMaxM))
        throw std::invalid_argument("baton::set_max_threads: not a number from 1 to 16383");
    const std::uint32_t unset = rt::max_threads();
    const std::uint32_t old =
        rt::sched.maxmcount.exchange(static_cast<std::uint32_t>(n), rt::kSeqCst);
    rt::wake_sysmon(); // work may be waiting for more
    return static_cast<int>(old != 0 ? old : unset);
}

} // namespace baton
