// SPDX-License-Identifier: Apache-2.0
#include "preload/fd.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

namespace baton::preload {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed; // each use says why
constexpr std::size_t kPerPage = 1024;
constexpr std::size_t kPages = 1024; // a million descriptors, the kernel's own limit by default

std::atomic<Descriptor*> pages[kPages];

Descriptor* make_page(std::atomic<Descriptor*>& page) {
    const long at = raw_syscall(SYS_mmap, nullptr, kPerPage * sizeof(Descriptor),
                                PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at < 0 && at > -4096) return nullptr;
    Descriptor* there = nullptr;
    auto* made = reinterpret_cast<Descriptor*>(at);
    // acq_rel: who finds a page made by another finds its zeros. acquire on failure: as well.
    if (page.compare_exchange_strong(there, made, std::memory_order_acq_rel,
                                     std::memory_order_acquire))
        return made;
    (void)raw_syscall(SYS_munmap, made, kPerPage * sizeof(Descriptor));
    return there;
}

bool has_timeout(int fd, int option) {
    timeval t{};
    socklen_t len = sizeof t;
    return raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, option, &t, &len) == 0 &&
           (t.tv_sec != 0 || t.tv_usec != 0);
}

Kind find_kind(int fd, long* err) {
    struct stat st;
    const long rc = raw_syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH);
    if (rc < 0) {
        *err = rc;
        return Kind::kUnknown;
    }
    switch (st.st_mode & S_IFMT) {
    case S_IFSOCK:
        // It may have come from another process.
        if (has_timeout(fd, SO_RCVTIMEO) || has_timeout(fd, SO_SNDTIMEO))
            timeouts_used.store(true, kRelaxed); // relaxed: ours to see at least
        return Kind::kSocket;
    case S_IFIFO:
    case 0: // eventfd, timerfd and the like
        return Kind::kStream;
    case S_IFCHR:
        return Kind::kPollable;
    default:
        return Kind::kFile;
    }
}

// Of the process whose memory this is. A child of vfork closes descriptors of its own, but what it
// writes is its parent's.
long own_pid = 0;

bool is_own_process() { return raw_syscall(SYS_getpid) == own_pid; }

constexpr std::int64_t kCancelAgainNs = 1'000'000;

void evict(int fd, Descriptor* d) {
    const std::atomic_ref reader(d->slot.reader), writer(d->slot.writer);
    // seq_cst: with the look at gen in fd_wait, after a waiter has made itself known in one of
    // these. It sees the new gen, or is seen here.
    std::atomic_ref(d->slot.gen).fetch_add(1, std::memory_order_seq_cst);
    if (reader.load(std::memory_order_seq_cst) != 0 || writer.load(std::memory_order_seq_cst) != 0)
        rt->fd_evict(&d->slot);
    // One that the kernel was not yet given when we had it give up is found by a later look.
    while (d->in_ring.load(std::memory_order_seq_cst) != 0) { // seq_cst: with connect
        rt->ring_cancel(fd);
        rt->sleep_until(deadline_in(kCancelAgainNs));
    }
}

void close_known(int fd, Descriptor* d) {
    d->kind.store(Kind::kUnknown, kRelaxed); // relaxed: a guess
    if (is_own_process()) evict(fd, d);
}

} // namespace

std::atomic<bool> timeouts_used{false};

Descriptor* known_descriptor(int fd) {
    const auto n = static_cast<std::size_t>(static_cast<unsigned>(fd));
    if (n >= kPages * kPerPage) return nullptr;
    // acquire: pairs with make_page.
    Descriptor* page = pages[n / kPerPage].load(std::memory_order_acquire);
    return page ? &page[n % kPerPage] : nullptr;
}

Descriptor* descriptor_of(int fd) {
    if (Descriptor* d = known_descriptor(fd)) return d;
    const auto n = static_cast<std::size_t>(static_cast<unsigned>(fd));
    if (n >= kPages * kPerPage) return nullptr;
    Descriptor* page = make_page(pages[n / kPerPage]);
    return page ? &page[n % kPerPage] : nullptr;
}

Kind kind_of(Descriptor* d, int fd, long* err) {
    Kind kind = d->kind.load(kRelaxed); // relaxed: a guess
    if (kind != Kind::kUnknown) return kind;
    kind = find_kind(fd, err);
    d->kind.store(kind, kRelaxed); // relaxed: a guess
    return kind;
}

void closing(int fd) {
    Descriptor* d = known_descriptor(fd);
    // relaxed: a number nobody has used through us has no kind.
    if (d && (d->kind.load(kRelaxed) != Kind::kUnknown || d->slot.pd)) close_known(fd, d);
}

void closing_range(unsigned first, unsigned last) {
    for (std::size_t p = first / kPerPage; p < kPages && p * kPerPage <= last; p++) {
        if (!pages[p].load(std::memory_order_acquire)) continue; // acquire: as known_descriptor
        for (std::size_t i = 0; i < kPerPage; i++) {
            const std::size_t fd = p * kPerPage + i;
            if (fd >= first && fd <= last) closing(static_cast<int>(fd));
        }
    }
}

void note_process() { own_pid = raw_syscall(SYS_getpid); }

void forget_descriptors() {
    note_process();
    for (auto& page : pages) {
        Descriptor* d = page.load(kRelaxed); // relaxed: the child has one thread
        for (std::size_t i = 0; d && i < kPerPage; i++) {
            if (d[i].slot.pd || d[i].slot.reader || d[i].slot.writer) rt->fd_forget(&d[i].slot);
            d[i].in_ring.store(0, kRelaxed); // relaxed: as above
        }
    }
}

bool ends_unready(int fd, std::size_t n) {
    struct { // the kernel's struct termios
        tcflag_t c_iflag, c_oflag, c_cflag, c_lflag;
        cc_t c_line, c_cc[19];
    } t;
    if (raw_syscall(SYS_ioctl, fd, TCGETS, &t) != 0 || (t.c_lflag & ICANON)) return false;
    return t.c_cc[VMIN] == 0 || t.c_cc[VMIN] > n;
}

// ---- waiting ----

bool Wait::nonblocking() {
    return never_ || (raw_syscall(SYS_fcntl, fd_, F_GETFL) & O_NONBLOCK) != 0;
}

void Wait::begin() {
    begun_ = true;
    timeval t{};
    socklen_t len = sizeof t;
    // relaxed: what this thread's program has set it has noted.
    if (deadline_ == kNever && timeouts_used.load(kRelaxed) &&
        raw_syscall(SYS_getsockopt, fd_, SOL_SOCKET, write_ ? SO_SNDTIMEO : SO_RCVTIMEO, &t,
                    &len) == 0 &&
        (t.tv_sec != 0 || t.tv_usec != 0))
        deadline_ = deadline_in(t.tv_sec * kNsPerS + t.tv_usec * 1000);
}

bool Wait::may_wait() {
    // seq_cst: with evict.
    gen_ = std::atomic_ref(d_->slot.gen).load(std::memory_order_seq_cst);
    if (nonblocking()) return false;
    begin();
    return true;
}

bool Wait::is_closed() const {
    return std::atomic_ref(d_->slot.gen).load(std::memory_order_seq_cst) != gen_; // as above
}

Wait::Next Wait::operator()() {
    if (!begun_ && !may_wait()) return Next::kGiveUp;
    // Always ready, yet never to be had: what poll says of some sockets (a datagram's receiver is
    // full), or others are always faster.
    if (++vain_ > kVainMost && deadline_ == kNever) return Next::kBlock;
    switch (rt->fd_wait(&d_->slot, fd_, write_, deadline_, gen_)) {
    case 0:
        return Next::kTryAgain;
    case ETIMEDOUT:
        return Next::kGiveUp;
    case EBADF:
        error_ = EBADF;
        return Next::kGiveUp;
    default:
        return Next::kBlock;
    }
}

} // namespace baton::preload
