// SPDX-License-Identifier: Apache-2.0
#include "assist/asleep.hpp"

#include "kernel/sleeper.hpp"

namespace baton::assist {

namespace {

// Asked after the claim: with it the slot is that thread's until the word changes.
bool sleeps_in_gcode(shared::m_rec& m) {
    // relaxed: written once, before its thread had its first P.
    const shared::u32 tid = std::atomic_ref(m.tid).load(std::memory_order_relaxed);
    if (tid == 0 || kernel::sleeps_in(tid) == kernel::kAwake) return false;
    // acquire: with M_RUNNING comes what its M did to the P before. Not above: see the head.
    return std::atomic_ref(m.state).load(std::memory_order_acquire) == shared::M_RUNNING;
}

} // namespace

bool claim_asleep(const Records& records, p_rec& rec, Word& seen, const Actor& me) {
    if (!sees_sleepers || seen.state != shared::P_RUN) return false;
    shared::m_rec& m = records.m[seen.owner];
    // relaxed: spares the M in the runtime a claim; asked again after it.
    if (std::atomic_ref(m.state).load(std::memory_order_relaxed) != shared::M_RUNNING) return false;
    if (!claim(rec, seen, me)) return false;
    if (sleeps_in_gcode(m)) return true;
    unclaim(rec, seen);
    return false;
}

} // namespace baton::assist
