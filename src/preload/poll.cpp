// SPDX-License-Identifier: Apache-2.0
//
// poll, select and epoll_wait: asked without waiting first. Descriptors are then waited for as a
// read or write would, several of them at once; an epoll instance is itself a descriptor that
// becomes readable. Where that cannot be, as there are many, or another goroutine waits for one of
// them, or for other events, there is a private epoll instance, which is waited for like that and
// asked nothing: who is woken polls again.
#include <algorithm>

#include <sys/resource.h>

#include "preload/fd.hpp"

namespace baton::preload {

namespace {

long poll_now(pollfd* fds, nfds_t n) { return raw_syscall(SYS_poll, fds, n, 0); }

/// An epoll instance that becomes readable when one of the descriptors has news.
/// Rejected: instances that are kept for the next call. A program may close what it does not know,
/// and the number may be an instance of its own by then.
class Set {
public:
    Set(const pollfd* fds, nfds_t n)
        : fds_(fds), n_(n), epfd_(static_cast<int>(raw_syscall(SYS_epoll_create1, EPOLL_CLOEXEC))) {
        for (nfds_t i = 0; i < n_ && ok(); i++) add(fds_[i]);
    }
    ~Set() {
        if (epfd_ < 0) return;
        closing(epfd_);
        (void)raw_syscall(SYS_close, epfd_);
    }
    Set(const Set&) = delete;
    Set& operator=(const Set&) = delete;
    bool ok() const { return epfd_ >= 0 && !failed_; }
    int fd() const { return epfd_; }

private:
    void add(const pollfd& p) {
        if (p.fd < 0) return;
        epoll_event ev{};
        ev.data.fd = p.fd;
        // poll's bits and epoll's have the same values, up to POLLRDHUP. EPOLLEXCLUSIVE and the
        // like lie above.
        for (nfds_t i = 0; i < n_; i++)
            if (fds_[i].fd == p.fd) ev.events |= static_cast<unsigned short>(fds_[i].events);
        const long rc = raw_syscall(SYS_epoll_ctl, epfd_, EPOLL_CTL_ADD, p.fd, &ev);
        // What is there twice has been added with the events of both. A file is always ready, so
        // this one has not been asked for anything.
        failed_ = rc < 0 && rc != -EEXIST && rc != -EPERM;
    }

    const pollfd* fds_;
    nfds_t n_;
    int epfd_;
    bool failed_ = false;
};

constexpr std::int64_t kVainPauseNs = 1'000'000;

/// Until `ask` has an answer other than 0, or the deadline; `ready` parks until there may be one.
/// False: it cannot.
template <class Ready, class Ask>
bool ask_when(Ready ready, Ask ask, std::int64_t deadline, long* r) {
    for (int vain = 0;; vain++) {
        // It may be ready all the time, for something that was not asked for.
        if (vain >= kVainMost) rt->sleep_until(std::min(deadline, deadline_in(kVainPauseNs)));
        const int err = ready();
        if (err != 0 && err != ETIMEDOUT && err != EBADF) return false;
        *r = ask();
        if (*r != 0 || err == ETIMEDOUT) return true;
    }
}

constexpr short kIn = POLLIN | POLLRDNORM | POLLPRI | POLLRDHUP;
constexpr short kOut = POLLOUT | POLLWRNORM;

/// What poll asks, as waits for one direction of a descriptor each.
class Asks {
public:
    /// False: it cannot be said so.
    bool add(const pollfd& p) {
        if (p.fd < 0) return true;
        const bool in = p.events & POLLIN, out = p.events & POLLOUT;
        if (!(in || out) || (p.events & ~((in ? kIn : 0) | (out ? kOut : 0)))) return false;
        return (!in || add(p.fd, false)) && (!out || add(p.fd, true));
    }
    int wait(std::int64_t deadline) const {
        const baton_fd_ask& a = asks_[0];
        return n_ == 1 ? rt->fd_wait(a.slot, a.fd, a.for_write, deadline, a.gen)
                       : rt->fd_wait_any(asks_, n_, deadline);
    }

private:
    bool add(int fd, bool for_write) {
        Descriptor* d = n_ < BATON_ASKS_MOST ? descriptor_of(fd) : nullptr;
        if (!d) return false;
        for (unsigned i = 0; i < n_; i++)
            if (asks_[i].fd == fd && asks_[i].for_write == for_write) return true;
        // seq_cst: with evict.
        const auto gen = std::atomic_ref(d->slot.gen).load(std::memory_order_seq_cst);
        asks_[n_++] = {&d->slot, fd, for_write, gen};
        return true;
    }

    baton_fd_ask asks_[BATON_ASKS_MOST];
    unsigned n_ = 0;
};

long block_poll(pollfd* fds, nfds_t n, std::int64_t deadline) {
    timespec left{};
    timespec* limit = nullptr;
    if (deadline != kNever) {
        const std::int64_t now = now_ns();
        left = to_timespec(deadline > now ? deadline - now : 0);
        limit = &left;
    }
    Bracket bracket;
    return raw_syscall(SYS_ppoll, fds, n, limit, nullptr, 8);
}

/// poll, the first look having found nothing.
long wait_poll(pollfd* fds, nfds_t n, std::int64_t deadline) {
    if (n == 0 && deadline != kNever) {
        rt->sleep_until(deadline);
        return 0;
    }
    const auto ask = [&] { return poll_now(fds, n); };
    long r = 0;
    Asks asks;
    nfds_t said = 0;
    while (said < n && asks.add(fds[said])) said++;
    if (said == n && ask_when([&] { return asks.wait(deadline); }, ask, deadline, &r)) return r;
    // A set costs as much as ten looks do. Where many goroutines are at work, what this one waits
    // for is often there when the others have had their turn.
    rt->yield();
    if (r = ask(); r != 0) return r;
    Set set(fds, n);
    if (set.ok() && ask_when(Readiness(set.fd(), false, deadline), ask, deadline, &r)) return r;
    return block_poll(fds, n, deadline);
}

long do_poll(pollfd* fds, nfds_t n, std::int64_t deadline) {
    const long r = poll_now(fds, n);
    return r != 0 ? r : wait_poll(fds, n, deadline);
}

// ---- select ----

constexpr int kSelectMost = 1024; // what an fd_set names

struct Sets {
    fd_set r, w, x;
    fd_set *pr, *pw, *px;
    Sets(fd_set* a, fd_set* b, fd_set* c)
        : pr(a ? &(r = *a) : nullptr), pw(b ? &(w = *b) : nullptr), px(c ? &(x = *c) : nullptr) {}
};

/// One look: leaves the program's sets alone while nothing is ready.
long select_now(int n, fd_set* r, fd_set* w, fd_set* x) {
    Sets now(r, w, x);
    timeval zero{};
    const long found = raw_syscall(SYS_select, n, now.pr, now.pw, now.px, &zero);
    if (found <= 0) return found;
    if (r) *r = now.r;
    if (w) *w = now.w;
    if (x) *x = now.x;
    return found;
}

bool has(const fd_set* set, int fd) {
    // Not FD_ISSET, which checks numbers in fortified programs.
    return set && ((reinterpret_cast<const unsigned long*>(set)[fd / 64] >> (fd % 64)) & 1);
}

[[gnu::noinline]] long wait_select(int n, fd_set* r, fd_set* w, fd_set* x, std::int64_t deadline) {
    pollfd fds[kSelectMost];
    nfds_t count = 0;
    for (int fd = 0; fd < n; fd++) {
        const short events = static_cast<short>(
            (has(r, fd) ? POLLIN : 0) | (has(w, fd) ? POLLOUT : 0) | (has(x, fd) ? POLLPRI : 0));
        if (events != 0) fds[count++] = {fd, events, 0};
    }
    for (;;) {
        const long rc = wait_poll(fds, count, deadline);
        if (rc < 0) return rc;
        const long found = select_now(n, r, w, x);
        if (found != 0) return found;
        if (rc == 0) break;
        // News that select does not report: a number that is not open, or a hangup of what is to be
        // written to only. It would be there at once for ever.
        for (nfds_t i = 0; i < count; i++)
            if (fds[i].revents != 0 && (fds[i].revents & fds[i].events) == 0) fds[i].fd = -1;
    }
    for (fd_set* set : {r, w, x})
        for (int i = 0; set && i < (n + 63) / 64; i++) reinterpret_cast<unsigned long*>(set)[i] = 0;
    return 0;
}

long do_select(int n, fd_set* r, fd_set* w, fd_set* x, std::int64_t deadline) {
    const long found = select_now(n, r, w, x);
    return found != 0 ? found : wait_select(n, r, w, x, deadline);
}

bool at_once(const timespec& t) { return t.tv_sec == 0 && t.tv_nsec == 0; }

} // namespace

int g_poll(pollfd* fds, nfds_t n, int ms) {
    if (ms == 0) return static_cast<int>(finish(poll_now(fds, n)));
    return static_cast<int>(finish(do_poll(fds, n, deadline_in_ms(ms))));
}

int g___poll_chk(pollfd* fds, nfds_t n, int ms, size_t room) {
    return room / sizeof *fds < n ? real___poll_chk()(fds, n, ms, room) : g_poll(fds, n, ms);
}

int g_ppoll(pollfd* fds, nfds_t n, const timespec* timeout, const sigset_t* mask) {
    // A mask is the thread's, from this call's begin to its end.
    if (mask || (timeout && (!valid(*timeout) || at_once(*timeout))))
        return blocking(real_ppoll(), fds, n, timeout, mask);
    return static_cast<int>(
        finish(do_poll(fds, n, timeout ? deadline_in(to_ns(*timeout)) : kNever)));
}

int g___ppoll_chk(pollfd* fds, nfds_t n, const timespec* timeout, const sigset_t* mask,
                  size_t room) {
    return room / sizeof *fds < n ? real___ppoll_chk()(fds, n, timeout, mask, room)
                                  : g_ppoll(fds, n, timeout, mask);
}

int g_select(int n, fd_set* r, fd_set* w, fd_set* x, timeval* timeout) {
    const bool bad =
        n < 0 || n > kSelectMost || (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0));
    if (bad || (timeout && timeout->tv_sec == 0 && timeout->tv_usec == 0))
        return blocking(real_select(), n, r, w, x, timeout);
    const std::int64_t deadline =
        timeout ? deadline_in(to_ns({timeout->tv_sec + timeout->tv_usec / 1'000'000,
                                     timeout->tv_usec % 1'000'000 * 1000}))
                : kNever;
    const long found = do_select(n, r, w, x, deadline);
    if (timeout) { // what is left of it, as Linux has it
        const std::int64_t left = deadline - now_ns();
        *timeout = left > 0 ? timeval{left / kNsPerS, left % kNsPerS / 1000} : timeval{};
    }
    return static_cast<int>(finish(found));
}

int g_pselect(int n, fd_set* r, fd_set* w, fd_set* x, const timespec* timeout,
              const sigset_t* mask) {
    if (mask || n < 0 || n > kSelectMost || (timeout && (!valid(*timeout) || at_once(*timeout))))
        return blocking(real_pselect(), n, r, w, x, timeout, mask);
    return static_cast<int>(
        finish(do_select(n, r, w, x, timeout ? deadline_in(to_ns(*timeout)) : kNever)));
}

namespace {

int do_epoll(int fd, epoll_event* events, int most, std::int64_t deadline) {
    const auto ask = [&] { return raw_syscall(SYS_epoll_pwait, fd, events, most, 0, nullptr, 8); };
    long r = ask();
    if (r != 0 || ask_when(Readiness(fd, false, deadline), ask, deadline, &r))
        return static_cast<int>(finish(r));
    const std::int64_t left = deadline == kNever ? 0 : deadline - now_ns();
    const int ms = deadline == kNever ? -1 : left > 0 ? static_cast<int>(left / 1'000'000 + 1) : 0;
    Bracket bracket;
    return static_cast<int>(finish(raw_syscall(SYS_epoll_pwait, fd, events, most, ms, nullptr, 8)));
}

} // namespace

int g_epoll_wait(int fd, epoll_event* events, int most, int ms) {
    if (ms == 0) return real_epoll_wait()(fd, events, most, ms);
    return do_epoll(fd, events, most, deadline_in_ms(ms));
}

int g_epoll_pwait(int fd, epoll_event* events, int most, int ms, const sigset_t* mask) {
    if (mask) return blocking(real_epoll_pwait(), fd, events, most, ms, mask);
    return g_epoll_wait(fd, events, most, ms);
}

int g_epoll_pwait2(int fd, epoll_event* events, int most, const timespec* timeout,
                   const sigset_t* mask) {
    if (mask || (timeout && (!valid(*timeout) || at_once(*timeout))))
        return blocking(real_epoll_pwait2(), fd, events, most, timeout, mask);
    return do_epoll(fd, events, most, timeout ? deadline_in(to_ns(*timeout)) : kNever);
}

} // namespace baton::preload
