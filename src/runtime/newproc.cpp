// SPDX-License-Identifier: Apache-2.0
//
// Birth and death of Gs: newproc, the first frame, goexit.
//
// A G's callable lies in the G, if it is small: no allocation. Until it begins that is all there is
// of it, but for the promise of a stack (stack.hpp). One that asks for a stack of another size, or
// has more to carry, gets its stack at birth, and its callable lies at the top of that.
//
// A G that ends and finds the next one to be new leaves it its stack as it stands: gstart calls the
// one function after the other, and a row of short ones is a loop.
#include <cerrno>
#include <system_error>
#include <utility>

#include "baton/run.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "runtime/stack.hpp"
#include "runtime/start.hpp"
#include "runtime/switch.hpp"

namespace baton::rt {

namespace {

constexpr std::uint32_t kGoidBatch = 16;

std::uint64_t next_goid(P* p) {
    // relaxed: only uniqueness is asked.
    if (!p) return sched.goidgen.fetch_add(1, std::memory_order_relaxed) + 1;
    if (p->goidcache == p->goidcacheend) {
        // relaxed: as above
        p->goidcache = sched.goidgen.fetch_add(kGoidBatch, std::memory_order_relaxed) + 1;
        p->goidcacheend = p->goidcache + kGoidBatch;
    }
    return p->goidcache++;
}

// One more, or one less.
void count_goroutine(P* p, std::int64_t n) {
    constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: see P::ngo
    if (p) {
        p->ngo.store(p->ngo.load(kRelaxed) + n, kRelaxed);
    } else {
        sched.ngo_elsewhere.fetch_add(n, kRelaxed); // relaxed: the sum alone counts
    }
}

void give_stack(G* gp, StackSlot* stack) {
    stack->owner = gp;
    gp->stack = stack;
    gp->stack_lo = stack->lo;
}

// A dead G with room for a closure of `bytes`.
G* newg(std::uint32_t cls, std::size_t bytes, std::size_t align, int* error) {
    Entry entry;
    P* p = current_p();
    G* gp = gfget(p, error);
    if (!gp) return nullptr;
    if (bytes <= kGRoom && align <= alignof(G) && cls == default_stack_class) [[likely]] {
        gp->closure = gp->room;
        return gp;
    }
    StackSlot* stack = stackget(p, cls, error);
    if (!stack) {
        gfput(p, gp);
        return nullptr;
    }
    sanitizer_fresh_stack(stack);
    give_stack(gp, stack);
    const auto top = reinterpret_cast<std::uintptr_t>(stack_top(stack)) - bytes;
    gp->closure = reinterpret_cast<void*>(top & ~(std::uintptr_t{align} - 1));
    return gp;
}

// gp, which has ended or will never begin, is nobody's any more; nor is its stack, if it has one.
void drop(P* p, G* gp) {
    gp->sched.sp = nullptr;
    if (StackSlot* stack = std::exchange(gp->stack, nullptr)) stackput(p, stack);
    gfput(p, gp);
}

// Where each G begins.
void gstart() {
#if defined(BATON_ASAN)
    sanitizer_enter(nullptr);
#endif
    after_switch();
    for (;;) {
        G* gp = getg();
        leave_runtime(getm());
        gp->entry(gp->closure); // what it throws ends in exception.cpp
        if (gp->locals) gp->locals->end(gp);
        M* m = getm();
        enter_runtime(m);
#if defined(BATON_TSAN)
        void* fiber = gp->fiber;
#endif
        if (!goexit1(m, gp)) __builtin_unreachable();
#if defined(BATON_TSAN) // here, as no instrumented function may begin in one and end in another
        __tsan_switch_to_fiber(getg()->fiber, 0);
        __tsan_destroy_fiber(fiber);
#endif
    }
}

} // namespace

void find_stack(P* p, G* gp) noexcept {
    int error = 0;
    StackSlot* stack = stackget(p, default_stack_class, &error);
    // It was promised, but for a guard: of the kernel's own memory, which it does not refuse.
    if (!stack) fatal("no memory for the guard page of a goroutine's stack");
    sanitizer_fresh_stack(stack);
    give_stack(gp, stack);
    gp->sched = arch::make_context(stack_top(stack), gstart);
}

void inherit_stack(M* m, G* gp, G* next) noexcept {
    give_stack(next, std::exchange(gp->stack, nullptr));
    next->sched.sp = gp->stack_lo; // it has begun
    count_goroutine(m->p, -1);
    drop(m->p, gp);
}

void goexit0(G* gp, M* m) {
#if defined(BATON_TSAN)
    __tsan_destroy_fiber(gp->fiber);
    gp->fiber = nullptr;
#endif
    count_goroutine(m->p, -1);
    const bool locked = gp->lockedm != nullptr;
    gp->lockedm = nullptr;
    drop(m->p, gp); // without a P, on credit: to the shared lists
    if (locked) goexit_locked(m);
}

std::int64_t gcount() {
    constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: see P::ngo
    // relaxed: the sum alone counts.
    std::int64_t n = sched.ngo_elsewhere.load(kRelaxed);
    for (std::uint32_t i = 0, nprocs = procs(); i < nprocs; i++)
        n += sched.allp[i]->ngo.load(kRelaxed);
    return n;
}

bool newproc(void (*entry)(void*), void* arg) noexcept {
    int error = 0;
    G* gp = newg(default_stack_class, sizeof arg, alignof(void*), &error);
    if (!gp) return false;
    gp->gopc = 0; // whoever asked for it is gone
    gp->parent = 0;
    *static_cast<void**>(gp->closure) = arg;
    baton::detail::newproc_commit(gp, entry);
    return true;
}

void set_default_stack(std::size_t bytes) { default_stack_class = stack_class_for(bytes); }

} // namespace baton::rt

namespace baton::detail {

NewG newproc_begin(std::size_t bytes, std::size_t align, const GoOptions& options) {
    using namespace rt;
    ensure_started();
    const std::uint32_t cls =
        options.stack_bytes ? stack_class_for(options.stack_bytes) : default_stack_class;
    if (cls >= kStackClasses || bytes > stack_class_bytes(cls) / 2)
        throw std::system_error(EINVAL, std::generic_category(),
                                "baton::go: stack size out of range (at most 1 GiB, and the "
                                "arguments must fit in half of it)");
    int error = 0;
    G* gp = newg(cls, bytes, align, &error);
    if (!gp)
        throw std::system_error(error, std::generic_category(),
                                "baton::go: no memory for a goroutine's stack; see ulimit -v, "
                                "vm.max_map_count and the cgroup's memory.max");
    // Here, as this is never the caller's last call.
    gp->gopc = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
    const M* m = getm_or_null();
    gp->parent = m && m->curg ? m->curg->goid : 0;
    return {gp, gp->closure};
}

void newproc_abandon(void* g) noexcept {
    using namespace rt;
    Entry entry;
    drop(current_p(), static_cast<G*>(g));
}

void newproc_commit(void* g, void (*entry)(void*)) noexcept {
    using namespace rt;
    Entry in;
    auto* gp = static_cast<G*>(g);
    P* p = current_p();
    gp->entry = entry;
    gp->goid = next_goid(p);
    gp->eh = {};
    gp->forks = forks;
    if (gp->stack) gp->sched = arch::make_context(static_cast<std::byte*>(gp->closure), gstart);
#if defined(BATON_TSAN)
    gp->fiber = __tsan_create_fiber(0);
#elif defined(BATON_ASAN)
    gp->fiber = nullptr;
#endif
    gp->status.store(GStatus::kRunnable, std::memory_order_relaxed); // relaxed: see G::status
    count_goroutine(p, 1);
    if (p) {
        runqput(p, gp, true);
        if (only_p()) return;
    } else {
        LockGuard guard(sched.lock);
        globrunqput(gp);
    }
    wakep();
}

} // namespace baton::detail
