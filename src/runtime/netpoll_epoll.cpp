// SPDX-License-Identifier: Apache-2.0
//
// The epoll engine: one edge-triggered epoll for all, and an eventfd that wakes who waits there.
//
// Rejected: level-triggered with re-arming, a system call more for each wait. One epoll per P: a G
// that moves would leave its descriptors behind, and idle Ps would have to be polled for.
#include <cerrno>
#include <ctime>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "kernel/features.hpp"
#include "kernel/syscall.hpp"
#include "runtime/pollengine.hpp"

namespace baton::rt {

namespace {

using kernel::raw_syscall;

constexpr int kEventsMax = 128;
// No tag of a descriptor's: those have a number in the low bits, which is never 0.
constexpr std::uint64_t kWakeTag = 0;
constexpr std::uint64_t kWatchTag = 1ULL << kSeqBits;

int g_epfd = -1;
int g_eventfd = -1;
bool g_pwait2 = false;

int start() {
    const long epfd = raw_syscall(__NR_epoll_create1, EPOLL_CLOEXEC);
    if (epfd < 0) return static_cast<int>(epfd);
    const long evfd = raw_syscall(__NR_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK);
    epoll_event ev{};
    ev.events = EPOLLIN;
    ev.data.u64 = kWakeTag;
    const long rc = evfd < 0 ? evfd : raw_syscall(__NR_epoll_ctl, epfd, EPOLL_CTL_ADD, evfd, &ev);
    if (rc < 0) {
        if (evfd >= 0) (void)raw_syscall(__NR_close, evfd);
        (void)raw_syscall(__NR_close, epfd);
        return static_cast<int>(rc);
    }
    g_epfd = static_cast<int>(epfd);
    g_eventfd = static_cast<int>(evfd);
    g_pwait2 = kernel::features().epoll_pwait2;
    return 0;
}

void forget() {
    (void)raw_syscall(__NR_close, g_epfd);
    (void)raw_syscall(__NR_close, g_eventfd);
    g_epfd = g_eventfd = -1;
}

int add(PollDesc* pd) {
    epoll_event ev{};
    ev.events = kPollInterest | EPOLLET;
    ev.data.u64 = tag_of(pd);
    return static_cast<int>(raw_syscall(__NR_epoll_ctl, g_epfd, EPOLL_CTL_ADD, pd->fd, &ev));
}

// Explicitly, for close(2) does nothing here when a child process still has the descriptor.
void remove(PollDesc* pd) {
    epoll_event ev{};
    (void)raw_syscall(__NR_epoll_ctl, g_epfd, EPOLL_CTL_DEL, pd->fd, &ev);
}

int arm(PollDesc* pd, std::uint32_t events) {
    epoll_event ev{};
    ev.events = events | EPOLLET;
    ev.data.u64 = tag_of(pd);
    const long rc = raw_syscall(__NR_epoll_ctl, g_epfd, EPOLL_CTL_MOD, pd->fd, &ev);
    if (rc != -ENOENT) return static_cast<int>(rc);
    return static_cast<int>(raw_syscall(__NR_epoll_ctl, g_epfd, EPOLL_CTL_ADD, pd->fd, &ev));
}

int watch(int fd) {
    epoll_event ev{};
    ev.events = EPOLLIN | EPOLLET;
    ev.data.u64 = kWatchTag;
    return static_cast<int>(raw_syscall(__NR_epoll_ctl, g_epfd, EPOLL_CTL_ADD, fd, &ev));
}

long epoll_poll(epoll_event* events) {
    return raw_syscall(__NR_epoll_pwait, g_epfd, events, kEventsMax, 0, nullptr, 0);
}

/// epoll_wait with a timeout in nanoseconds. The number of events or -errno.
long epoll_wait_ns(epoll_event* events, std::int64_t delay_ns) {
    if (delay_ns == 0) return epoll_poll(events);
    if (delay_ns < 0)
        return raw_syscall(__NR_epoll_pwait, g_epfd, events, kEventsMax, -1, nullptr, 0);
    timespec ts{delay_ns / 1'000'000'000, delay_ns % 1'000'000'000};
    if (g_pwait2)
        return raw_syscall(__NR_epoll_pwait2, g_epfd, events, kEventsMax, &ts, nullptr, 0);
    // epoll_wait alone would round to a millisecond. An epoll is itself readable when it has
    // events.
    pollfd pfd{g_epfd, POLLIN, 0};
    const long n = raw_syscall(__NR_ppoll, &pfd, 1, &ts, nullptr, 0);
    return n <= 0 ? n : epoll_poll(events);
}

bool poll(std::int64_t delay_ns, GList& list) {
    epoll_event events[kEventsMax];
    bool woken = false;
    const long n = epoll_wait_ns(events, delay_ns);
    if (n < 0 && n != -EINTR)
        fatal("epoll_wait failed with errno %ld; is descriptor %d closed?", -n, g_epfd);
    polldesc_see_all();
    for (long i = 0; i < n; i++) {
        if ((events[i].data.u64 & kSeqMask) != 0) netpoll_expect(events[i].data.u64);
    }
    // A list is last in, first out: from the end, so that who was ready first runs first.
    for (long i = n; i-- > 0;) {
        if (events[i].data.u64 == kWatchTag) continue;
        if (events[i].data.u64 != kWakeTag) {
            netpollready(list, events[i].data.u64, events[i].events);
        } else if (delay_ns != 0) {
            // Level-triggered: who does not wait leaves it to who does.
            std::uint64_t count = 0;
            (void)raw_syscall(__NR_read, g_eventfd, &count, sizeof count);
            woken = true;
        }
    }
    return woken;
}

void wake() {
    const std::uint64_t one = 1;
    while (raw_syscall(__NR_write, g_eventfd, &one, sizeof one) == -EINTR) {
    }
}

} // namespace

const PollEngine kEpollEngine{"epoll", start, forget, add, remove, arm, watch, poll, wake};

} // namespace baton::rt
