// SPDX-License-Identifier: Apache-2.0
//
// read, write, readv, writev: tried in a way that does not wait, whatever the descriptor is; then
// waited for.
#include <sys/uio.h>

#include "preload/fd.hpp"
#include "preload/msg.hpp"
#include "preload/turns.hpp"

namespace baton::preload {

namespace {

using Next = Wait::Next;

/// One attempt at transferring `n` pieces from or to a descriptor of that kind: what it did, or
/// -EAGAIN where it would wait, -ENOTSOCK where the kind is not what it was.
long attempt(Descriptor* d, Kind kind, int fd, const iovec* iov, int n, bool write) {
    if (kind == Kind::kSocket) {
        if (n == 1)
            return write ? raw_syscall(SYS_sendto, fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT,
                                       nullptr, 0)
                         : raw_syscall(SYS_recvfrom, fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT,
                                       nullptr, nullptr);
        msghdr msg{};
        msg.msg_iov = const_cast<iovec*>(iov);
        msg.msg_iovlen = static_cast<std::size_t>(n);
        return raw_syscall(write ? SYS_sendmsg : SYS_recvmsg, fd, &msg, MSG_DONTWAIT);
    }
    if (kind == Kind::kStream) {
        const long r =
            raw_syscall(write ? SYS_pwritev2 : SYS_preadv2, fd, iov, n, -1L, -1L, RWF_NOWAIT);
        if (r != -EOPNOTSUPP) return r;
        d->kind.store(Kind::kPollable, std::memory_order_relaxed); // relaxed: a guess
    }
    if (!is_ready(fd, write ? POLLOUT : POLLIN)) return -EAGAIN;
    Bracket bracket;
    return raw_syscall(write ? SYS_writev : SYS_readv, fd, iov, n);
}

std::size_t total(const iovec* iov, int n) {
    std::size_t sum = 0;
    for (int i = 0; i < n; i++) sum += iov[i].iov_len;
    return sum;
}

/// A file's. Rejected: rings, where two reads that share a position do not take turns.
long block_file(int fd, const iovec* iov, int n, bool write) {
    const FileTurn turn([fd] { return is_file(fd); });
    return raw_syscall(write ? SYS_writev : SYS_readv, fd, iov, n);
}

/// The call that blocks, for what cannot be waited for.
long block(int fd, const iovec* iov, int n, bool write) {
    Bracket bracket;
    return raw_syscall(write ? SYS_writev : SYS_readv, fd, iov, n);
}

long transfer_in(int fd, const iovec* iov, int n) {
    Descriptor* d = descriptor_of(fd);
    long err = 0;
    // Nothing to read is for the kernel to judge, as is a vector too long.
    if (!d || n <= 0 || n > kIovMost || total(iov, n) == 0) return block(fd, iov, n, false);
    Wait wait(d, fd, false);
    for (;;) {
        const Kind kind = kind_of(d, fd, &err);
        if (err != 0) return err;
        if (kind == Kind::kFile) return block_file(fd, iov, n, false);
        const long r = attempt(d, kind, fd, iov, n, false);
        if (r == -ENOTSOCK) {
            d->kind.store(Kind::kUnknown, std::memory_order_relaxed); // relaxed: a guess
        } else if (r != -EAGAIN) {
            return r;
        } else if (kind == Kind::kPollable && ends_unready(fd, total(iov, n))) {
            return block(fd, iov, n, false);
        } else {
            const Next next = wait();
            if (next == Next::kGiveUp) return -wait.error();
            if (next == Next::kBlock) return block(fd, iov, n, false);
        }
    }
}

/// Written in full, as a blocking descriptor has it, unless an error or a timeout comes first.
long transfer_out(int fd, const iovec* iov, int n) {
    Descriptor* d = descriptor_of(fd);
    long err = 0;
    if (!d || n <= 0 || n > kIovMost || total(iov, n) == 0) return block(fd, iov, n, true);
    Rest rest(iov, n);
    Wait wait(d, fd, true);
    for (;;) {
        const Kind kind = kind_of(d, fd, &err);
        if (err != 0) return rest.done() > 0 ? rest.done() : err;
        long r = kind == Kind::kFile ? block_file(fd, rest.iov(), rest.n(), true)
                                     : attempt(d, kind, fd, rest.iov(), rest.n(), true);
        if (r == -ENOTSOCK) {
            d->kind.store(Kind::kUnknown, std::memory_order_relaxed); // relaxed: a guess
            continue;
        }
        if (r == -EAGAIN) {
            const Next next = wait();
            if (next == Next::kTryAgain) continue;
            if (next == Next::kGiveUp) return rest.done() > 0 ? rest.done() : -wait.error();
            r = block(fd, rest.iov(), rest.n(), true);
        }
        if (r < 0) return rest.done() > 0 ? rest.done() : r;
        // A file's, a message's: as long as they come.
        if (!rest.advance(r) || kind == Kind::kFile || wait.nonblocking()) return rest.done();
    }
}

} // namespace

ssize_t g_read(int fd, void* buf, size_t n) {
    const iovec one{buf, n};
    return finish(transfer_in(fd, &one, 1));
}

ssize_t g___read_chk(int fd, void* buf, size_t n, size_t room) {
    return n > room ? real___read_chk()(fd, buf, n, room) : g_read(fd, buf, n);
}

ssize_t g_readv(int fd, const iovec* iov, int n) { return finish(transfer_in(fd, iov, n)); }

ssize_t g_write(int fd, const void* buf, size_t n) {
    const iovec one{const_cast<void*>(buf), n};
    return finish(transfer_out(fd, &one, 1));
}

ssize_t g_writev(int fd, const iovec* iov, int n) { return finish(transfer_out(fd, iov, n)); }

} // namespace baton::preload
