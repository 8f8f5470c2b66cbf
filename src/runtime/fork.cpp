// SPDX-License-Identifier: Apache-2.0
//
// fork: the child has one thread and no runtime.
//
// The thread that forked is a plain thread there, on whatever stack it was: a goroutine's, mostly.
// All other Gs are gone, with the Ms, the understudies and sysmon. What the runtime knew is
// forgotten at once, without looking at it, as other threads were in the middle of changing it; so
// the first call that needs a runtime starts one as in a fresh process, with records, an epoll and
// a probe of its own. The memory of the Gs that are gone stays as it is, for it may be pointed to.
//
// Threads: the three handlers by the thread that forks; prepare keeps a start of the runtime out,
// and the firings of timers, which take locks of the program's channels. No other lock is taken:
// which of the runtime's own the other threads hold does not matter to who forgets them.
// Rejected: the child going on as a G of a runtime mended in place. It would have to stop the world
// before each fork, and so wait for every goroutine that computes; most children exec at once.
#include <pthread.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstdlib>
#include <new>

#include "assist/asleep.hpp"
#include "runtime/entry.hpp"
#include "runtime/file_calls.hpp"
#include "runtime/foreign.hpp"
#include "runtime/galloc.hpp"
#include "runtime/hoard.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/ring.hpp"
#include "runtime/sched.hpp"
#include "runtime/sema.hpp"
#include "runtime/stack.hpp"
#include "runtime/start.hpp"
#include "runtime/user_timer.hpp"

namespace baton::rt {

constinit std::uint32_t forks = 0;

namespace {

// What the M of a goroutine that forked finds where its P was: never its own, so that a bracket
// or goroutine that ends in the child takes the slow way, and is told there.
constinit shared::p_rec no_p{};
bool was_goroutine = false;

void leave_m(M* m) {
    m->prec = &no_p;
    baton_tls_m = nullptr;
    was_goroutine = true;
    (void)::prctl(PR_SET_NAME, program_invocation_short_name); // no longer "baton/m"
}

void in_child() {
    forks++;
    if (M* m = getm_or_null()) leave_m(m);
    // First, as a store to the parent's records would be a P gone wrong there.
    if (sched.probe && sched.probe->after_fork_in_child() < 0)
        fatal("no memory for a forked child's records");
    assist::probed = false;
    assist::sees_sleepers = false;
    const std::uint32_t maxmcount = sched.maxmcount.load(kSeqCst);
    new (&sched) Sched{};
    sched.maxmcount.store(maxmcount, kSeqCst);
    sema_forget();
    user_timers_forget();
    hoards_forget();
    file_calls_forget();
    rings_forget();
    netpoll_forget();
    stacks_forget();
    gs_forget();
    foreign_forget();
    forget_start();
    release_start();
}

void before_fork() {
    hold_start();
    user_timers_hold();
}

void in_parent() {
    user_timers_release();
    release_start();
}

} // namespace

int watch_forks() {
    static const int rc = ::pthread_atfork(before_fork, in_parent, in_child);
    return rc;
}

bool forked_from_goroutine() noexcept { return was_goroutine; }

void goroutine_returned_in_child() { std::exit(0); }

} // namespace baton::rt
