// SPDX-License-Identifier: Apache-2.0
//
// Poll descriptors, and the pool they come from. They are never freed: a poller may still hold the
// tag of one, and a heap its timer. The tag an event carries names the use as well, so that what
// was meant for a former one is told apart. What the words and locks in one are for is told in
// netpoll.cpp.
//
// Threads: any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/lock.hpp"
#include "runtime/timer.hpp"

namespace baton::rt {

/// Words of a direction, netpoll.cpp's and netpoll_any.cpp's; above them a G.
inline constexpr std::uintptr_t kPdNil = 0, kPdReady = 1, kPdWait = 2, kPdAny = 3;
/// Bits of PollDesc::info.
enum Info : std::uint32_t {
    kClosing = 1,
    kReadExpired = 2,
    kWriteExpired = 4,
    kReadTimedOut = 8, // of a limited wait
    kWriteTimedOut = 16,
    kReadStopped = 32,
    kWriteStopped = 64,
};
// A tag is {address of the PollDesc:42 without its 6 zero bits, fdseq:22}.
inline constexpr unsigned kSeqBits = 22;
inline constexpr std::uint64_t kSeqMask = (1ULL << kSeqBits) - 1;

// 64 bytes of alignment leave room for the sequence number in an event's tag.
struct G;

struct alignas(64) PollDesc {
    std::atomic<std::uintptr_t> rg{kPdNil};
    std::atomic<std::uintptr_t> wg{kPdNil};
    std::atomic<std::uint32_t> fdseq{1}; // one up each time the descriptor is given back; never 0
    std::atomic<std::uint32_t> info{0};  // Info: what the lock guards, for who does not lock
    std::atomic<bool> hangup{false};     // an event told of an end, an error or urgent data
    int fd = -1;
    bool own = false; // poll_open

    Lock lock{Rank::kPollDesc};
    std::uint32_t armed = 0; // EPOLLIN, EPOLLOUT: the directions that poll_rearm was asked for
    bool closing = false;
    bool rrun = false; // rt is armed
    bool wrun = false;
    std::int64_t rd = 0; // read deadline; 0 none, -1 passed
    std::int64_t wd = 0;
    std::uintptr_t rseq = 0; // a timer that fires with another number is stale
    std::uintptr_t wseq = 0;
    Timer rt; // the read deadline, or both when they are the same
    Timer wt;
    int rcut = 0; // errno for the wait under way, which is given up (poll_limit.hpp); else 0
    int wcut = 0;
    std::uint64_t rlimit = 0; // the number of the last wait that can be given up
    std::uint64_t wlimit = 0;

    /// Whose wait for several it is that kPdAny tells of.
    struct AnyWaiter {
        G* g = nullptr;
        std::uint64_t number = 0;
    } rany, wany;

    PollDesc* link = nullptr; // free list
};

inline std::uint64_t tag_of(const PollDesc* pd) {
    // relaxed: the owner reads its own number.
    return (reinterpret_cast<std::uint64_t>(pd) << (kSeqBits - 6)) |
           pd->fdseq.load(std::memory_order_relaxed);
}
inline PollDesc* desc_of(std::uint64_t tag) {
    return reinterpret_cast<PollDesc*>(tag >> kSeqBits << 6);
}

/// One that nobody uses; null: no memory.
PollDesc* polldesc_alloc();
/// From here on events of this use are stale.
void polldesc_free(PollDesc* pd);
/// What polldesc_alloc made is seen by the caller, who has its tag from the kernel.
void polldesc_see_all();
/// In a forked child, before its first start: none is free, and all are visited.
void polldesc_forget();
void polldesc_each(void (*visit)(PollDesc* pd));

} // namespace baton::rt
