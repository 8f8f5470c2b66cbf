// SPDX-License-Identifier: Apache-2.0
//
// Leaving one G's stack for another's, or for g0.
//
// A G that leaves must not be seen by others (a queue, a waker) before its context is saved:
// another M would run a stack that is still in use. The reference hops to g0 for that. Here the
// context that is switched TO does it, in after_switch, so that a park with a next G at hand is one
// switch, not two.
//
//   leaving G                     next G, or g0
//   ---------                     -------------
//   m->prev, m->after set
//   baton_switch  ------------->  returns from its own baton_switch (or begins)
//                                 after_switch: m->after(prev): put it on its queue, unlock its
//                                 lock
//
// Threads: the M itself.
// Rejected: hopping to g0 always (5 ns more per switch).
#pragma once

#include "runtime/stack.hpp"

#if defined(BATON_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(BATON_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace baton::rt {

/// The first thing each context does when it gets the CPU back.
inline void after_switch() {
    M* m = getm();
    G* prev = m->prev;
    if (!prev) return;
    m->prev = nullptr;
    m->after(prev, m);
}

#if defined(BATON_ASAN)
inline void sanitizer_leave(void** save, const void* bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(save, bottom, size);
}
inline void sanitizer_enter(void* saved) {
    __sanitizer_finish_switch_fiber(saved, nullptr, nullptr);
}
inline std::size_t stack_bytes(const G* gp) {
    return static_cast<std::size_t>(stack_top(gp->stack) - gp->stack_lo);
}
/// The frames of the G that died on this stack are no longer out of bounds.
inline void sanitizer_fresh_stack(StackSlot* stack) {
    __asan_unpoison_memory_region(stack->lo,
                                  static_cast<std::size_t>(stack_top(stack) - stack->lo));
}
#else
inline void sanitizer_fresh_stack(StackSlot*) {}
#endif

/// Gets gp, which has not begun, a stack of p's (newproc.cpp).
void find_stack(P* p, G* gp) noexcept;

/// Makes `next` the running G of m.
inline void become(M* m, G* next) {
    next->m = m;
    next->status.store(GStatus::kRunning, std::memory_order_relaxed); // relaxed: see G::status
    m->curg = next;
    m->rec->goid = next->goid;
}
/// The same, short of switching to it.
inline void prepare(M* m, G* next) {
    if (!next->sched.sp) find_stack(m->p, next);
    become(m, next);
}

/// Running G gp -> runnable G next, which is off all queues. `last`: gp's stack will not be used
/// again.
inline void switch_g_to_g(M* m, G* gp, G* next, bool last = false) {
    prepare(m, next);
    gp->eh = *m->eh;
    *m->eh = next->eh;
#if defined(BATON_TSAN)
    __tsan_switch_to_fiber(next->fiber, 0);
#elif defined(BATON_ASAN)
    sanitizer_leave(last ? nullptr : &gp->fiber, next->stack_lo, stack_bytes(next));
#endif
    (void)last;
    arch::baton_switch(&gp->sched, &next->sched);
#if defined(BATON_ASAN)
    sanitizer_enter(gp->fiber);
#endif
}

/// Running G gp -> the M's g0.
inline void switch_g_to_g0(M* m, G* gp, bool last = false) {
    m->curg = nullptr;
    m->rec->goid = 0;
    gp->eh = *m->eh;
    *m->eh = {};
#if defined(BATON_TSAN)
    __tsan_switch_to_fiber(m->fiber, 0);
#elif defined(BATON_ASAN)
    sanitizer_leave(last ? nullptr : &gp->fiber, m->stack_bottom, m->stack_size);
#endif
    (void)last;
    arch::baton_switch(&gp->sched, &m->g0);
#if defined(BATON_ASAN)
    sanitizer_enter(gp->fiber);
#endif
}

/// g0 -> runnable G next, which is off all queues. Returns on g0.
inline void switch_g0_to_g(M* m, G* next) {
    prepare(m, next);
    *m->eh = next->eh;
#if defined(BATON_TSAN)
    __tsan_switch_to_fiber(next->fiber, 0);
#elif defined(BATON_ASAN)
    sanitizer_leave(&m->fiber, next->stack_lo, stack_bytes(next));
#endif
    arch::baton_switch(&m->g0, &next->sched);
#if defined(BATON_ASAN)
    sanitizer_enter(m->fiber);
#endif
}

} // namespace baton::rt
