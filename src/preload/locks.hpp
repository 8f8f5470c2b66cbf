// SPDX-License-Identifier: Apache-2.0
//
// Locks of libc that goroutines wait for and own. The objects stay libc's, laid out and used as
// libc does, so that plain threads go by libc's code, and a lock taken one way may be waited for,
// and given up, the other way.
//
// A mutex that a goroutine locked names it as its owner: kMark and its number, which is no
// thread's. A goroutine that finds it locked looks at that:
//
//   owner is marked        it parks; who unlocks a marked mutex does so in unlock_marked, whatever
//                          thread it is, and wakes one that is parked
//   owner is a thread's    it blocks its thread on the futex, announced, as libc does (the word is
//                          2): every unlock, libc's too, wakes one of those
//   not known yet          it looks again after a moment, a few times, and then blocks
//
// So an unlock by libc needs no hook, which matters: pthread_cond_wait makes one where none can be
// called. It never leaves a parked goroutine behind that nobody will wake: when a marked mutex was
// unlocked one of those parked was woken, and is either about to get the mutex, or blocked behind
// the thread that was faster, or parked behind another marked owner; whoever of them gets it wakes
// the next.
//
//     parker                                  who unlocks a marked mutex
//     (A) waiting += 1                        (B) owner = 0; word = 0
//     (A) still locked, owner marked? parks   (B) waiting? wakes one
//
// seq_cst on both sides, or both could miss the other. The waiters are counted by a hash of the
// address: of another object's too many are woken, or rather looked for.
//
// Robust, PI, priority-protected and process-shared mutexes are the kernel's or another process's
// business: their owner is the thread, to which the goroutine stays locked for as long.
#pragma once

#include "preload/preload.hpp"

namespace baton::preload {

class Waiters {
public:
    std::atomic<std::uint32_t>& of(const void* object) {
        const auto at = reinterpret_cast<std::uintptr_t>(object) >> 3;
        return counts_[at * 0x9e3779b97f4a7c15 >> 56];
    }
    /// Does anybody wait there, or at an address like it?
    bool any(const void* object) { return of(object).load(std::memory_order_seq_cst) != 0; }

private:
    std::atomic<std::uint32_t> counts_[256];
};

/// Parks at `object` until `done` holds, which is asked before each sleep; 0 or ETIMEDOUT. `done`
/// may not park, and is asked with a lock of the runtime's held.
template <class Done>
int park_until(Waiters& waiters, const void* object, std::int64_t deadline, Done done) {
    struct Asked {
        Done& done;
        bool is_done;
    } asked{done, false};
    const auto still = [](void* arg) {
        auto* a = static_cast<Asked*>(arg);
        return a->is_done = a->done(), a->is_done ? 0 : 1;
    };
    waiters.of(object).fetch_add(1, std::memory_order_seq_cst); // (A)
    int rc;
    do {
        rc = rt->park(object, still, &asked, deadline);
    } while (rc == 0 && !asked.is_done);
    // relaxed: it costs others a look.
    waiters.of(object).fetch_sub(1, std::memory_order_relaxed);
    return asked.is_done ? 0 : rc;
}

inline constexpr int kMark = 0x40000000;
inline bool is_marked(int owner) { return (owner & kMark) != 0; }
/// Of the goroutine that calls.
inline int own_mark() { return kMark | static_cast<int>(rt->goid() & (kMark - 1)); }

/// The deadline of a point in time on another clock, as of now; false: the time is none.
[[nodiscard]] bool deadline_at(clockid_t clock, const timespec* t, std::int64_t* deadline);

/// As the calling goroutine, whether it may park or not. 0 or an errno.
int lock_mutex(pthread_mutex_t* m, std::int64_t deadline);
int unlock_mutex(pthread_mutex_t* m);
/// Is it of a kind whose owner is the thread?
bool is_threads(const pthread_mutex_t* m);
/// The mutex that a goroutine owns is the thread's, for libc to handle, and the goroutine's again.
bool lend(pthread_mutex_t* m);
void take_back(pthread_mutex_t* m);

/// Before and after a fork: the child's one thread owns what the goroutine that forked did.
void note_forker();
void inherit_locks();

/// What the word of a pthread_once_t is while its function runs, in this process.
void note_fork_generation();
/// When the runtime announces itself: what libc's barriers look like.
void note_barriers();

/// This thread's number, as libc's own; and in a forked child it is another.
int own_tid();
void forget_tid();
/// An errno as C11 has it.
int thrd_result(int err);

} // namespace baton::preload
