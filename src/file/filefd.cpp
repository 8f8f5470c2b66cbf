// SPDX-License-Identifier: Apache-2.0
//
// Which way a read or write goes, by what the bare calls cost (4 KiB, in the cache, Linux 6.18):
//
//   a read of what is in the page cache       preadv2 with RWF_NOWAIT: 0.25 us; a ring takes 0.37,
//                                             and the G parks, and others run before it does
//   any other read, writes past the cache,    the ring; without one a bracketed call
//   streams
//   a write to the page cache                 a bracketed call: it is a copy, and where the kernel
//                                             does not want to do that at once it would hand the
//                                             request to a thread of its own
//   what moves a file's position              a bracketed call: with a ring's requests the kernel
//                                             guards it against no other call, and of those past
//                                             the cache it moves it for none that waits
//   opening, syncing, naming (file.cpp)       a bracketed call, for the same reason
//
// The calls that a ring could make as well, by a bracketed call / by the ring, ext4 on a virtual
// disk with 2 CPUs (medians of three runs; requests of 4 KiB, each G on a file of its own):
//
//                       one G: us          64 Gs: thousand/s    threads then
//     fsync, dirty      48 / 62            19 / 22              43 / 57
//     fdatasync         58 / 76            38 / 29              44 / 57
//     write, O_SYNC     60 / 78            38 / 27              47 / 53
//     fallocate, punch  9.0 / 27           49 / 37              43 / 118
//     splice to a pipe  1.3 / 7.7          492 / 169            15 / 15
//     statx             0.9 / 7.8          949 / 188            20 / 16
//     rename            7.8 / 15           43 / 4.4             41 / 57
//     mkdir and rmdir   49 / 71            2.0 / 5.4            74 / 49
//     write, O_DIRECT | O_DSYNC: the ring   36 / 53             45 / 14
//
// What the kernel cannot do without blocking it gives to a thread of its own, so many for each
// thread of ours that submits: no fewer than BATON_FILE_THREADS keeps, and not bounded in all.
#include "file/filefd.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>

#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/stat.h>

#include "baton/run.hpp"
#include "baton/time.hpp"
#include "file/call.hpp"
#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/limit.hpp"
#include "runtime/ring.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

constexpr std::size_t kTransferMax = 1 << 30;
constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kLookNs = 5'000'000;
constexpr int kWary = 64;
constexpr auto kCloseLook = std::chrono::milliseconds(1);

struct Transfer {
    int fd;
    bool write;
    std::span<const iovec> bufs;
    std::int64_t offset;
};

void fill(io_uring_sqe* sqe, const void* arg) {
    const auto* t = static_cast<const Transfer*>(arg);
    const auto at = static_cast<std::uint64_t>(t->offset);
    const auto n = static_cast<unsigned>(t->bufs.size());
    if (n == 1) { // spares the kernel the copy of a list
        const iovec& b = t->bufs[0];
        io_uring_prep_rw(t->write ? IORING_OP_WRITE : IORING_OP_READ, sqe, t->fd, b.iov_base,
                         static_cast<unsigned>(b.iov_len), at);
    } else {
        io_uring_prep_rw(t->write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, t->fd, t->bufs.data(),
                         n, at);
    }
}

long vector_call(const Transfer& t, int flags) {
    return raw_syscall(t.write ? __NR_pwritev2 : __NR_preadv2, t.fd, t.bufs.data(), t.bufs.size(),
                       t.offset, t.offset >> 32 >> 32, flags);
}

} // namespace

FileFd::FileFd(int fd) noexcept : wary_(kWary), fd_(fd), kind_(Kind::kStream) {
    struct stat st;
    if (raw_syscall(__NR_fstat, fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
        return;
    const long flags = raw_syscall(__NR_fcntl, fd, F_GETFL, 0);
    kind_ = flags >= 0 && (flags & O_DIRECT) != 0 ? Kind::kDirect : Kind::kCached;
}

FileFd::~FileFd() {
    close();
    if (mu_.in_use())
        rt::fatal("a baton::File (descriptor %d) was destroyed while a goroutine is in a call on "
                  "it: close it and wait for the goroutine first",
                  fd_);
}

void FileFd::leave() noexcept {
    if (mu_.unref() && fd_ >= 0) (void)file_call(__NR_close, fd_);
}

void FileFd::close() noexcept {
    if (!mu_.close()) return;
    // Who waits for a stream may wait for ever. A request that the kernel was not yet given when we
    // had it give up all there are is found by a later look.
    while (kind_ == Kind::kStream && calls_.load(std::memory_order_seq_cst) != 0) {
        rt::rings_cancel_fd(fd_);
        if (calls_.load(std::memory_order_seq_cst) != 0) sleep_for(kCloseLook);
    }
    leave();
}

int FileFd::release() noexcept {
    const int fd = fd_;
    fd_ = -1;
    return mu_.closed() ? -1 : fd;
}

long FileFd::await_stream(Way way, const Until& until) {
    pollfd pfd{fd_, static_cast<short>(way == Way::kRead ? POLLIN : POLLOUT), 0};
    for (;;) {
        const timespec ts{0, kLookNs};
        const long n = raw_syscall(__NR_ppoll, &pfd, 1, &ts, nullptr, 0);
        if (n > 0 || (n < 0 && n != -EINTR)) return 0; // the call itself will tell
        if (mu_.closed()) return -EBADF;
        if (const WaitEnd end = rt::over(until); end != WaitEnd::kDone)
            return -wait_error(end).value();
    }
}

// Announced. For a stream, which may never be ready, in small steps.
long FileFd::by_call(Way way, std::span<const iovec> bufs, std::int64_t offset,
                     const Until& until) {
    Transfer t{fd_, way == Way::kWrite, bufs, offset};
    // What a pipe that can be written to takes without blocking.
    const iovec some{bufs[0].iov_base, std::min<std::size_t>(bufs[0].iov_len, PIPE_BUF)};
    if (kind_ == Kind::kStream && t.write) t.bufs = {&some, 1};
    using Turn = rt::FileCall::Turn;
    const rt::FileCall call(kind_ == Kind::kStream ? Turn::kNone : Turn::kOne);
    for (;;) {
        if (kind_ == Kind::kStream) {
            if (const long rc = await_stream(way, until); rc < 0) return rc;
        }
        const long n = vector_call(t, 0);
        if (n == -EAGAIN && kind_ == Kind::kStream) continue; // somebody was quicker
        if (n != -EINTR) return n;
    }
}

// RWF_NOWAIT does not wait for pages, but has the kernel ask for those that are missing, and that
// waits where the disk's queue is full: readers of what is not there would be as many threads. So
// where pages may be missing the call is announced, and in its turn: at first, for a while after
// some were, and when more calls are under way here than there can be if none waits.
long FileFd::from_cache(std::span<const iovec> bufs, std::int64_t offset) {
    const Transfer t{fd_, false, bufs, offset};
    // relaxed, both: hints.
    const int wary = wary_.load(std::memory_order_relaxed);
    if (wary == 0 &&
        calls_.load(std::memory_order_relaxed) <= static_cast<std::uint32_t>(baton::max_procs()))
        return vector_call(t, RWF_NOWAIT);
    const rt::FileCall call;
    const long n = vector_call(t, RWF_NOWAIT);
    // relaxed: a hint.
    wary_.store(n == -EAGAIN ? kWary : std::max(wary - 1, 0), std::memory_order_relaxed);
    return n;
}

long FileFd::once(Way way, std::span<const iovec> bufs, std::int64_t offset, const Until& until) {
    const Transfer t{fd_, way == Way::kWrite, bufs, offset};
    if (kind_ == Kind::kCached) {
        if (way == Way::kWrite) return by_call(way, bufs, offset, until);
        const long n = from_cache(bufs, offset);
        if (n == -EOPNOTSUPP) return by_call(way, bufs, offset, until);
        if (n != -EAGAIN && n != -EINTR) return n;
    }
    if (kind_ != Kind::kStream && offset < 0) return by_call(way, bufs, offset, until);
    for (;;) {
        const long n = rt::ring_call(fill, &t, until);
        if (n == rt::kNoRing) return by_call(way, bufs, offset, until);
        if (mu_.closed() && n == rt::kGivenUp) return -EBADF;
        if (n != rt::kGivenUp && n != -EAGAIN) return n;
        // EAGAIN: a stream that is not to block, and that the kernel has not waited for.
        if (n == -EAGAIN) return by_call(way, bufs, offset, until);
    }
}

long FileFd::transfer(Way way, std::span<const iovec> bufs, std::int64_t offset,
                      const Until& until) {
    const long n = with([&](int) { return once(way, bufs, offset, until); });
    // Who reads on and on from the cache lets others run when its time slice is over, and need not
    // be sent a signal, which would keep its thread. Not while it counts as a call (from_cache).
    const rt::Entry heed;
    return n;
}

std::size_t FileFd::read_all(std::byte* buf, std::size_t size, std::int64_t offset,
                             const Until& until, int* error) {
    std::size_t done = 0;
    long n = 0;
    while (done < size) {
        const iovec iov{buf + done, std::min(size - done, kTransferMax)};
        const std::int64_t at = offset < 0 ? offset : offset + static_cast<std::int64_t>(done);
        n = transfer(Way::kRead, {&iov, 1}, at, until);
        if (n <= 0) break;
        done += static_cast<std::size_t>(n);
        // Of a file in the cache in part the kernel gives that part, of whole pages.
        if (kind_ != Kind::kCached || (offset >= 0 && (at + n) % kPage != 0)) break;
    }
    *error = n < 0 && done == 0 ? static_cast<int>(-n) : 0;
    return done;
}

std::size_t FileFd::write_all(const std::byte* buf, std::size_t size, std::int64_t offset,
                              const Until& until, int* error) {
    std::size_t done = 0;
    *error = mu_.closed() ? EBADF : 0;
    while (done < size) {
        const iovec iov{const_cast<std::byte*>(buf) + done, std::min(size - done, kTransferMax)};
        const std::int64_t at = offset < 0 ? offset : offset + static_cast<std::int64_t>(done);
        const long n = transfer(Way::kWrite, {&iov, 1}, at, until);
        if (n < 0) {
            *error = static_cast<int>(-n);
            break;
        }
        done += static_cast<std::size_t>(n);
    }
    return done;
}

} // namespace baton::detail
