// SPDX-License-Identifier: Apache-2.0
//
// What the netpoller needs of the kernel, as a table of functions: one engine is chosen when the
// runtime starts (netpoll.cpp), and knows nothing of waits and deadlines.
//
// Threads: start and forget by the one thread there is; add, remove and wake by any thread at any
// time; poll by any M, several at once, of which one waits at most.
// Invariants: I1 an event carries the tag the descriptor had when it was added (polldesc.hpp), so
// one that comes after remove is told apart. I2 edge-triggered: between two events the descriptor
// was not ready; one may be reported twice, none is left out.
#pragma once

#include <cstdint>

#include <sys/epoll.h>

#include "runtime/polldesc.hpp"
#include "runtime/runtime.hpp"

namespace baton::rt {

struct PollEngine {
    const char* name;
    /// 0 or -errno. A start that failed leaves nothing behind.
    int (*start)();
    /// In a forked child: gives up the parent's.
    void (*forget)();
    /// Tells of pd->fd from now on, beginning with what it is ready for now. 0 or -errno.
    int (*add)(PollDesc* pd);
    /// No more of it. pd->fd is still open.
    void (*remove)(PollDesc* pd);
    /// Tells of what pd->fd is by now, for these events, as add does; the number may stand for
    /// something else than it did then. 0 or -errno. Null: this engine cannot, as its registrations
    /// keep files open.
    int (*arm)(PollDesc* pd, std::uint32_t events);
    /// A waiting poll ends when fd becomes readable, or is so again. 0 or -errno.
    int (*watch)(int fd);
    /// Calls netpollready for each event: delay < 0 waits for one for ever, 0 does not, > 0 so many
    /// ns. True: it waited, and was woken by `wake`; at most one wake is under way at a time.
    bool (*poll)(std::int64_t delay_ns, GList& list);
    /// Ends a waiting poll, or the next one.
    void (*wake)();
};
extern const PollEngine kEpollEngine;
extern const PollEngine kUringEngine;

/// What a descriptor is polled for. EPOLLPRI only ever comes with urgent data, after which a short
/// read says nothing: see netfd.cpp.
inline constexpr std::uint32_t kPollInterest = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
inline constexpr std::uint32_t kPollHangup = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI;

/// For an engine that has many events at hand, before it tells of them: the Gs that wait for them
/// have not run for a while, and asked for together their memory comes together.
void netpoll_expect(std::uint64_t tag);
/// The descriptor of that tag has become ready: adds the Gs that waited to the list.
void netpollready(GList& list, std::uint64_t tag, std::uint32_t events);

} // namespace baton::rt
