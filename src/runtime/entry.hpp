// SPDX-License-Identifier: Apache-2.0
//
// Runtime entries: where G code comes into the runtime, and where it leaves it.
//
// G code never touches its P, so the P may be taken from under it: when the kernel blocks its M
// somewhere that no bracket announced (a page fault, a raw system call, a kernel lock), the probe
// turns the P's word from RUN to OFFCPU, and the P is handed off like any blocked one. The M comes
// back on credit: it runs on without a P, and does not know. So whoever enters the runtime first
// says so, in its record's state, and then looks whether its P is still its own; if not it settles,
// by the steps of exitsyscall. In any other state than M_RUNNING the P is left alone.
//
//     M, in G code                          probe, on the same thread when it loses its CPU
//     state = M_RUNTIME                     state is not M_RUNNING?  then leave the P
//     word still {me, RUN}?  else settle    word {me, RUN} -> {me, OFFCPU}
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
    // relaxed: read by the probe on this thread, and by others for people. Atomic for them.
    std::atomic_ref(m->rec->state).store(s, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

/// Is m's P its own? Only in the runtime, where it then stays so.
inline bool holds_p(const M* m) {
    // relaxed: only this M writes a word that says so, or the probe on its thread.
    return std::atomic_ref(m->prec->word).load(std::memory_order_relaxed) == m->run;
}

/// Comes into the runtime from G code; may return on another M, as the G may have to wait for a P.
void settle(M* m) noexcept;
inline void enter_runtime(M* m) {
    set_state(m, shared::M_RUNTIME);
    if (!holds_p(m)) [[unlikely]]
        settle(m);
}
/// Back to G code, unless its time slice is over: then others run first.
void leave_runtime_slow() noexcept;
inline void leave_runtime(M* m) {
    // relaxed: a request seen one call later does no harm.
    if (m->p->attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
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

/// The P this thread may touch, or null: a plain thread, inside blocking(), or g0 without one.
inline P* current_p() {
    M* m = getm_or_null();
    return m && !in_bracket(m) ? m->p : nullptr;
}

} // namespace baton::rt
