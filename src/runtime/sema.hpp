// SPDX-License-Identifier: Apache-2.0
//
// The table of sleepers (the reference's sema.go): who waits for what lives anywhere, a word of the
// program's, waits here, in a queue found by that address and by what for. An object that can be
// waited for needs no room for its waiters, and may be gone when the last of them is woken: who
// comes late to wake them finds another object's waiters there at most, and only of the same type.
//
// SemaQueue is such a queue, held: while it is, nobody else queues or wakes there. So an object
// that says in its own word that somebody waits changes it in the same critical section as the
// queue; a waiter that gives up leaves both as they would be had it never come. On it stand the
// types of src/sync, and the counting semaphores below, which are the reference's.
//
// Threads: any; in an Entry, but for SemaWait, which opens its own.
// Invariants: I1 a waiter is in its queue until it is taken by who wakes it, or takes itself out
// with the queue held; so until one of the two has had the queue, what it waits for is there still.
// Locks: kSema, a bucket of addresses. Nothing that may take another lock of this rank is called
// with a queue held.
// Ordering: that of the bucket's lock, and of goready. semacquire and semrelease: (A) an acquirer
// counts itself in its bucket, then looks at the count; (B) a releaser raises the count, then looks
// into the bucket. All four are seq_cst (sema.cpp).
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "runtime/entry.hpp"
#include "runtime/limit.hpp"
#include "runtime/runtime.hpp"

namespace baton::rt {

struct SemaRoot;

/// Who waits; on the stack of the parked G. What is not named here is the queue's.
struct SemaWaiter {
    G* g = nullptr;
    std::uint64_t wait = 0;    // 0: nobody but who takes it ends this wait; else to be claimed
    std::uint64_t note = 0;    // what the waiter tells who wakes it
    std::int64_t since_ns = 0; // since when it waits; for those who care
    std::uint64_t ticket = 0;  // what the waker tells it
    const void* addr = nullptr;
    WaitReason what = WaitReason::kNone;
    bool again = false; // it was woken before, in vain
    bool queued = false;
    SemaWaiter* next = nullptr;
    SemaWaiter* prev = nullptr;   // of the first: the last
    SemaWaiter* parent = nullptr; // these in the first only: the tree of queues
    SemaWaiter* left = nullptr;
    SemaWaiter* right = nullptr;
};

/// Those that wait at one address for one thing, first come first served. O(1) each, but O(log n)
/// in the number of queues of its bucket to hold it, and for the only waiter to leave.
class SemaQueue {
public:
    /// Holds it.
    SemaQueue(const void* addr, WaitReason what);
    ~SemaQueue() {
        if (held_) unlock();
    }
    SemaQueue(const SemaQueue&) = delete;
    SemaQueue& operator=(const SemaQueue&) = delete;

    void lock();
    void unlock();
    bool held() const { return held_; }
    bool empty() const { return first_ == nullptr; }
    /// Null if there is none. It may have given up.
    SemaWaiter* first() const { return first_; }
    /// Takes `w` off the queue. False: it has given up. Else it is the caller's to ready, once the
    /// queue is no longer held.
    bool take(SemaWaiter* w);
    /// Takes the first that has not given up; null if there is none.
    SemaWaiter* pop();
    /// At the end, or in front if it has waited before.
    void push(SemaWaiter& w, bool lifo = false);
    void remove(SemaWaiter& w);
    /// Parks the caller, whose waiter `w` is queued. Afterwards the queue is not held.
    void park(SemaWaiter& w) { park(w, what_); }
    void park(SemaWaiter& w, WaitReason reason);

private:
    SemaRoot& root_;
    const void* addr_;
    WaitReason what_;
    SemaWaiter* first_ = nullptr;
    bool held_ = false;
};

/// One wait of the caller's at `addr` for `what`, limited by `*until` unless that is null. Made
/// in G code, outside rt locks; holds the queue from the start. As Limit, throws where a plain
/// thread cannot start the runtime; not if limits_work() was called before.
class SemaWait {
public:
    SemaWait(const void* addr, WaitReason what, const Until* until);
    ~SemaWait() = default;
    SemaWait(const SemaWait&) = delete;
    SemaWait& operator=(const SemaWait&) = delete;

    SemaQueue& queue() { return queue_; }
    /// Its note and since_ns are to be set before park, its ticket is there after it.
    SemaWaiter& waiter() { return waiter_; }
    /// Queues and parks. True: woken. False: given up, as end() says; the waiter is off the queue,
    /// and the queue is held.
    bool park(bool lifo = false);
    /// The same with a waiter that is queued already, and that nobody claims before; if it gives up
    /// it stays queued.
    bool park_queued(SemaWaiter& w);
    detail::WaitEnd end() const { return end_; }

private:
    detail::WaitEnd end_ = detail::WaitEnd::kDone;
    std::optional<Limit> limit_; // outlives the Entry: std::stop_callback's end may wait
    Entry entry_;
    struct Armed {
        explicit Armed(Limit* l) : limit(l) {
            if (limit) limit->arm();
        }
        ~Armed() {
            if (limit) limit->disarm();
        }
        Armed(const Armed&) = delete;
        Armed& operator=(const Armed&) = delete;
        Limit* limit;
    } armed_;
    SemaQueue queue_; // after armed_: timers come with no lock held
    SemaWaiter waiter_;
};

/// Starts the runtime if a wait of the caller's needs it for `until`. Throws std::system_error.
void limits_work(const Until* until);

/// The waiter has been taken and its queue let go.
inline void ready(SemaWaiter* w) { goready(w->g); }
/// The same for a waiter that must go on at once: the caller goes behind it.
void hand_over(SemaWaiter* w);
/// Readies all of `woken`, which were taken.
void ready_all(GQueue& woken);

/// Waits until *addr > 0 and takes one off. `lifo` queues at the front (a woken waiter that lost).
/// Where must_park allows it.
void semacquire(std::atomic<std::uint32_t>* addr, bool lifo, WaitReason reason);
/// The same, given up when `*until` is over, unless that is null: then nothing was taken. As
/// SemaWait, outside an Entry.
detail::WaitEnd semacquire(std::atomic<std::uint32_t>* addr, const Until* until, WaitReason reason);
/// Adds one to *addr and wakes one waiter. `handoff` gives it to that waiter directly and yields.
/// *addr itself may be gone as soon as the one added has been taken. Any thread.
void semrelease(std::atomic<std::uint32_t>* addr, bool handoff = false);

/// In a forked child: nobody waits.
void sema_forget();

/// Is spinning for a lock worth a try, for the i-th time: is its holder likely to be running, and
/// nobody kept from running by us?
[[nodiscard]] bool can_spin(int i) noexcept;
/// Some tenths of a microsecond of pauses.
void spin() noexcept;

} // namespace baton::rt
