// SPDX-License-Identifier: Apache-2.0
//
// Who owns a P: one 64-bit word in its record.
//
//     word = { owner:16, taker:16, cpu:16, state:16 }      M slots, 0 = none
//
// `cpu` is where the P's M entered its system call. A call that does not block is left on that CPU,
// as a rule, by the M that entered it: a restartable sequence is enough (load the word, compare,
// commit one store, no locked instruction: 0.9 ns against 5.5 ns for a CAS). Whoever wants the P
// meanwhile first puts its own slot in `taker` by a CAS, makes that CPU restart its sequences by
// membarrier, and then finishes with a second CAS. Once the probe has marked the word BLOCKED its M
// is off the CPU and so in no sequence: from then on one CAS decides, on whichever CPU. The same
// goes for OFFCPU, the mark of an M that the kernel blocked in G code (src/runtime/entry.hpp).
//
//   who                         from                    how                       to
//   owner enters a syscall      {m,0,0,RUN}             plain store               {m,0,cpu,SYSCALL}
//   kernel blocks it (probe)    {m,0,c,SYSCALL}         CAS                       {m,0,c,BLOCKED}
//   ... in G code (probe)       {m,0,0,RUN}             plain store               {m,0,cpu,OFFCPU}
//   it runs on (probe)          {m,0,c,OFFCPU}          CAS                       {m,0,0,RUN}
//   owner leaves, on c          {m,0,c,SYSCALL}         rseq store                {m,0,0,RUN}
//   owner leaves, elsewhere     {m,0,c,SYSCALL}         taker, membarrier, CAS    {m,0,0,RUN}
//   understudy on c, no probe   {o,0,c,SYSCALL}         rseq store                {t,0,0,RUN}
//   another M, no probe         {o,x,0,RUN}             taker, o asleep?, CAS     {t,0,0,RUN}
//   owner enters the runtime    {m,t,0,RUN}             CAS                       {m,0,0,RUN}
//   another M                   {o,0,c,SYSCALL}         taker, membarrier, CAS    {t,0,0,RUN}
//   owner leaves, or another M  {o,0,c,BLOCKED/OFFCPU}  CAS                       {t,0,0,RUN}
//   owner hands over            {m,0,0,RUN}             plain store               {t,0,0,RUN}
//   owner gives up              {m,0,0,RUN}             plain store               {0,0,0,IDLE}
//   idle P is taken (holding its place off the idle list)  plain store            {t,0,0,RUN}
//   world stops, starts         RUN, IDLE <-> GCSTOP; GCSTOP <-> DEAD             plain stores
//
// A set taker always ends with the P in other hands than a leaving owner's fast path: the owner and
// the understudy mind it, and so does the probe. tests/model/ownership.pml checks this table; every
// rule in it is needed.
//
// With a probe nobody but the owner moves SYSCALL by a sequence: the M may block on another CPU
// than c, where the probe's CAS aborts no sequence on c, and a commit there would overwrite
// BLOCKED.
//
// A taker in RUN (asleep.hpp) is no more than a question: the owner need not mind it while it is in
// the runtime, and takes its P back where it comes in and finds one; another taker may put its id
// over it.
//
// Without rseq, or without membarrier, every "rseq store" and "taker, membarrier, CAS" is one CAS,
// in the whole process: the two ways do not mix, as a CAS from another CPU does not stop a
// sequence.
//
// Threads: each function says who may call it. `Actor` is the calling M.
// Ordering: (A) a taker's and an owner's first read of the word is acquire and every store to it is
// release, so whoever gets a P sees all that its last owner wrote to it. (B) A sequence's commit is
// a plain store, which on x86-64 is a release; membarrier's interrupt drains it before the
// taker's second CAS.
// Rejected: moving BLOCKED like SYSCALL (a membarrier, and its interrupt on the other CPU, for most
// Ps taken under load); owner, state and cpu in three words (re-reads in five places, and it failed
// under store buffering); one flag bit with an epoch for the taker (fails with three threads: a
// second taker's flag lets the first's late CAS through).
#pragma once

#include <atomic>
#include <cstdint>

#include "arch/x86_64/rseq_cs.hpp"
#include "baton_shared.h"
#include "kernel/membarrier.hpp"
#include "kernel/rseq.hpp"

namespace baton::assist {

using shared::p_rec;
inline constexpr auto kSeqCst = std::memory_order_seq_cst;
using shared::p_state;

/// The legal moves of a P, as data: kMoves[from] has the bit of each state it may go to.
inline constexpr std::uint32_t kMoves[] = {
    /* P_IDLE    */ 1u << shared::P_RUN | 1u << shared::P_GCSTOP,
    /* P_RUN     */ 1u << shared::P_RUN | 1u << shared::P_SYSCALL | 1u << shared::P_OFFCPU |
        1u << shared::P_IDLE | 1u << shared::P_GCSTOP,
    /* P_SYSCALL */ 1u << shared::P_RUN | 1u << shared::P_BLOCKED,
    /* P_BLOCKED */ 1u << shared::P_RUN,
    /* P_OFFCPU  */ 1u << shared::P_RUN,
    /* P_GCSTOP  */ 1u << shared::P_RUN | 1u << shared::P_IDLE | 1u << shared::P_DEAD,
    /* P_DEAD    */ 1u << shared::P_GCSTOP,
};
constexpr bool legal(p_state from, p_state to) { return (kMoves[from] >> to & 1) != 0; }

/// The word, unpacked.
struct Word {
    std::uint16_t owner = 0;
    std::uint16_t taker = 0;
    std::uint16_t cpu = 0;
    p_state state = shared::P_IDLE;

    static Word of(std::uint64_t w) {
        return {static_cast<std::uint16_t>(w), static_cast<std::uint16_t>(w >> 16),
                static_cast<std::uint16_t>(w >> 32), static_cast<p_state>(w >> 48)};
    }
    std::uint64_t pack() const {
        return std::uint64_t{owner} | std::uint64_t{taker} << 16 | std::uint64_t{cpu} << 32 |
               static_cast<std::uint64_t>(state) << 48;
    }
    /// The probe saw its M go to sleep: one CAS moves it.
    bool marked() const { return state == shared::P_BLOCKED || state == shared::P_OFFCPU; }
    /// Its M is in the kernel, or was: others may take it.
    bool in_kernel() const { return state == shared::P_SYSCALL || marked(); }
};

/// The word of a P whose owner holds it; the same while it does.
constexpr std::uint64_t run_word(std::uint16_t owner) {
    return std::uint64_t{owner} | std::uint64_t{shared::P_RUN} << 48;
}

/// The word of a P while its owner is in a system call that it entered on `cpu`.
constexpr std::uint64_t call_word(std::uint16_t owner, std::uint16_t cpu) {
    return std::uint64_t{owner} | std::uint64_t{cpu} << 32 | std::uint64_t{shared::P_SYSCALL} << 48;
}

/// The area of Ms that have none: its cpu_id is no CPU, so no sequence on it commits.
inline kernel::RseqArea no_rseq;

/// The calling M: its slot, and its rseq area; with no_rseq it is never "here".
struct Actor {
    std::uint16_t slot;
    kernel::RseqArea* rseq;
    std::uint16_t cpu() const { return static_cast<std::uint16_t>(rseq->cpu_id); }
};

/// Whether the process uses restartable sequences; else CAS everywhere. Set once, before any M
/// runs.
inline bool use_rseq = false;
/// Whether a probe marks words. Set once, before any M runs.
inline bool probed = false;

inline std::atomic_ref<std::uint64_t> ref(p_rec& p) {
    return std::atomic_ref<std::uint64_t>(p.word);
}
inline Word load(p_rec& p) {
    return Word::of(ref(p).load(std::memory_order_acquire)); // acquire: (A)
}

/// The owner enters a system call: `call` is its call_word.
inline void enter(p_rec& p, std::uint64_t call) {
    static_assert(legal(shared::P_RUN, shared::P_SYSCALL));
    // release: (A). A store is enough: in RUN others write no more than a taker's id, and one that
    // is overwritten here gives up.
    ref(p).store(call, std::memory_order_release);
}

/// The owner leaves its system call, unblocked and on the same CPU: true, and it owns the P again.
/// False says nothing; then ask `reclaim`.
/// `call` is its call_word for `cpu`, `run` its run_word.
inline bool leave_fast(p_rec& p, std::uint64_t call, std::uint64_t run, kernel::RseqArea* rseq,
                       std::uint32_t cpu) {
    static_assert(legal(shared::P_SYSCALL, shared::P_RUN));
    return arch::rseq_cmp_store(rseq, cpu, &p.word, call, run) == arch::RseqResult::kCommitted;
}

/// Moves a P that was seen as `seen`, in_kernel() with no taker, or claimed by `me` in RUN, to RUN
/// under `owner`. By whichever way its state and the calling thread's CPU demand. True on success;
/// false says that somebody was first, or that this thread was moved while trying.
bool take(p_rec& p, Word seen, std::uint16_t owner, const Actor& me);
/// The same, only by the restartable sequence (or the CAS that stands for it): never waits for
/// another CPU. For the understudy on the CPU of the word.
bool take_here(p_rec& p, Word seen, std::uint16_t owner, const Actor& me);

/// `me` puts its slot in the word of a P in RUN, over whichever is there, and in `seen`. False: the
/// word is no longer `seen`.
bool claim(p_rec& p, Word& seen, const Actor& me);
/// ... and takes it out again, if it is still there.
void unclaim(p_rec& p, Word claimed);

/// The owner leaves the hard way: after a block, on another CPU, interrupted, or claimed. True: it
/// owns the P again, and `was_marked` says whether the probe had marked it. False: the P is lost.
bool reclaim(p_rec& p, const Actor& me, bool& was_marked);

/// The owner gives its P to `to`, which is parked or being made.
inline void hand_over(p_rec& p, std::uint16_t to) {
    static_assert(legal(shared::P_RUN, shared::P_RUN) && legal(shared::P_IDLE, shared::P_RUN));
    ref(p).store(run_word(to), std::memory_order_release); // release: (A)
}
/// The owner puts its P into a state without owner: IDLE, GCSTOP or DEAD.
inline void give_up(p_rec& p, p_state state) {
    ref(p).store(Word{0, 0, 0, state}.pack(), std::memory_order_release); // release: (A)
}

} // namespace baton::assist
