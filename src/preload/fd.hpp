// SPDX-License-Identifier: Apache-2.0
//
// What is known of a descriptor by its number: a guess at its kind, and where goroutines wait for
// it. Both may be out of date, as closes happen unseen (libc's own, inline system calls), and
// neither has to be right:
//
//   kind         what it leads to                       if the number is another thing's by now
//   kSocket      recv and send with MSG_DONTWAIT        ENOTSOCK: asked anew
//   kStream      preadv2, pwritev2 with RWF_NOWAIT      right for all; a file's EAGAIN: EPERM from
//                                                       the poller, and it is a file
//   kPollable    poll, then the call in a bracket       right for all
//   kFile        the call in a bracket                  right for all, at the cost of a thread
//
// Whether a call may wait at all is asked of the kernel (O_NONBLOCK may be changed by another
// process), once an attempt has found nothing. Waiting registers the descriptor anew each time
// (runtime/hooks.cpp).
//
// Of closes that are seen, each makes a new generation, and who waits for the old one gets EBADF
// and never tries again: the number may be another thing's.
#pragma once

#include "preload/preload.hpp"

namespace baton::preload {

enum class Kind : std::uint32_t { kUnknown, kSocket, kStream, kPollable, kFile };

struct Descriptor {
    baton_fd_slot slot;
    std::atomic<Kind> kind;
    std::atomic<std::uint32_t> in_ring; // connects that a ring has
};

/// Null: a number too large, or no memory for the table. Then the call blocks its thread.
Descriptor* descriptor_of(int fd);
/// The same, of those that are in the table already.
Descriptor* known_descriptor(int fd);
/// Its kind, found out if need be; -errno in *err if there is no such descriptor.
Kind kind_of(Descriptor* d, int fd, long* err);
/// fd is about to be closed: who waits for it is woken.
void closing(int fd);
void closing_range(unsigned first, unsigned last);
/// Before the first goroutine.
void note_process();
/// In a forked child.
void forget_descriptors();

/// So many looks in a row may find nothing before a read blocks its thread, and a poll pauses.
inline constexpr int kVainMost = 16;

/// Has anybody set a timeout on a socket? Until then none needs to be asked for.
extern std::atomic<bool> timeouts_used;

/// One call that may wait for a descriptor, from its first attempt to its last.
class Wait {
public:
    /// `flags`: what the call was given; with MSG_DONTWAIT it never waits.
    Wait(Descriptor* d, int fd, bool for_write, int flags = 0)
        : d_(d), fd_(fd), write_(for_write), never_(flags & MSG_DONTWAIT) {}
    enum class Next {
        kTryAgain,
        kGiveUp, // the call returns what it has, or error()
        kBlock   // it cannot be waited for: the call is to block its thread
    };
    /// False: the program does not wish to wait. What comes after it happens to what the
    /// descriptor is now.
    bool may_wait();
    /// The attempt has said EAGAIN. Parks.
    Next operator()();
    int error() const { return error_; }
    /// By the socket's timeout, once it may wait.
    std::int64_t deadline() const { return deadline_; }
    /// Has it been closed since?
    bool is_closed() const;
    /// Is it, or would it be, the program's wish not to wait?
    bool nonblocking();
    /// Gives up then, too.
    void set_deadline(std::int64_t deadline) { deadline_ = deadline; }

private:
    void begin();

    Descriptor* d_;
    int fd_;
    bool write_;
    bool never_;
    bool begun_ = false;
    int error_ = EAGAIN;
    int vain_ = 0;
    std::uint32_t gen_ = 0;
    std::int64_t deadline_ = kNever;
};

/// A wait until fd is ready, or the deadline.
class Readiness {
public:
    Readiness(int fd, bool for_write, std::int64_t deadline)
        : d_(descriptor_of(fd)), fd_(fd), write_(for_write), deadline_(deadline) {
        // seq_cst: with evict.
        if (d_) gen_ = std::atomic_ref(d_->slot.gen).load(std::memory_order_seq_cst);
    }
    /// Parks. 0, ETIMEDOUT, EBADF, or what keeps it from being waited for.
    int operator()() { return d_ ? rt->fd_wait(&d_->slot, fd_, write_, deadline_, gen_) : EMFILE; }

private:
    Descriptor* d_;
    int fd_;
    bool write_;
    std::int64_t deadline_;
    std::uint32_t gen_ = 0;
};

/// Is there news, by poll?
inline bool is_ready(int fd, short events) {
    pollfd pfd{fd, events, 0};
    return raw_syscall(SYS_poll, &pfd, 1, 0) != 0;
}

/// Is it a terminal whose reads of `n` bytes end without poll's news: after some time (VMIN is 0),
/// or with less than poll waits for (VMIN is more)?
bool ends_unready(int fd, std::size_t n);

/// A descriptor of our own, which tells that a child or a thread has ended.
class PidFd {
public:
    PidFd(int pid, unsigned flags)
        : fd_(pid > 0 ? static_cast<int>(raw_syscall(SYS_pidfd_open, pid, flags)) : -1) {}
    ~PidFd() {
        if (fd_ < 0) return;
        closing(fd_);
        (void)raw_syscall(SYS_close, fd_);
    }
    PidFd(const PidFd&) = delete;
    PidFd& operator=(const PidFd&) = delete;
    bool ok() const { return fd_ >= 0; }
    int fd() const { return fd_; }

private:
    int fd_;
};

} // namespace baton::preload
