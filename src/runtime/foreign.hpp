// SPDX-License-Identifier: Apache-2.0
//
// Plain threads that wait: what gopark and goready do where there is no M (foreign.cpp).
//
// Threads: foreign_g and foreign_park on threads that are no M; foreign_ready on any.
// Invariants: I1 a foreign G is never on a run queue and never in a list that leads to one. I2 its
// memory is never given back: who woke the thread may touch its futex after the thread has ended.
#pragma once

#include "runtime/runtime.hpp"

namespace baton::rt {

/// The G that stands for the calling thread. It has no stack and no number, and is given back when
/// the thread ends. Ends the process if there is no memory for it.
G* foreign_g() noexcept;
/// gopark for the calling thread, which sleeps in the kernel.
void foreign_park(UnlockFn unlockf, void* lock, WaitReason reason);
/// goready for a foreign G.
void foreign_ready(G* gp);
/// In a forked child, on the thread that forked: the others are gone, with their Gs.
void foreign_forget();
/// Calls `visit` for each plain thread that waits.
void each_foreign(void (*visit)(int tid, WaitReason reason, void* arg), void* arg);

/// The G that waits when the calling thread does.
inline G* waiting_g() noexcept {
    M* m = getm_or_null();
    return m ? m->curg : foreign_g();
}

} // namespace baton::rt
