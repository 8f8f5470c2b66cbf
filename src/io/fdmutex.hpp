// SPDX-License-Identifier: Apache-2.0
//
// FdMutex: who may use a descriptor (the reference's fd_mutex.go): one reader and one writer at a
// time, others queue; after close nobody new, and the last one out gives the descriptor back.
//
// Threads: any; enter parks.
// Invariants: I1 the descriptor is closed exactly once, by whose leave or unref returned true, and
// no operation is between its enter and its leave then: its number cannot become another file's
// under a system call that is about to be made. Rejected: closing at once in close(). A reader that
// has just been woken, or is about to read, would read from whatever the number names by then.
#pragma once

#include <atomic>
#include <cstdint>

#include "baton/until.hpp"

namespace baton::detail {

class FdMutex {
public:
    enum class Side : std::uint8_t { kRead, kWrite };

    /// Takes one side and a reference; parks while another has it, as long as `*until` lets it
    /// unless that is null. 0; EBADF once closed, ETIMEDOUT or ECANCELED when given up.
    int enter(Side side, const Until* until);
    /// Gives both back. True: the caller must give the descriptor back.
    [[nodiscard]] bool leave(Side side);
    /// A reference without a side, for calls that do not wait. False once closed.
    bool ref();
    [[nodiscard]] bool unref();
    /// Marks it closed, takes a reference and sends away who queues. False if it was closed before.
    bool close();
    /// Marks it closed if nobody is using it. 0, EBADF if it was closed before, EBUSY.
    int retire();

    bool closed() const noexcept;
    bool in_use() const noexcept;

private:
    bool queue(Side side, const Until* until, int* err);

    // {writers queueing:20, readers queueing:20, references:20, write side, read side, closed}
    std::atomic<std::uint64_t> state_{0};
    std::atomic<std::uint32_t> rsema_{0};
    std::atomic<std::uint32_t> wsema_{0};
};

} // namespace baton::detail
