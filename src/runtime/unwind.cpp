// SPDX-License-Identifier: Apache-2.0
#include "runtime/unwind.hpp"

#include <unwind.h>

#include <atomic>

namespace baton::rt {

namespace {

// Where survive_fault goes on. Written by this thread alone, whose handlers read it.
constinit thread_local void** rescue = nullptr;

struct Walk {
    Stack* stack;
    bool begun; // behind the frames of the walk itself
};

_Unwind_Reason_Code note_frame(_Unwind_Context* context, void* arg) {
    auto* w = static_cast<Walk*>(arg);
    int exact = 0; // interrupted there; else it is a return address, perhaps of the next function
    const _Unwind_Ptr pc = _Unwind_GetIPInfo(context, &exact);
    if (!w->begun) {
        w->begun =
            _Unwind_GetRegionStart(context) == reinterpret_cast<_Unwind_Ptr>(arch::baton_walk_from);
        return _URC_NO_REASON;
    }
    if (pc == 0 || w->stack->n == Stack::kMost) return _URC_END_OF_STACK;
    w->stack->add(pc - (exact ? 0 : 1));
    return _URC_NO_REASON;
}

[[gnu::noinline]] void unwind(void* walk) {
    _Unwind_Backtrace(note_frame, walk);
    asm volatile(""); // no tail call: baton_walk_from knows who its callee is
}

} // namespace

// The builtin, as the library's setjmp is intercepted.
[[gnu::noinline]] void walk(const arch::Registers& at, Stack* stack) noexcept {
    void* here[5];
    void** const before = rescue;
    stack->n = 0;
    stack->torn = false;
    if (__builtin_setjmp(here) == 0) {
        rescue = here;
        std::atomic_signal_fence(std::memory_order_seq_cst);
        Walk w{stack, false};
        arch::baton_walk_from(&at, unwind, &w);
    } else {
        stack->torn = true;
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    rescue = before;
}

[[gnu::noinline]] void walk_here(Stack* stack) noexcept {
    arch::Registers here{};
    arch::note_registers(&here);
    walk(here, stack);
}

// By what the handler returns to: were it left by a jump, ThreadSanitizer would take the thread to
// be in it from then on.
bool survive_fault(void* context) noexcept {
    if (!rescue) return false;
    arch::return_to(context, rescue);
    return true;
}

} // namespace baton::rt
