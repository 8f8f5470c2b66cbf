// SPDX-License-Identifier: Apache-2.0
//
// Blocks that nobody announced, where there is no probe: an M that sleeps in G code (M_RUNNING)
// needs no P (src/runtime/entry.hpp), but its word says RUN, and it may wake at any moment. So who
// would have the P asks first, and takes it then:
//
//     taker                                          M, at any time
//     word {m,x,0,RUN} -> {m,t,0,RUN}, a CAS         state = M_RUNTIME
//     does m's thread sleep? (kernel/sleeper.hpp)    word {m,0,0,RUN}?     it is in the runtime
//     its state is M_RUNNING?                        {m,t,0,RUN}?          CAS to {m,0,0,RUN}
//     word {m,t,0,RUN} -> {new,0,0,RUN}, a CAS       else                  it runs on credit
//
// The M's two steps have no fence between them. They need none, as the taker has seen the M off its
// CPU at a moment after its first CAS. What the M stored before that moment the taker sees: if it
// is in the runtime, so does its state say. What the M loads after that moment sees the taker's id:
// then the two CAS decide. A state of M_RUNNING read after that moment therefore belongs to an M
// that does not use its P, or will look at the word first.
//
// Nobody waits for a taker: the M takes its P back, and who is left off its CPU with its id in the
// word (an understudy) may be followed by another.
//
// Threads: any with an actor but the owner. Takes no lock, allocates nothing.
// Rejected: a membarrier between the taker's steps instead of asking after the claim: it
// has to reach all CPUs, as the M may have come back on any. PERF_RECORD_SWITCH: a file and 8 KiB
// for each thread, 0.5 us on each switch of each, and refused where perf_event_paranoid is 3.
#pragma once

#include "assist/ownership.hpp"
#include "assist/records.hpp"

namespace baton::assist {

/// Whether claim_asleep can tell. Set at start, before any M runs.
inline bool sees_sleepers = false;

/// Claims the P of `rec`, seen in RUN, for `me` if its M sleeps in G code. True: take(rec, seen,
/// ...) takes it, or unclaim leaves it.
bool claim_asleep(const Records& records, p_rec& rec, Word& seen, const Actor& me);

} // namespace baton::assist
