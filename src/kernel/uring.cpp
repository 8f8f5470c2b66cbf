// SPDX-License-Identifier: Apache-2.0
#include "kernel/uring.hpp"

#include <algorithm>
#include <cerrno>

#include "kernel/syscall.hpp"

namespace baton::kernel {

namespace {

constexpr unsigned kNeeded = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RW_CUR_POS |
                             IORING_FEAT_FAST_POLL | IORING_FEAT_SUBMIT_STABLE;
constexpr int kOps[] = {IORING_OP_NOP,         IORING_OP_READ,        IORING_OP_WRITE,
                        IORING_OP_READV,       IORING_OP_WRITEV,      IORING_OP_POLL_ADD,
                        IORING_OP_POLL_REMOVE, IORING_OP_ASYNC_CANCEL};
constexpr unsigned kMaxOps = 256;

bool has_ops(const Uring& ring) noexcept {
    alignas(io_uring_probe) char
        space[sizeof(io_uring_probe) + kMaxOps * sizeof(io_uring_probe_op)] = {};
    auto* probe = reinterpret_cast<io_uring_probe*>(space);
    if (raw_syscall(__NR_io_uring_register, ring.fd(), IORING_REGISTER_PROBE, probe, kMaxOps) < 0)
        return false;
    return std::all_of(std::begin(kOps), std::end(kOps),
                       [&](int op) { return io_uring_opcode_supported(probe, op) != 0; });
}

} // namespace

int Uring::open(unsigned entries, unsigned cq_entries) noexcept {
    io_uring_params params{};
    params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN |
                   IORING_SETUP_TASKRUN_FLAG;
    params.cq_entries = cq_entries;
    const long fd = raw_syscall(__NR_io_uring_setup, entries, &params);
    if (fd < 0) return static_cast<int>(fd);
    int rc = (params.features & kNeeded) == kNeeded ? 0 : -EINVAL;
    if (rc == 0) rc = io_uring_queue_mmap(static_cast<int>(fd), &params, &ring_);
    if (rc < 0) {
        (void)raw_syscall(__NR_close, fd);
        return rc;
    }
    // The entries are used in turn.
    for (unsigned i = 0; i < ring_.sq.ring_entries; i++) ring_.sq.array[i] = i;
    return 0;
}

void Uring::close() noexcept { io_uring_queue_exit(&ring_); }

io_uring_sqe* Uring::next() noexcept {
    io_uring_sqe* sqe = _io_uring_get_sqe(&ring_);
    if (sqe) *sqe = {};
    return sqe;
}

unsigned Uring::unsubmitted() const noexcept {
    return ring_.sq.sqe_tail - IO_URING_READ_ONCE(*ring_.sq.khead);
}

long Uring::submit() noexcept {
    io_uring_smp_store_release(ring_.sq.ktail, ring_.sq.sqe_tail);
    return raw_syscall(__NR_io_uring_enter, fd(), unsubmitted(), 0, IORING_ENTER_GETEVENTS, nullptr,
                       0);
}

long Uring::enter(unsigned wait, std::int64_t ns) noexcept {
    __kernel_timespec ts{ns / 1'000'000'000, ns % 1'000'000'000};
    io_uring_getevents_arg arg{};
    if (ns >= 0) arg.ts = reinterpret_cast<std::uint64_t>(&ts);
    const long rc = raw_syscall(__NR_io_uring_enter, fd(), 0, wait,
                                IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof arg);
    return std::min(rc, 0L);
}

long Uring::cancel(std::uint64_t user_data) noexcept {
    io_uring_sync_cancel_reg what{};
    what.addr = user_data;
    return raw_syscall(__NR_io_uring_register, fd(), IORING_REGISTER_SYNC_CANCEL, &what, 1);
}

long Uring::cancel_fd(int of) noexcept {
    io_uring_sync_cancel_reg what{};
    what.fd = of;
    what.flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
    return raw_syscall(__NR_io_uring_register, fd(), IORING_REGISTER_SYNC_CANCEL, &what, 1);
}

void Uring::limit_workers(unsigned n) noexcept {
    unsigned most[2] = {n, n}; // for files, and for all else
    (void)raw_syscall(__NR_io_uring_register, fd(), IORING_REGISTER_IOWQ_MAX_WORKERS, most, 2);
}

const char* why_no_uring(long* error) noexcept {
    Uring ring;
    *error = ring.open(2, 4);
    if (*error < 0) return "io_uring_setup";
    const char* why = nullptr;
    if (!has_ops(ring)) {
        *error = -EINVAL;
        why = "io_uring, operations";
    } else if (*error = ring.cancel(1); *error != -ENOENT) {
        why = "io_uring, cancelling";
    }
    ring.close();
    return why;
}

} // namespace baton::kernel
