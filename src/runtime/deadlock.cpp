// SPDX-License-Identifier: Apache-2.0
//
// checkdead: have all goroutines gone to sleep for ever?
//
// The reference looks when its last M goes idle, and not at all where C threads may call in. Here
// any plain thread of the program may wake a goroutine at any time, and baton does not know of it.
// So the kernel is asked how many threads there are: only if each is one of baton's own, or a plain
// one that waits in baton itself, can nothing come from outside.
//
// sysmon looks, as it holds nothing then: no G in its hands that is on no queue, no P. It must
// never be wrong. With sched.lock held and all Ps idle no goroutine runs or will, as no P can be
// taken. Plain threads may go on meanwhile; they are seen by this:
//
//     read parks and wakes;  count threads;  read both again: unchanged?
//
// Then the parks - wakes threads that waited at the first reading waited at the count, for a wake
// is noted before it is made and a park only once it is complete. If with baton's own they make up
// the count, there was nobody else, and who is none of them was not there to do anything since. A
// thread that has just ended, or is being made, makes the count too high: then we look again.
//
// Signal handlers that wake goroutines are not seen.
#include <sys/stat.h>

#include <algorithm>

#include "runtime/crash.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

// By the links of their directory: "." and ".." and one for each. Opens no descriptor, which the
// program would see. 0 where /proc does not tell.
std::uint64_t threads_of_process() {
    struct stat st;
    return ::stat("/proc/self/task", &st) == 0 && st.st_nlink > 2 ? st.st_nlink - 2 : 0;
}

// No M runs or will of itself: with all Ps idle, every M there is sleeps on an idle list, in the
// reserve, at the ring buffer, or until the G locked to it is woken. One in a call does none of
// these.
bool all_ms_idle(std::uint32_t* mcount) {
    const std::uint32_t standby = sched.has_standby.load(kSeqCst) ? 1 : 0;
    *mcount = sched.mcount.load(kSeqCst);
    // In this order: an M of the reserve may go to an idle list meanwhile, and must not count
    // twice.
    const std::uint32_t idle = sched.midle.load(kSeqCst);
    const auto reserve = static_cast<std::uint32_t>(sched.mreserve.n.load(kSeqCst));
    return *mcount == idle + reserve + sched.mlockedidle.load(kSeqCst) + standby;
}

bool no_plain_thread_runs(std::uint32_t mcount) {
    const std::uint64_t wakes = sched.plain_wakes.load(kSeqCst);
    const std::uint64_t parks = sched.plain_parks.load(kSeqCst);
    const std::uint64_t threads = threads_of_process();
    if (wakes != sched.plain_wakes.load(kSeqCst) || parks != sched.plain_parks.load(kSeqCst))
        return false;
    return threads == mcount + sched.nhelpers.load(kSeqCst) + (parks - wakes);
}

// sched.lock held and all Ps idle: is there anything to run, or to wait for?
bool nothing_to_come() {
    if (netpoll_any_waiters() || !sched.runq.empty()) return false;
    const std::uint32_t n = sched.gomaxprocs.load(kSeqCst);
    return std::all_of(sched.allp, sched.allp + n,
                       [](P* p) { return runqempty(p) && p->timers.next_when.load(kSeqCst) == 0; });
}

bool somebody_waits() {
    return gcount() > 0 || sched.plain_parks.load(kSeqCst) != sched.plain_wakes.load(kSeqCst);
}

} // namespace

void checkdead() {
    if (netpoll_any_waiters()) return;
    LockGuard guard(sched.lock);
    if (npidle().load(kSeqCst) != sched.gomaxprocs.load(kSeqCst) || !somebody_waits() ||
        !nothing_to_come())
        return;
    std::uint32_t mcount = 0;
    // Looked at again after the threads were counted: who has ended by then had left it behind.
    if (!all_ms_idle(&mcount) || !no_plain_thread_runs(mcount) || !nothing_to_come()) return;
    begin_crash();
    fatal_error("all goroutines are asleep - deadlock!");
    print_goroutines();
    die();
}

} // namespace baton::rt
