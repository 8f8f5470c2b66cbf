// SPDX-License-Identifier: Apache-2.0
//
// Bytes from one descriptor to another within the kernel.
//
// A disk is waited for in one's turn, and a pipe or a peer without: who would fill or empty it may
// need a turn, too.
//
//     from a file to a file            a turn
//     between a file and a pipe        a turn for what can be moved at once; the pipe is waited for
//                                      after it, without
//     from a file to anything else     none, as the one call waits for both (Conn::send_file, whose
//                                      socket does not block, takes one)
//     no file                          none: there is no disk
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "baton/file.hpp"
#include "file/call.hpp"

namespace baton {

using detail::error_of_result;
using detail::file_call;
using detail::throw_if;
using kernel::raw_syscall;

namespace {

constexpr auto kNoTurn = rt::FileCall::Turn::kNone;

enum class End : std::uint8_t { kDisk, kPipe, kOther };

End end_of(int fd) {
    struct stat st;
    if (raw_syscall(__NR_fstat, fd, &st) < 0) return End::kOther; // the call will say so
    if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) return End::kDisk;
    return S_ISFIFO(st.st_mode) ? End::kPipe : End::kOther;
}

struct Splice {
    int from;
    std::int64_t* from_at;
    int to;
    std::int64_t* to_at;
    std::size_t size;
    unsigned flags;

    template <rt::FileCall::Turn turn>
    long call(unsigned more_flags) const {
        return file_call<turn>(__NR_splice, from, from_at, to, to_at, size, flags | more_flags);
    }

    /// One end is a disk's, the other is `pipe`.
    long with_disk(int pipe) const {
        for (;;) {
            const long result = call<rt::FileCall::Turn::kOne>(SPLICE_F_NONBLOCK);
            if (result != -EAGAIN || (flags & SPLICE_F_NONBLOCK) != 0) return result;
            const long status = raw_syscall(__NR_fcntl, pipe, F_GETFL);
            if (status < 0 || (status & O_NONBLOCK) != 0) return result; // not to be waited for
            pollfd ready{pipe, static_cast<short>(pipe == from ? POLLIN : POLLOUT), 0};
            (void)file_call<kNoTurn>(__NR_poll, &ready, 1, -1);
        }
    }
};

std::size_t moved(long result, std::error_code& ec) {
    ec = error_of_result(result);
    return result < 0 ? 0 : static_cast<std::size_t>(result);
}

} // namespace

std::size_t copy_file_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                            std::size_t size, std::error_code& ec) {
    return moved(file_call(__NR_copy_file_range, from, from_at, to, to_at, size, 0), ec);
}
std::size_t copy_file_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                            std::size_t size) {
    std::error_code ec;
    const std::size_t n = copy_file_range(from, from_at, to, to_at, size, ec);
    throw_if(ec, "copy_file_range");
    return n;
}

std::size_t sendfile(int to, int from, std::int64_t* from_at, std::size_t size,
                     std::error_code& ec) {
    switch (end_of(to)) {
    case End::kDisk:
        return moved(file_call(__NR_sendfile, to, from, from_at, size), ec);
    case End::kPipe: // the same by its other name, which can be told not to wait
        return moved(Splice{from, from_at, to, nullptr, size, 0}.with_disk(to), ec);
    case End::kOther:
        break;
    }
    return moved(file_call<kNoTurn>(__NR_sendfile, to, from, from_at, size), ec);
}
std::size_t sendfile(int to, int from, std::int64_t* from_at, std::size_t size) {
    std::error_code ec;
    const std::size_t n = sendfile(to, from, from_at, size, ec);
    throw_if(ec, "sendfile");
    return n;
}

std::size_t splice(int from, std::int64_t* from_at, int to, std::int64_t* to_at, std::size_t size,
                   unsigned flags, std::error_code& ec) {
    const Splice splice{from, from_at, to, to_at, size, flags};
    long result;
    if (end_of(from) == End::kDisk)
        result = splice.with_disk(to);
    else if (end_of(to) == End::kDisk)
        result = splice.with_disk(from);
    else
        result = splice.call<kNoTurn>(0);
    return moved(result, ec);
}
std::size_t splice(int from, std::int64_t* from_at, int to, std::int64_t* to_at, std::size_t size,
                   unsigned flags) {
    std::error_code ec;
    const std::size_t n = splice(from, from_at, to, to_at, size, flags, ec);
    throw_if(ec, "splice");
    return n;
}

} // namespace baton
