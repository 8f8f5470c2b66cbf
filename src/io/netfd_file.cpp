// SPDX-License-Identifier: Apache-2.0
//
// A file's bytes to a connection, within the kernel.
#include <algorithm>
#include <csignal>

#include "io/netfd.hpp"
#include "kernel/syscall.hpp"
#include "runtime/file_calls.hpp"

namespace baton::detail {

namespace {

using kernel::raw_syscall;

constexpr std::size_t kTransferMax = 1 << 30;

/// No SIGPIPE reaches this thread for what is sent in its scope: sendfile has no MSG_NOSIGNAL. For
/// a scope that does not park.
class NoSigpipe {
public:
    NoSigpipe() { mask(SIG_BLOCK, &kSigpipe, &before_); }
    ~NoSigpipe() { mask(SIG_SETMASK, &before_, nullptr); }
    NoSigpipe(const NoSigpipe&) = delete;
    NoSigpipe& operator=(const NoSigpipe&) = delete;
    /// After an EPIPE. One that the program has blocked stays: it may be another's.
    void take() const {
        static constexpr timespec kNow{};
        if ((before_ & kSigpipe) == 0)
            (void)raw_syscall(__NR_rt_sigtimedwait, &kSigpipe, nullptr, &kNow, sizeof kSigpipe);
    }

private:
    using Signals = unsigned long; // the kernel's
    static void mask(int how, const Signals* to, Signals* before) {
        (void)raw_syscall(__NR_rt_sigprocmask, how, to, before, sizeof(Signals));
    }
    static constexpr Signals kSigpipe = 1UL << (SIGPIPE - 1);
    Signals before_ = 0;
};

} // namespace

// In its turn, as what is not in the page cache is read in the call. The socket does not block, so
// that a slow peer has nobody else wait for a turn.
IoResult NetFd::send_file(int from, std::int64_t* from_at, std::size_t size, const Until* until) {
    std::size_t done = 0;
    const long rc = on_side(Side::kWrite, until, [&](int fd) {
        while (done < size) {
            const std::size_t want = std::min(size - done, kTransferMax);
            const rt::FileCall call;
            const NoSigpipe no_sigpipe;
            const long n = raw_syscall(__NR_sendfile, fd, from, from_at, want);
            if (n == -EPIPE) no_sigpipe.take();
            if (n <= 0) return n; // 0: the file's end
            done += static_cast<std::size_t>(n);
        }
        return 0L;
    });
    return {done, static_cast<int>(-rc)};
}

} // namespace baton::detail
