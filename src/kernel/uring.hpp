// SPDX-License-Identifier: Apache-2.0
//
// One io_uring: its two queues, and the calls that go with them. Made and mapped by liburing, whose
// inline functions fill the entries; entered without it, as its library may touch errno
// (syscall.hpp).
//
// Threads: next, unsubmitted and submit by one at a time; completed and seen by one at a time, who
// need not be the same; the rest by any.
// Invariants: I1 what the kernel accepted completes once, in each_completed: no completion is
// dropped, however many there are (IORING_FEAT_NODROP).
#pragma once

#include <cstdint>

#include <liburing.h>

namespace baton::kernel {

class Uring {
public:
    /// A ring whose completions wake their submitter where it sleeps, but do not interrupt it where
    /// it computes: 0 or -errno. Wants what features().io_uring says.
    [[nodiscard]] int open(unsigned entries, unsigned cq_entries) noexcept;
    /// In a forked child too, where it is the child's share that goes.
    void close() noexcept;
    [[nodiscard]] int fd() const noexcept { return ring_.ring_fd; }

    /// The next entry to fill, cleared; null while all are taken.
    [[nodiscard]] io_uring_sqe* next() noexcept;
    /// How many are filled and not handed to the kernel.
    [[nodiscard]] unsigned unsubmitted() const noexcept;
    /// Hands them over: how many it took, or -errno. Those it did not take stay.
    long submit() noexcept;
    /// Has the kernel let completions collect that it delivers only to who enters?
    [[nodiscard]] bool wants_entering() const noexcept {
        return (IO_URING_READ_ONCE(*ring_.sq.kflags) &
                (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
    }
    /// Enters, for `wait` completions: 0 for none. `ns` < 0 waits for ever. 0 or -errno.
    long enter(unsigned wait, std::int64_t ns) noexcept;

    /// Is there a completion that nobody has taken? Any thread.
    [[nodiscard]] bool has_untaken() const noexcept {
        return IO_URING_READ_ONCE(*ring_.cq.khead) != IO_URING_READ_ONCE(*ring_.cq.ktail);
    }
    /// Or one to be had by entering? Two loads. Any thread.
    [[nodiscard]] bool has_completed() const noexcept { return wants_entering() || has_untaken(); }
    /// visit(cqe) for each that there is.
    template <class Visit>
    void each_completed(Visit visit) noexcept {
        unsigned head = *ring_.cq.khead;
        for (;;) {
            const unsigned tail = io_uring_smp_load_acquire(ring_.cq.ktail);
            if (head == tail) break;
            for (; head != tail; head++) visit(ring_.cq.cqes[head & ring_.cq.ring_mask]);
            io_uring_smp_store_release(ring_.cq.khead, head);
        }
    }
    /// Gives up the request with this user_data as far as it can be. Any thread; it completes all
    /// the same. 0 or -errno.
    long cancel(std::uint64_t user_data) noexcept;
    /// The same of all requests for a descriptor.
    long cancel_fd(int fd) noexcept;
    /// The kernel makes threads for what it cannot do without blocking: so many at most for each
    /// thread that submits.
    void limit_workers(unsigned n) noexcept;

private:
    io_uring ring_{};
};

/// Why this kernel's io_uring is not good enough for the runtime; null: it is. Makes a ring and
/// drops it.
const char* why_no_uring(long* error) noexcept;

} // namespace baton::kernel
