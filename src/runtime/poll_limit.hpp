// SPDX-License-Identifier: Apache-2.0
//
// Waits for a descriptor that a baton::Until may end, each on its own; the deadlines of a
// descriptor (poll_set_deadline) hold beside it.
//
// Threads: the one that waits. In G code, outside an Entry: std::stop_token has a spinning lock of
// its own, and waits for a callback that runs elsewhere.
// Rejected: limit.hpp's word of the G, claimed by who ends the wait. Events find a G by the
// descriptor's word alone and would have to claim it as well, each of them, limited or not.
#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>

#include "baton/until.hpp"
#include "runtime/netpoll.hpp"

namespace baton::rt {

/// While it lives, poll_wait of the caller fails with ETIMEDOUT or ECANCELED once `until` is over.
/// The runtime has started. Only who alone may wait for that descriptor and mode makes one.
class PollLimit {
public:
    PollLimit(PollDesc* pd, PollMode mode, const Until& until);
    ~PollLimit();
    PollLimit(const PollLimit&) = delete;
    PollLimit& operator=(const PollLimit&) = delete;

private:
    struct Stop {
        PollDesc* pd;
        PollMode mode;
        std::uint64_t number;
        std::int64_t when_ns;
        void operator()() const noexcept;
    };
    PollDesc* pd_;
    PollMode mode_;
    std::int64_t when_ns_;
    std::uint64_t number_;
    std::optional<std::stop_callback<Stop>> stop_;
};

/// poll_wait, given up when `*until` is over, unless that is null.
int poll_wait(PollDesc* pd, PollMode mode, const Until* until);

} // namespace baton::rt
