// SPDX-License-Identifier: Apache-2.0
//
// ParkFd: a non-blocking descriptor on the netpoller: what sockets, pipes and the like are made of
// (the reference's internal/poll.FD).
//
// Threads: any; everything but close and the questions may park.
// Invariants: I1 no system call is made on the descriptor once it may be closed (FdMutex I1).
// Results are errno values, 0 for success: nothing here reads errno, as a G changes threads.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <system_error>
#include <utility>

#include "baton/until.hpp"
#include "io/fdmutex.hpp"
#include "runtime/poll_limit.hpp"

namespace baton::detail {

/// How much was done, and the errno that ended it.
struct IoResult {
    std::size_t n = 0;
    int err = 0;
};

/// The error_code of an errno value; none for 0.
inline std::error_code error_of(int err) { return {err, std::generic_category()}; }

/// A descriptor that is closed unless released.
class OwnedFd {
public:
    explicit OwnedFd(int fd) : fd_(fd) {}
    OwnedFd(const OwnedFd&) = delete;
    OwnedFd& operator=(const OwnedFd&) = delete;
    ~OwnedFd();
    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    /// For one that holds nothing yet.
    void hold(int fd) { fd_ = fd; }

private:
    int fd_;
};

class ParkFd {
public:
    using Side = FdMutex::Side;

    /// Registers a non-blocking descriptor with the netpoller, starting the runtime if need be:
    /// makes a T(number, PollDesc, args...). On failure null and *err, and `fd` keeps it.
    template <class T, class... Args>
    static std::unique_ptr<T> adopt(OwnedFd& fd, int* err, Args... args) {
        rt::PollDesc* pd = open(fd.get(), err);
        if (!pd) return nullptr;
        std::unique_ptr<T> made(new (std::nothrow) T(fd.get(), pd, args...));
        if (made) {
            fd.release();
        } else {
            abandon(pd);
            *err = ENOMEM;
        }
        return made;
    }
    ParkFd(int fd, rt::PollDesc* pd) : sysfd_(fd), pd_(pd) {}
    ParkFd(const ParkFd&) = delete;
    ParkFd& operator=(const ParkFd&) = delete;
    ~ParkFd();

    void close() noexcept;
    /// Gives the descriptor up, open. EBUSY while a call on it is under way, EBADF once closed.
    int release(int* fd) noexcept;
    /// -1 once closed.
    int fd() const noexcept { return mu_.closed() ? -1 : sysfd_; }

    /// Deadlines for all calls of a side; 0 clears.
    int set_deadline(std::int64_t when_ns, bool read, bool write);
    /// Parks until the descriptor is readable or writable, as poll(2) says.
    int wait_ready(Side side, const Until* until);
    IoResult read(std::byte* buf, std::size_t size, const Until* until);
    IoResult write(const std::byte* buf, std::size_t size, const Until* until);

    /// Calls `attempt` on one side of the descriptor, again whenever it is ready until it answers
    /// something else than -EAGAIN. Its result, an errno as -errno.
    template <class Attempt>
    long on_side(Side side, const Until* until, Attempt attempt) {
        const Turn turn(*this, side, until);
        if (turn.err != 0) return -turn.err;
        return retry(side, until, attempt);
    }
    /// One call that does not wait: -errno.
    template <class Call>
    long call(Call f) {
        if (!mu_.ref()) return -EBADF;
        const long rc = f(sysfd_);
        if (mu_.unref()) destroy();
        return rc;
    }

protected:
    static rt::PollMode mode(Side side) {
        return side == Side::kRead ? rt::PollMode::kRead : rt::PollMode::kWrite;
    }
    int wait(Side side, const Until* until) { return rt::poll_wait(pd_, mode(side), until); }

    /// One side, for a scope; the last one out closes.
    struct Turn {
        Turn(ParkFd& f, Side s, const Until* until) : fd(f), side(s), err(f.mu_.enter(s, until)) {}
        ~Turn() {
            if (err == 0 && fd.mu_.leave(side)) fd.destroy();
        }
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        ParkFd& fd;
        const Side side;
        const int err;
    };

    template <class Attempt>
    long retry(Side side, const Until* until, Attempt attempt) {
        // Reset before the attempt, never between it and the wait: an edge that came before told of
        // what the attempt finds, one that comes after stays.
        int err = rt::poll_reset(pd_, mode(side));
        while (err == 0) {
            const long rc = attempt(sysfd_);
            if (rc == -EAGAIN) {
                err = wait(side, until);
            } else if (rc != -EINTR) {
                return rc;
            }
        }
        return -err;
    }

    /// Marks it closed; the caller then calls end_close. False if it was before.
    bool begin_close() noexcept;
    void end_close() noexcept;

    /// Even if it is closed: inside a Turn.
    int sysfd() const { return sysfd_; }
    rt::PollDesc* desc() const { return pd_; }

private:
    static rt::PollDesc* open(int fd, int* err);
    static void abandon(rt::PollDesc* pd);
    void destroy() noexcept;

    FdMutex mu_;
    const int sysfd_;
    rt::PollDesc* const pd_;
};

} // namespace baton::detail
