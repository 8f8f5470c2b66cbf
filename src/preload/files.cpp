// SPDX-License-Identifier: Apache-2.0
//
// pread and its like. Of a file, what is in the page cache is read at once, and the rest by a ring,
// for which the goroutine parks, or without one in a turn (turns.hpp). What goes past the cache
// would be waited for even in the attempt that does not wait, so that goes to the ring at once.
#include <sys/uio.h>

#include "preload/fd.hpp"
#include "preload/msg.hpp"
#include "preload/turns.hpp"

namespace baton::preload {

namespace {

constexpr std::size_t kSector = 512;
constexpr std::int64_t kPage = 4096;

/// O_DIRECT, or nearly so: only what is aligned can be, so that the rest need not ask.
bool is_direct(int fd, const iovec* iov, int n, std::int64_t at) {
    std::size_t bits = static_cast<std::size_t>(at);
    for (int i = 0; i < n; i++)
        bits |= reinterpret_cast<std::uintptr_t>(iov[i].iov_base) | iov[i].iov_len;
    return bits % kSector == 0 && (raw_syscall(SYS_fcntl, fd, F_GETFL) & O_DIRECT) != 0;
}

long read_now(int fd, const iovec* iov, int n, std::int64_t at) {
    Bracket bracket; // a copy, and it lets others run once its time slice is over
    return raw_syscall(SYS_preadv2, fd, iov, n, at, 0, RWF_NOWAIT);
}

long read_later(int fd, const iovec* iov, int n, std::int64_t at) {
    long r;
    do {
        r = rt->ring_read(fd, iov, n, at);
    } while (r == BATON_GIVEN_UP);
    if (r != BATON_NO_RING && r != -EAGAIN) return r;
    const FileTurn turn([fd] { return is_file(fd); });
    return raw_syscall(SYS_preadv, fd, iov, n, at, 0);
}

long read_file(int fd, const iovec* iov, int n, std::int64_t at) {
    const bool direct = is_direct(fd, iov, n, at);
    Rest rest(iov, n);
    for (;;) {
        long r = direct ? -EAGAIN : read_now(fd, rest.iov(), rest.n(), at);
        const bool later = r == -EAGAIN || r == -EOPNOTSUPP || r == -EINTR;
        if (later) r = read_later(fd, rest.iov(), rest.n(), at);
        if (r <= 0) return rest.done() > 0 ? rest.done() : r;
        at += r;
        // Of what is in the cache in part only that part is read at once, of whole pages.
        if (!rest.advance(r) || later || at % kPage != 0) return rest.done();
    }
}

bool is_read_of_file(int fd, int n, std::int64_t at) {
    long err = 0;
    Descriptor* d = descriptor_of(fd);
    return d && at >= 0 && n > 0 && n <= kIovMost && kind_of(d, fd, &err) == Kind::kFile;
}

} // namespace

ssize_t g_pread(int fd, void* buf, size_t n, off_t at) {
    const iovec one{buf, n};
    if (is_read_of_file(fd, 1, at)) return finish(read_file(fd, &one, 1, at));
    return blocking(real_pread(), fd, buf, n, at);
}

ssize_t g___pread_chk(int fd, void* buf, size_t n, off_t at, size_t room) {
    return n > room ? real___pread_chk()(fd, buf, n, at, room) : g_pread(fd, buf, n, at);
}

ssize_t g_preadv(int fd, const iovec* iov, int n, off_t at) {
    if (is_read_of_file(fd, n, at)) return finish(read_file(fd, iov, n, at));
    return blocking(real_preadv(), fd, iov, n, at);
}

ssize_t g_preadv2(int fd, const iovec* iov, int n, off_t at, int flags) {
    if (flags == 0 && at >= 0) return g_preadv(fd, iov, n, at);
    const FileTurn turn([fd] { return is_file(fd); });
    return real_preadv2()(fd, iov, n, at, flags);
}

} // namespace baton::preload
