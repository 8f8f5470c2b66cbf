// SPDX-License-Identifier: Apache-2.0
//
// G, M, P and sched: what a newcomer reads first. Terms, names and mechanisms are those of the Go
// runtime (runtime2.go, proc.go); what differs is said where it differs.
//
//   G  a goroutine: what it is to call, and once it has begun, a stack and its saved context
//      (galloc.hpp, stack.hpp).
//   M  a kernel thread with a scheduling context g0. Runs Gs only while it holds a P.
//   P  the right to run Gs: a run queue and caches. gomaxprocs of them.
//
// Who owns a P is decided by one word in its record (src/assist/ownership.hpp); M::p is the M's own
// note of it, written only by that M or by who hands it a P while it is parked.
//
// Threads: unless a function says otherwise it must be called on an M, with a P.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "arch/x86_64/context.hpp"
#include "baton_shared.h"
#include "kernel/rseq.hpp"
#include "runtime/patience.hpp"
#include "runtime/timer.hpp"

/// This thread's M, null on plain threads; mstart.cpp sets it. Initial-exec, so that a signal
/// handler may read it.
extern "C" {
[[gnu::tls_model("initial-exec"),
  gnu::visibility("hidden")]] extern constinit thread_local void* baton_tls_m;
}

namespace baton::arch {
struct Registers;
} // namespace baton::arch

namespace baton::rt {

struct M;
struct P;
struct Ring;
struct StackSlot;

/// Life of a G. Each state is three facts: on which queue it is, who owns the stack, who moves it
/// on.
enum class GStatus : std::uint8_t {
    kIdle,     // being made; no queue; newproc owns it
    kRunnable, // on a run queue or about to be; nobody runs its stack; whoever dequeues it
    kRunning,  // on no queue; its M owns the stack; itself
    kSyscall,  // on no queue; its M owns the stack, without touching the P; its M
    kWaiting,  // on some wait queue; nobody runs its stack; whoever readies it
    kDead,     // on a free list; nobody; newproc
};

/// Why a G waits, one per park site; the texts are the reference's where it has
/// them.
enum class WaitReason : std::uint8_t {
    kNone,
    kSleep,
    kChanReceive,
    kChanReceiveNil,
    kChanSend,
    kChanSendNil,
    kSelect,
    kSelectNoCases,
    kSemacquire,
    kMutexLock,
    kRWMutexRLock,
    kRWMutexLock,
    kRWMutexDrain,
    kCondWait,
    kWaitGroupWait,
    kOnceDo,
    kSemaphoreAcquire,
    kLatchWait,
    kBarrierWait,
    kIoWait,
    kFdReadLock,
    kFdWriteLock,
    kFileWait,
    kFileTurn,
    kLibcWait,
    kStackDump,
    kStoppingTheWorld,
};
const char* to_string(WaitReason reason) noexcept;

/// The C++ ABI's per-thread exception state (Itanium C++ ABI, 2.2.2); follows the G.
struct EhGlobals {
    void* caught = nullptr;
    unsigned uncaught = 0;
};

struct G;

/// What a G owns of its own accord, and ends in G code: a Local's values (src/task/local.cpp).
struct Locals {
    void (*end)(G* gp) = nullptr;
};

/// How large a callable lies in the G itself; a larger one lies on a stack taken for it.
inline constexpr std::size_t kGRoom = 64;

struct alignas(64) G {
    // What a switch reads and writes, a line.
    arch::Context sched;    // saved while it does not run; null until it has begun
    G* schedlink = nullptr; // next on whichever list holds it
    M* m = nullptr;         // who runs it
    M* lockedm = nullptr;   // the only M that may; written by that M
    std::uint64_t goid = 0;
    // relaxed everywhere: only whoever may move the G writes it, and the queue that hands the G
    // over orders it; other readers (dumps) want no more than a recent value.
    std::atomic<GStatus> status{GStatus::kIdle};
    WaitReason waitreason = WaitReason::kNone;
    bool foreign = false; // stands for a plain thread (foreign.cpp)
    // When it began to wait, by the coarse clock. relaxed everywhere: as status.
    std::atomic<std::uint32_t> waitsince{0};
    EhGlobals eh;

    // What its birth writes and its end reads, another.
    void (*entry)(void*) = nullptr;
    void* closure = nullptr;
    StackSlot* stack = nullptr;    // from when it begins, or from its birth if it needs it then
    std::byte* stack_lo = nullptr; // lowest usable byte
    Locals* locals = nullptr;      // its own affair alone
    std::uintptr_t gopc = 0;       // of the call that made it
    std::uint64_t parent = 0;      // the goroutine that made it; 0: a plain thread
    std::uint32_t forks = 0;       // as rt::forks was at its birth: with another it stayed behind
    alignas(64) std::byte room[kGRoom]{};

    std::atomic<std::uint64_t> wait{0}; // which of its waits, and how far (limit.hpp)
    void* param = nullptr;              // what the waker wants the woken to know
    struct Chain {
        G* next = nullptr; // the first of the next chain
        G* tail = nullptr;
        std::uint32_t n = 0;
    } chain;                            // of the first of one (gchain.hpp)
    std::int64_t hog_ns = 0;            // since when it is on hogq
    std::atomic<std::uint32_t> wake{0}; // the thread that a foreign one stands for sleeps on it
    alignas(64) Timer sleep_timer;
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    void* fiber = nullptr; // TSan's fiber, or ASan's fake stack while switched out
#endif
};
// Twelve to a page: a million that wait take 4.4 KiB each, with their stacks.
static_assert(sizeof(G) == 320 && offsetof(G, entry) == 64 && offsetof(G, wait) == 192 &&
              offsetof(G, sleep_timer) == 256);

/// What a G touches first when it runs again, with its context at `sp`: so many cache lines of its
/// stack, and four below those, on which it sees to who ran before it (switch.hpp). For who readies
/// many at once, which have not run for long.
inline void prefetch_stack(const void* sp, int lines = 4) {
    const auto* top = static_cast<const std::byte*>(sp);
    for (int line = -4; line < lines; line++)
        __builtin_prefetch(top + std::ptrdiff_t{64} * line, 1);
}
/// As far as a call of Conn::read reaches, and what its caller has next to it.
inline constexpr int kColdLines = 9;
/// For so many Gs together. One at a time costs what it saves: each stack has a page of its own,
/// and a prefetch does not retire before its page is found; the pages of several are looked for at
/// once. Of many the last would be out of the cache again before its turn.
inline constexpr std::uint32_t kAskAtOnce = 4;

/// A singly linked list of Gs through schedlink.
struct GList {
    G* head = nullptr;
    std::uint32_t n = 0;
    bool empty() const { return head == nullptr; }
    void push(G* gp) {
        gp->schedlink = head;
        head = gp;
        n++;
    }
    G* pop() {
        G* gp = head;
        if (gp) {
            head = gp->schedlink;
            gp->schedlink = nullptr;
            n--;
        }
        return gp;
    }
};

/// A FIFO of Gs through schedlink.
struct GQueue {
    G* head = nullptr;
    G* tail = nullptr;
    std::uint32_t n = 0;
    bool empty() const { return head == nullptr; }
    void push_back(G* gp) {
        gp->schedlink = nullptr;
        if (tail) {
            tail->schedlink = gp;
        } else {
            head = gp;
        }
        tail = gp;
        n++;
    }
    void push_back_all(GQueue& q) {
        if (q.empty()) return;
        if (tail) {
            tail->schedlink = q.head;
        } else {
            head = q.head;
        }
        tail = q.tail;
        n += q.n;
        q = {};
    }
    G* pop() {
        G* gp = head;
        if (gp) {
            head = gp->schedlink;
            if (!head) tail = nullptr;
            gp->schedlink = nullptr;
            n--;
        }
        return gp;
    }
    /// Drops the one after `before`, with null the first.
    void drop_after(G* before) {
        if (!before) {
            pop();
            return;
        }
        G* gp = before->schedlink;
        before->schedlink = gp->schedlink;
        if (tail == gp) tail = before;
        gp->schedlink = nullptr;
        n--;
    }
};

/// Called on the next context once a parking G is off its stack: true lets it sleep, false makes it
/// runnable again. Usually unlocks `lock`. Must not park.
using UnlockFn = bool (*)(G* gp, void* lock);

/// M::call_cpu before the first call: no CPU, and not what an area without rseq says either.
inline constexpr std::uint32_t kNoCallCpu = 0x7fffffff;

struct M {
    M* self; // at %gs:0
    P* p = nullptr;
    G* curg = nullptr;
    kernel::RseqArea* rseq = nullptr; // never null; an unregistered one where there is no rseq
    shared::m_rec* rec = nullptr;
    shared::p_rec* prec = nullptr; // p's
    EhGlobals* eh = nullptr;       // this thread's __cxa_get_globals()
    arch::Context g0;              // saved while a G runs
    // What the context switched to does for the one left behind (after_switch).
    G* prev = nullptr;
    void (*after)(G* prev, M* m) = nullptr;
    UnlockFn waitunlockf = nullptr;
    void* waitlock = nullptr;
    std::uint32_t slot = 0; // index in the records; never 0
    // The CPU where it entered its last call, and what follows from that: the word of its P in such
    // a call, and whether the understudy there is armed (syscall.cpp).
    std::uint32_t call_cpu = kNoCallCpu;
    std::uint64_t run = 0; // the word of a P that it holds
    std::uint64_t call = 0;
    const std::atomic<std::uint32_t>* armed = nullptr;
    bool spinning = false; // looking for work, counted in nmspinning
    std::uint64_t rng = 0;
    G* lockedg = nullptr;        // the only G that may run here
    std::uint32_t lockedext = 0; // lock_os_thread calls not yet undone
    Patience watches;            // (locked.cpp)
    Patience lingers;            // (findrunnable.cpp)
    bool answered = false;       // a plain thread that is awake, since it last found no work
    G* lockednext = nullptr;     // a switch found it next, another M has to run it
    P* pair = nullptr;           // whose pair_watcher it is (pair.cpp)
    std::uint32_t pair_seen = 0; // its unwoken at the last look
    std::int64_t pair_ns = 0;    // until the next one
    P* stalled = nullptr;        // looked at last by steal_stalled, and its runqhead then
    std::uint32_t stalled_head = 0;
    // Parking (mstart.cpp): nextp is set by who hands over a P; park counts wakes and is the futex.
    alignas(64) std::atomic<P*> nextp{nullptr};
    std::atomic<std::uint32_t> park{0};
    std::atomic<bool> asleep{false};     // a wake needs the futex call
    std::atomic<std::uint32_t> order{0}; // MOrder: what a woken M without nextp is to do
    std::atomic<bool> claimable{false};  // awake and on no list: who takes this gives it a P
    bool on_credit = false;              // counted in ncredit
    bool steered = false;                // bound to a CPU until it has woken there
    // What its thread was let go to after that; null: its mask is still the one it was born with.
    std::atomic<const std::vector<int>*> cpus{nullptr};
    std::uint32_t near = 0; // it is to wake there unbound: the CPU and one; 0: anywhere
    std::atomic<std::uint32_t> idlelink{0};
    kernel::RseqArea* own_rseq = nullptr;
    void* sigstack = nullptr;
    void** way_out = nullptr;           // mexit's
    std::atomic<bool> signalled{false}; // a SIGURG that preempt.cpp sent is under way
    // Whether it computes, as preempt.cpp has seen it without a probe: how often it had slept, what
    // CPU time it had used by then, and the first and the last of a row of looks that saw it sleep.
    std::atomic<std::uint64_t> seen_sleeps{~std::uint64_t{0}};
    std::atomic<std::int64_t> seen_cpu_ns{0};
    std::atomic<std::int64_t> seen_first_ns{0};
    std::atomic<std::int64_t> seen_last_ns{0};
    // Of its goroutine, while that waits here for a P: locked to this thread, or preempted.
    std::atomic<const arch::Registers*> stopped_at{nullptr};
#if defined(BATON_TSAN) || defined(BATON_ASAN)
    void* fiber = nullptr;
    const void* stack_bottom = nullptr;
    std::size_t stack_size = 0;
#endif
};

/// What P::attention asks of the M that holds it, at its next pass through the scheduler.
enum Attention : std::uint32_t {
    kAttnStop = 1,    // stop the world
    kAttnPreempt = 2, // the slice of 10 ms is over
    kAttnArm = 4,     // its Gs block unannounced: keep an understudy armed (leave_runtime)
    kAttnRing = 8,    // its ring has requests under way (ring.cpp)
    kAttnTurn = 16,   // other Ps have work and no M: one of them is to have this one's (limits.cpp)
};
/// What the scheduler itself must heed; the rest is for who leaves the runtime.
inline constexpr std::uint32_t kAttnSchedule = kAttnStop | kAttnPreempt | kAttnTurn;
/// What keeps a switch from going straight to the next G.
inline constexpr std::uint32_t kAttnSwitch = kAttnSchedule | kAttnRing;

inline constexpr std::uint32_t kRunqSize = 256;
/// How many armings in vain a handoff is worth.
inline constexpr std::int32_t kArmScore = 16;

/// The stacks that ended goroutines left last, for the next ones (gfree.cpp).
struct StackCache {
    StackSlot* head = nullptr;
    std::uint32_t n = 0;
    std::uint32_t max = 0; // as many are promised to it
    bool asked = false;    // for that
};

struct alignas(64) P {
    std::uint32_t slot = 0; // index in the records, id + 1
    shared::p_rec* rec = nullptr;
    // One up per time slice. relaxed: written by the owner alone; sysmon only wants to see it move.
    std::atomic<std::uint32_t> schedtick{0};
    std::uint32_t polltick = 0;
    // On the ring, from its head on: so many Gs whose stacks have been asked for, and so many
    // behind them that have not run for long either (runq_is_cold). Too many once thieves have been
    // there. Owner only.
    std::uint32_t asked = 0;
    std::uint32_t cold = 0;
    std::int64_t overdue_when = 0; // when who waits in the global queue is to be served next
    std::atomic<std::uint32_t> attention{0};
    // How often in the time slice of this tick an M came back from a call with it. Owner only.
    std::uint32_t returns = 0;
    std::uint32_t returns_tick = 0;
    // On which of the last wakes from idleness it was handed off (arm_after_idle). Owner only.
    std::uint32_t wakes_blocked = 0;
    std::uint64_t wake_handoffs = 0;
    // relaxed everywhere: a guess.
    std::atomic<std::int32_t> armscore{
        kArmScore};              // what arming an understudy has lately been worth
    std::int64_t handoff_ns = 0; // when the M before was blocked; accounted at the next execute
    std::uint64_t goidcache = 0;
    std::uint64_t goidcacheend = 0;
    GList gfree;
    StackCache stackfree;
    // Goroutines born here less those that ended here. relaxed everywhere: the owner alone writes
    // it; a sum over all Ps is exact only while none is owned.
    std::atomic<std::int64_t> ngo{0};
    P* link = nullptr;    // idle list
    Ring* ring = nullptr; // ring.cpp; null until it is used
    // Requests that its ring has and the kernel has not.
    std::atomic<std::uint32_t> unsubmitted{0};
    // Slot of an M that passed this P on and is still awake to see to its queue (locked.cpp); 0.
    std::atomic<std::uint32_t> watcher{0};
    // Slot of an M that looks now and then whether what is readied here also runs; 0. And for how
    // many nobody was woken meanwhile; only the owner writes that (pair.cpp).
    std::atomic<std::uint32_t> pair_watcher{0};
    std::atomic<std::uint32_t> unwoken{0};
    // The ring: the owner writes runqtail, owner and thieves move runqhead by CAS (runq.hpp).
    alignas(64) std::atomic<std::uint32_t> runqhead{0};
    std::atomic<std::uint32_t> runqtail{0};
    std::atomic<G*> runnext{nullptr};
    // The owner has taken Gs that it will put on the ring: till then the queue is not empty.
    std::atomic<bool> moving{false};
    std::atomic<G*> runq[kRunqSize] = {};
    alignas(64) Timers timers;
};

// ---- current ----

/// The M of this thread; only on an M. Never cached across a switch: asm volatile.
inline M* getm() { return arch::gs_self<M>(); }
inline G* getg() { return getm()->curg; }
/// The M of this thread, or null on a thread that is none. Any thread, signal handlers included.
/// Through TLS, as a plain thread's GS base may be anything: it inherits that of its creator.
inline M* getm_or_null() noexcept {
    void* m;
    // volatile: a goroutine changes threads, so the address is computed anew each time.
    asm volatile("movq baton_tls_m@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(m));
    return static_cast<M*>(m);
}
/// The G that waits when this thread does, if it may park here: anywhere but between entersyscall
/// and exitsyscall. There it ends the process with "baton: WHAT ...". Called at the top of each
/// public function that parks.
G* must_park(const char* what);

// ---- park.cpp: parking and readying ----

/// Parks the calling G until goready. `unlockf` runs once the G is off its stack. A plain thread
/// sleeps, and `unlockf` runs on it.
void gopark(UnlockFn unlockf, void* lock, WaitReason reason);
/// The same, unlocking a rt::Lock (lock.hpp) that the caller holds.
class Lock;
void goparkunlock(Lock& lock, WaitReason reason);
/// Makes a parked G runnable on this P, next in line. From a thread without P it goes to the global
/// queue. Wakes the thread if it stands for one. Any thread.
void goready(G* gp);
/// The caller goes to the tail of this P's queue.
void goyield();
/// The caller goes to the tail of the global queue. `hog`: behind who comes later, too.
void gosched(bool hog);

/// The running G ends. True: the next one has been given its stack, to begin on right here. Else it
/// leaves the stack, for good. On its M, in the runtime.
bool goexit1(M* m, G* gp);

// ---- fork.cpp ----
/// How many forks lie between this process and the first.
extern constinit std::uint32_t forks;

// ---- newproc.cpp ----
/// Starts a goroutine that calls entry(p), where *static_cast<void**>(p) is `arg`. False: no memory
/// for its stack. The runtime must have started. Any thread; never parks.
bool newproc(void (*entry)(void*), void* arg) noexcept;
/// What remains of a dead G once it is off its stack.
void goexit0(G* gp, M* m);

// ---- fatal.cpp ----
/// Prints "baton: " and the text, then what BATON_TRACEBACK asks for (crash.hpp), and ends the
/// process with exit code 2. Allocates nothing. Any thread.
[[noreturn]] void fatal(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
/// One line on stderr: "panic: " and the text: a goroutine did what ends the process.
void say_panic(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
/// What was nested in that.
void say_nested_in(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
/// The same with "fatal error: " in front, as the reference has it.
void fatal_error(const char* fmt, ...) __attribute__((format(printf, 1, 2)));
/// Ends the process with exit code 2, or as BATON_TRACEBACK=crash has it.
[[noreturn]] void die();
/// One line on stderr: "baton: ...". Allocates nothing.
void warn(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

/// Starts the runtime on first use. Any thread. Throws std::system_error.
void ensure_started();
/// The process is about to end: the understudies will not keep it. On any thread, in a handler too.
void hurry_end() noexcept;

} // namespace baton::rt
