// SPDX-License-Identifier: Apache-2.0
#include "runtime/broken_call.hpp"

#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "kernel/syscall.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

using kernel::raw_syscall;

constexpr int kSyscallBytes = 2; // of the instruction

// Those that the kernel does not restart, or not on a socket with a time limit, and that may begin
// anew: they have done nothing yet, and wait for more than a handler to run.
bool may_begin_anew(long nr, const greg_t* r) {
    switch (nr) {
    case SYS_futex: { // one with a time limit; sem_timedwait shows its EINTR
        const auto op = static_cast<int>(r[REG_RSI]) & FUTEX_CMD_MASK;
        return op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET;
    }
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_poll:
    case SYS_select:
    case SYS_epoll_wait:
    case SYS_msgrcv:
    case SYS_msgsnd:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_io_getevents:
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_accept:
    case SYS_accept4:
        return true;
    default:
        return false;
    }
}

// The buffers of a call, from the first one that is not done with.
struct Vector {
    const iovec* iov;
    std::size_t n;
    std::size_t done = 0; // of the first one

    // False if nothing is left.
    bool advance(std::size_t bytes) {
        for (; n > 0; iov++, n--) {
            if (bytes < iov->iov_len) {
                done = bytes;
                return true;
            }
            bytes -= iov->iov_len;
        }
        return false;
    }
    char* base() const { return static_cast<char*>(iov->iov_base) + done; }
    std::size_t size() const { return iov->iov_len - done; }
};

// The vector is the program's, so its first one that has gone in part is passed on alone.
template <class One, class Others>
long pass_on(Vector v, long passed, One one, Others others) {
    if (!v.advance(static_cast<std::size_t>(passed))) return 0;
    long sum = 0;
    if (v.done != 0) {
        sum = one(v.base(), v.size());
        if (sum < 0 || static_cast<std::size_t>(sum) != v.size() || v.n == 1) return sum;
        v.iov++;
        v.n--;
    }
    const long more = others(v.iov, v.n);
    return more > 0 ? sum + more : sum;
}

long rest_of_writev(const greg_t* r, long passed) {
    const auto fd = r[REG_RDI];
    return pass_on(
        {reinterpret_cast<const iovec*>(r[REG_RSI]), static_cast<std::size_t>(r[REG_RDX])}, passed,
        [fd](char* at, std::size_t size) { return raw_syscall(SYS_write, fd, at, size); },
        [fd](const iovec* iov, std::size_t n) { return raw_syscall(SYS_writev, fd, iov, n); });
}

// What went along beside the bytes went with the first of them. After a part of them has gone the
// kernel raises no SIGPIPE.
long rest_of_sendmsg(const greg_t* r, long passed) {
    const auto fd = r[REG_RDI], flags = r[REG_RDX] | MSG_NOSIGNAL;
    const auto* msg = reinterpret_cast<const msghdr*>(r[REG_RSI]);
    return pass_on(
        {msg->msg_iov, msg->msg_iovlen}, passed,
        [&](char* at, std::size_t size) {
            return raw_syscall(SYS_sendto, fd, at, size, flags, msg->msg_name, msg->msg_namelen);
        },
        [&](const iovec* iov, std::size_t n) {
            msghdr rest = *msg;
            rest.msg_iov = const_cast<iovec*>(iov);
            rest.msg_iovlen = n;
            rest.msg_control = nullptr;
            rest.msg_controllen = 0;
            return raw_syscall(SYS_sendmsg, fd, &rest, flags);
        });
}

// Has the kernel set the registers back to before the call?
bool begins_anew(const greg_t* r) {
    constexpr unsigned char kSyscall[kSyscallBytes] = {0x0f, 0x05};
    return std::memcmp(reinterpret_cast<const void*>(r[REG_RIP]), kSyscall, kSyscallBytes) == 0;
}

bool waits_for_all(greg_t flags) {
    return (flags & MSG_WAITALL) != 0 && (flags & (MSG_PEEK | MSG_DONTWAIT)) == 0;
}

// What is left of call nr, of which `passed` bytes are done; how many were passed on now.
long rest_of(long nr, const greg_t* r, long passed) {
    const auto fd = r[REG_RDI], at = r[REG_RSI] + passed, left = r[REG_RDX] - passed;
    switch (nr) {
    case SYS_write:
        return left > 0 ? raw_syscall(SYS_write, fd, at, left) : 0;
    case SYS_sendto:
        if (left <= 0) return 0;
        return raw_syscall(SYS_sendto, fd, at, left, r[REG_R10] | MSG_NOSIGNAL, r[REG_R8],
                           r[REG_R9]);
    case SYS_recvfrom:
        if (left <= 0 || !waits_for_all(r[REG_R10])) return 0;
        return raw_syscall(SYS_recvfrom, fd, at, left, r[REG_R10], 0, 0);
    case SYS_writev:
        return rest_of_writev(r, passed);
    case SYS_sendmsg:
        return rest_of_sendmsg(r, passed);
    case SYS_sendfile: { // its offset has moved along
        const auto more = r[REG_R10] - passed;
        return more > 0 ? raw_syscall(SYS_sendfile, fd, r[REG_RSI], r[REG_RDX], more) : 0;
    }
    default:
        return 0;
    }
}

} // namespace

BrokenCall::BrokenCall(const M* m, void* ucontext)
    : regs_(static_cast<ucontext_t*>(ucontext)->uc_mcontext.gregs),
      // relaxed: written by the probe on this thread, before the handler.
      nr_(m && sched.probe ? std::atomic_ref(m->rec->urged).load(std::memory_order_relaxed) : -1) {
    if (regs_[REG_RAX] != -EINTR || !may_begin_anew(nr_, regs_)) return;
    regs_[REG_RAX] = nr_;
    regs_[REG_RIP] -= kSyscallBytes;
    nr_ = -1;
}

void BrokenCall::finish() {
    const auto passed = static_cast<long>(regs_[REG_RAX]);
    if (nr_ < 0 || passed <= 0 || begins_anew(regs_)) return;
    const long more = rest_of(nr_, regs_, passed);
    if (more > 0) regs_[REG_RAX] += more;
}

} // namespace baton::rt
