// SPDX-License-Identifier: Apache-2.0
//
// Foreign load: a busy process of the ordinary class pinned to each CPU we may run on, or to the
// first of them.
#pragma once

#include <sys/types.h>

#include <climits>
#include <vector>

namespace bench {

enum class Neighbours {
    kNone,
    kSameGroup,  ///< in our scheduling group: a SCHED_IDLE thread of ours gets next to nothing
    kOtherGroup, ///< from a session of their own, hence in another autogroup
};

/// They spin from the constructor to the destructor, but not longer than this process lives, nor
/// than five minutes.
class BusyNeighbours {
public:
    /// On `most` CPUs, the lowest allowed ones.
    explicit BusyNeighbours(Neighbours kind, int most = INT_MAX);
    ~BusyNeighbours();
    BusyNeighbours(const BusyNeighbours&) = delete;
    BusyNeighbours& operator=(const BusyNeighbours&) = delete;

private:
    std::vector<pid_t> pids_;
};

/// Whether kOtherGroup differs from kSameGroup on this machine.
bool autogroups_enabled();

} // namespace bench
