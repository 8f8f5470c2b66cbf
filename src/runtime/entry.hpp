// SPDX-License-Identifier: Apache-2.0
//
// Runtime entries: where G code comes into the runtime, and where it leaves it; and credit.
//
// G code never touches its P, so the P may be taken from under it: when the kernel blocks its M
// somewhere that no bracket announced (a page fault, a raw system call, a kernel lock), the probe
// turns the P's word from RUN to OFFCPU, and the P is handed off like any blocked one. So whoever
// enters the runtime first says so, in its record's state, and then looks whether its P is still
// its own. In any other state than M_RUNNING the P is left alone.
//
//     M, in G code                          probe, on the same thread when it loses its CPU
//     state = M_RUNTIME                     state is not M_RUNNING?  then leave the P
//     word still {me, RUN}?                 word {me, RUN} -> {me, OFFCPU}
//
// An M that lost its P, in G code or in a bracket, comes back on credit: its G runs on without a P,
// for a moment (kCreditNs) even through calls of the runtime, which mostly do without one, as for
// plain threads: what it readies goes to the global queue. Most Gs that come back from a block
// answer somebody and park again; to queue for a P in between would cost them two switches. What
// does need a P (yield), and credit that is used up, settles: the G waits for one in the
// global queue.
//
// Without a probe others take it, of an M that they have seen asleep (assist/asleep.hpp).
//
// Both columns run on one thread, like a function and a signal handler: program order is enough,
// the compiler alone must keep it (signal fences).
//
// Every public function that touches a P, a runtime lock or a wait queue opens an Entry. g0 never
// is in M_RUNNING; a G that parks is in the runtime then and when it comes back, perhaps on another
// M.
#pragma once

#include <atomic>

#include "kernel/build.hpp"
#include "runtime/runtime.hpp"

#if defined(BATON_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace baton::rt {

inline shared::m_state state_of(const M* m) { return m->rec->state; }
/// In G code: the P may be taken when the kernel blocks this thread, or is taken already.
inline bool in_gcode(const M* m) {
    const shared::m_state s = state_of(m);
    return s >= shared::M_RUNNING && s <= shared::M_CREDIT;
}
/// Between entersyscall and exitsyscall: the P's word says what may be done.
inline bool in_bracket(const M* m) {
    const shared::m_state s = state_of(m);
    return s == shared::M_SYSCALL || s == shared::M_BLOCKED;
}
/// Ordered, for the compiler, with what is on either side: the probe runs on this very thread.
inline void set_state(M* m, shared::m_state s) {
#if defined(BATON_TSAN)
    // It does not see the probe mark the word, which on this thread comes after all this M did to
    // its P.
    if (s == shared::M_RUNNING) __tsan_release(&m->prec->word);
#endif
    std::atomic_signal_fence(std::memory_order_seq_cst);
    // release: pairs with the acquire in claim_asleep: who finds M_RUNNING there sees what this M
    // did to its P before. The probe reads it on this thread, others for people.
    std::atomic_ref(m->rec->state).store(s, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

/// Is m's P its own? Only in the runtime, where it then stays so.
inline bool holds_p(const M* m) {
    // relaxed: only this M writes a word that says so, or the probe on its thread.
    return std::atomic_ref(m->prec->word).load(std::memory_order_relaxed) == m->run;
}

/// How long a G may go on without a P.
inline constexpr std::int64_t kCreditNs = 200'000;

/// Gets a P for the G that runs on m, which has none: waits for one if need be, and may return on
/// another M.
void settle(M* m) noexcept;
/// m's P is not its own: gets one if that is to be had at once, else m has none from here on.
void enter_on_credit(M* m) noexcept;
/// With requests to heed, or without a P.
void leave_runtime_slow() noexcept;

/// Comes into the runtime from G code. Afterwards m has a P, or none, and knows.
inline void enter_runtime(M* m) {
    set_state(m, shared::M_RUNTIME);
    if (!holds_p(m)) [[unlikely]]
        enter_on_credit(m);
}
/// Back to G code, unless its time slice is over: then others run first.
inline void leave_runtime(M* m) {
    // relaxed: a request seen one call later does no harm.
    if (!m->p || m->p->attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
        return leave_runtime_slow();
    set_state(m, shared::M_RUNNING);
}

/// In the runtime for a scope; a nested one changes nothing. On a plain thread it does nothing.
class Entry {
public:
    Entry() {
        M* m = getm_or_null();
        if (!m || !in_gcode(m)) return;
        outermost_ = true;
        enter_runtime(m);
    }
    ~Entry() {
        if (outermost_) leave_runtime(getm());
    }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

private:
    bool outermost_ = false;
};
/// The same, for what cannot be done without a P. Not on plain threads.
class EntryWithP : public Entry {
public:
    EntryWithP() {
        M* m = getm();
        if (!m->p) settle(m);
    }
};

/// The same, for callbacks of code that takes it for granted that a call returns on the thread it
/// was made on: what leave_runtime would heed is left to the next to leave.
class EntryInPlace {
public:
    EntryInPlace() {
        M* m = getm_or_null();
        if (!m || !in_gcode(m)) return;
        outermost_ = true;
        enter_runtime(m);
    }
    ~EntryInPlace() {
        if (!outermost_) return;
        M* m = getm();
        set_state(m, m->p ? shared::M_RUNNING : shared::M_CREDIT);
    }
    EntryInPlace(const EntryInPlace&) = delete;
    EntryInPlace& operator=(const EntryInPlace&) = delete;

private:
    bool outermost_ = false;
};

/// The P this thread may touch, or null: a plain thread, inside blocking(), on credit.
inline P* current_p() {
    M* m = getm_or_null();
    return m && !in_bracket(m) ? m->p : nullptr;
}

} // namespace baton::rt
