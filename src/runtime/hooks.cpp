// SPDX-License-Identifier: Apache-2.0
//
// What libbaton_preload.so is told and may ask (hooks_v1.h).
//
// The library finds no runtime of its own accord: a program may have it from libbaton.a, where it
// exports nothing, or from libbaton.so. So the runtime looks for the library instead.
//
// A descriptor is waited for by one goroutine for each direction; others that want it queue behind
// that one. Who has waited hands the turn on, to somebody who registers the descriptor anew and so
// learns at once if it is ready still: nobody has to know whether the one woken before made use of
// it. Nothing here is told of descriptors that are closed, so each wait registers anew
// (poll_rearm), a system call of 0.2 us. What a PollDesc is told too much costs an attempt in vain.
//
// Rejected: a registration kept while the library's close hook is not called. libc closes
// descriptors itself (fclose, the resolver), and system calls made inline are seen by nobody: a
// goroutine would wait for ever on what its number once stood for.
#include "runtime/hooks_v1.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <new>

#include <dlfcn.h>
#include <liburing.h>

#include "baton/hooks.hpp"
#include "baton/run.hpp"
#include "baton/time.hpp"
#include "runtime/file_calls.hpp"
#include "runtime/netpoll_any.hpp"
#include "runtime/ring.hpp"
#include "runtime/sched.hpp"
#include "runtime/sema.hpp"

namespace baton::rt {

namespace {

using Word = std::atomic_ref<std::uint32_t>;

std::atomic<bool> attached{false};

Until until_ns(std::int64_t when_ns) {
    using std::chrono::steady_clock;
    if (when_ns == Until::kNever) return {};
    return steady_clock::time_point(std::chrono::nanoseconds(when_ns));
}

baton_place place() {
    M* m = getm_or_null();
    if (!m || !m->curg) return BATON_ELSEWHERE;
    const bool bracket = in_bracket(m);
    if (!bracket && !in_gcode(m)) return BATON_ELSEWHERE;
    const auto sp = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const G* gp = m->curg;
    if (sp < reinterpret_cast<std::uintptr_t>(gp->stack_lo) ||
        sp >= reinterpret_cast<std::uintptr_t>(gp->stack))
        return BATON_ELSEWHERE;
    return bracket ? BATON_IN_BRACKET : BATON_MAY_PARK;
}

// ---- waits at an address ----

int park(const void* addr, int (*still)(void*), void* arg, std::int64_t deadline) {
    const Until until = until_ns(deadline);
    SemaWait turn(addr, WaitReason::kLibcWait, deadline == Until::kNever ? nullptr : &until);
    if (!still(arg)) return EAGAIN;
    return turn.park() ? 0 : ETIMEDOUT;
}

int wake(const void* addr, int most) {
    GQueue woken;
    int n = 0;
    Entry entry;
    {
        SemaQueue queue(addr, WaitReason::kLibcWait);
        while (n < most) {
            SemaWaiter* w = queue.pop();
            if (!w) break;
            woken.push_back(w->g);
            n++;
        }
    }
    ready_all(woken);
    return n;
}

// ---- descriptors ----

constexpr std::uint32_t kFree = 0, kTaken = 1, kQueued = 2;

/// The right to wait for one direction of a descriptor.
class Turn {
public:
    Turn(baton_fd_slot* slot, bool for_write) : word_(for_write ? slot->writer : slot->reader) {}
    bool try_take() {
        std::uint32_t free = kFree;
        // acquire: pairs with give's release. relaxed on failure: nothing is had.
        return Word(word_).compare_exchange_strong(free, kTaken, std::memory_order_acquire,
                                                   std::memory_order_relaxed);
    }
    /// False past the deadline.
    bool take(std::int64_t deadline) {
        if (try_take()) return true;
        const Until until = until_ns(deadline);
        SemaWait wait(&word_, WaitReason::kIoWait, deadline == Until::kNever ? nullptr : &until);
        for (std::uint32_t seen = kTaken;;) {
            // Changed from kQueued with the queue held only. acquire: as above.
            const std::uint32_t wanted = seen == kFree ? kTaken : kQueued;
            if (!Word(word_).compare_exchange_weak(seen, wanted, std::memory_order_acquire,
                                                   std::memory_order_relaxed)) // relaxed: as above
                continue;
            if (seen == kFree) return true;
            return wait.park(); // what wakes it gives it the turn
        }
    }
    void give() {
        std::uint32_t alone = kTaken;
        // release: pairs with take's acquire. relaxed on failure: the queue's lock orders it.
        if (Word(word_).compare_exchange_strong(alone, kFree, std::memory_order_release,
                                                std::memory_order_relaxed))
            return;
        Entry entry;
        SemaWaiter* next = nullptr;
        {
            SemaQueue queue(&word_, WaitReason::kIoWait);
            next = queue.pop();
            const std::uint32_t left = !next ? kFree : queue.empty() ? kTaken : kQueued;
            Word(word_).store(left, std::memory_order_release); // release: pairs with take
        }
        if (next) ready(next);
    }

private:
    std::uint32_t& word_;
};

// The slot's PollDesc, made at the first wait. Null: *err, or 0 if another is making it just now.
PollDesc* desc_of_slot(baton_fd_slot* slot, int fd, int* err) {
    std::atomic_ref pd(slot->pd);
    // acquire: pairs with the release below.
    if (void* there = pd.load(std::memory_order_acquire)) return static_cast<PollDesc*>(there);
    *err = 0;
    // acq_rel: with the store below. What fails is tried again.
    if (Word(slot->opening).exchange(1, std::memory_order_acq_rel) != 0) return nullptr;
    auto* made = static_cast<PollDesc*>(pd.load(std::memory_order_acquire)); // acquire: as above
    if (!made) {
        made = poll_open(fd, err, false);
        pd.store(made, std::memory_order_release); // release: who finds it finds it made
    }
    Word(slot->opening).store(0, std::memory_order_release); // release: as above
    return made;
}

// Clears what a deadline or an eviction of before left.
void set_deadline(PollDesc* pd, PollMode mode, std::int64_t deadline) {
    const bool read = mode == PollMode::kRead;
    if (deadline != Until::kNever) {
        poll_set_deadline(pd, std::max<std::int64_t>(deadline, 1), read, !read);
    } else if (poll_reset(pd, mode) != 0) {
        poll_set_deadline(pd, 0, read, !read);
    }
}

bool is_closed(baton_fd_slot* slot, std::uint32_t gen) {
    // seq_cst: with fd_evict. It changes gen, then ends the wait by a deadline, which set_deadline
    // may just have taken back.
    return Word(slot->gen).load(std::memory_order_seq_cst) != gen;
}

/// The caller has the turn. 0: *ask is told of it from here on, until poll_disarm.
int arm(const baton_fd_ask& a, std::int64_t deadline, PollAsk* ask) {
    if (poll_is_own(a.fd)) return ENOTSUP; // a baton::Conn's, say: it would hear no more of it
    int err = 0;
    PollDesc* pd = desc_of_slot(a.slot, a.fd, &err);
    if (!pd) return err != 0 ? err : EBUSY; // another goroutine makes it, for the other direction
    const PollMode mode = a.for_write ? PollMode::kWrite : PollMode::kRead;
    *ask = {pd, mode};
    set_deadline(pd, mode, deadline);
    if (is_closed(a.slot, a.gen)) return EBADF;
    err = poll_reset(pd, mode);
    return err != 0 ? err : poll_rearm(pd, mode);
}

int wait_ready(const baton_fd_ask& a, std::int64_t deadline) {
    PollAsk ask{};
    int err = arm(a, deadline, &ask);
    if (err == EBUSY) {
        yield();
        return 0;
    }
    if (err == 0) {
        err = poll_wait(ask.pd, ask.mode);
        poll_disarm(ask.pd, ask.mode);
    }
    if (ask.pd && deadline != Until::kNever)
        poll_set_deadline(ask.pd, 0, !a.for_write, a.for_write);
    return is_closed(a.slot, a.gen) ? EBADF : err;
}

int fd_wait(baton_fd_slot* slot, int fd, int for_write, std::int64_t deadline, std::uint32_t gen) {
    if (!poll_rearms()) return ENOTSUP;
    Turn turn(slot, for_write);
    if (!turn.take(deadline)) return ETIMEDOUT;
    const int err = wait_ready({slot, fd, for_write, gen}, deadline);
    turn.give();
    return err;
}

// Turns are not waited for: who has one may wait for this goroutine to do something.
int fd_wait_any(const baton_fd_ask* asks, unsigned n, std::int64_t deadline) {
    if (!poll_rearms() || n > BATON_ASKS_MOST) return ENOTSUP;
    PollAsk armed[BATON_ASKS_MOST] = {};
    unsigned taken = 0, ready = 0;
    int err = 0;
    while (taken < n && Turn(asks[taken].slot, asks[taken].for_write).try_take()) taken++;
    if (taken < n) err = EBUSY;
    while (err == 0 && ready < n) {
        err = arm(asks[ready], Until::kNever, &armed[ready]);
        if (err == 0) ready++;
    }
    if (err == 0) err = poll_wait_any(armed, n, deadline);
    for (unsigned i = 0; i < ready; i++) poll_disarm(armed[i].pd, armed[i].mode);
    for (unsigned i = 0; i < taken; i++) {
        if (is_closed(asks[i].slot, asks[i].gen)) err = EBADF;
        Turn(asks[i].slot, asks[i].for_write).give();
    }
    return err;
}

void fd_evict(baton_fd_slot* slot) {
    // acquire: pairs with the release in desc_of_slot.
    void* pd = std::atomic_ref(slot->pd).load(std::memory_order_acquire);
    if (pd) poll_set_deadline(static_cast<PollDesc*>(pd), 1, true, true); // long past
}

void fd_forget(baton_fd_slot* slot) {
    if (slot->pd) poll_close(static_cast<PollDesc*>(slot->pd));
    *slot = {};
}

void sleep_until(std::int64_t when_ns) { detail::sleep_until_ns(when_ns); }
void yield_to_others() { yield(); }

// ---- rings and turns ----

static_assert(BATON_NO_RING == kNoRing && BATON_GIVEN_UP == kGivenUp);
static_assert(sizeof(FileCall) <= sizeof(baton_file_call));

struct Connect {
    int fd;
    const sockaddr* to;
    socklen_t len;
};
void fill_connect(io_uring_sqe* sqe, const void* arg) {
    const auto* c = static_cast<const Connect*>(arg);
    io_uring_prep_connect(sqe, c->fd, c->to, c->len);
}
long ring_connect(int fd, const void* to, std::uint32_t len, std::int64_t deadline) {
    const Connect c{fd, static_cast<const sockaddr*>(to), len};
    return ring_call(fill_connect, &c, until_ns(deadline));
}

struct Read {
    int fd;
    const iovec* iov;
    int n;
    std::int64_t at;
};
void fill_read(io_uring_sqe* sqe, const void* arg) {
    const auto* r = static_cast<const Read*>(arg);
    io_uring_prep_readv(sqe, r->fd, r->iov, static_cast<unsigned>(r->n),
                        static_cast<std::uint64_t>(r->at));
}
long ring_read(int fd, const iovec* iov, int n, std::int64_t at) {
    const Read r{fd, iov, n, at};
    return ring_call(fill_read, &r, {});
}

void file_enter(baton_file_call* call, int in_turn) {
    new (call) FileCall(in_turn ? FileCall::Turn::kOne : FileCall::Turn::kNone);
}
void file_leave(baton_file_call* call) { reinterpret_cast<FileCall*>(call)->~FileCall(); }
// Who is told no takes a turn right away; as many as there are Ps may be told so at once.
int file_busy() { return file_calls_now() * 2 + procs() >= file_threads(); }

// How far from the thread pointer this thread's, and so every thread's, baton_tls_m lies.
long m_offset() {
    long offset;
    asm("movq baton_tls_m@gottpoff(%%rip), %0" : "=r"(offset));
    return offset;
}

baton_hooks_v1 table{
    .size = sizeof(baton_hooks_v1),
    .m_offset = 0,
    .place = place,
    .goid = goid,
    .enter = detail::entersyscall,
    .leave = detail::exitsyscall,
    .pin = lock_os_thread,
    .unpin = unlock_os_thread,
    .sleep_until = sleep_until,
    .yield = yield_to_others,
    .fd_wait = fd_wait,
    .fd_wait_any = fd_wait_any,
    .park = park,
    .ring_connect = ring_connect,
    .ring_read = ring_read,
    .file_enter = file_enter,
    .file_leave = file_leave,
    .wake = wake,
    .file_busy = file_busy,
    .ring_cancel = rings_cancel_fd,
    .fd_evict = fd_evict,
    .fd_forget = fd_forget,
};

} // namespace

void attach_hooks() {
    auto* attach = reinterpret_cast<decltype(&baton_preload_attach_v1)>(
        ::dlsym(RTLD_DEFAULT, "baton_preload_attach_v1"));
    table.m_offset = m_offset();
    attached.store(attach && attach(&table) == 0, kSeqCst);
}

} // namespace baton::rt

namespace baton {

bool hooks_active() noexcept { return rt::attached.load(rt::kSeqCst); }

} // namespace baton
