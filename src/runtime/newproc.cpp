// SPDX-License-Identifier: Apache-2.0
//
// Birth and death of Gs: newproc, the first frame, goexit, and the free lists.
//
// A G's callable lies on its own stack, just below the G: no allocation. Dead Gs are kept with
// their stacks, on their P up to 64 and then, half of them, on the global list for their size. What
// lay there for a whole second without being needed goes back to the system (gfscavenge), but for a
// few.
#include <algorithm>
#include <cerrno>
#include <system_error>

#include "baton/run.hpp"
#include "kernel/stackmem.hpp"
#include "runtime/entry.hpp"
#include "runtime/sched.hpp"
#include "runtime/stack.hpp"
#include "runtime/switch.hpp"

namespace baton::rt {

namespace {

constexpr std::uint32_t kGoidBatch = 16;
constexpr std::uint32_t kGfreeMax = 64;
constexpr std::uint32_t kGfreeKeep = 64; // of each global list the scavenger leaves so many
std::uint32_t default_class = 0;

// P's cache, or as many as make half of it from the global list.
G* gfget(P* p, std::uint32_t cls) {
    FreeGs& global = sched.gfree[cls];
    if (!p || cls != default_class) {
        LockGuard guard(sched.glock);
        return global.pop();
    }
    if (G* gp = p->gfree.pop()) return gp;
    GQueue q;
    {
        LockGuard guard(sched.glock);
        q = global.pop_chain(kGfreeMax / 2);
    }
    p->gfree = {q.head, q.n};
    return p->gfree.pop();
}

void gfput_global(G* gp) {
    // Stacks of another size than most are few: what they have touched is given back.
    if (gp->stack_class != default_class)
        (void)kernel::discard(gp->stack_lo, stack_class_bytes(gp->stack_class) / 2);
    LockGuard guard(sched.glock);
    sched.gfree[gp->stack_class].list.push_front(gp);
}

void gfput(P* p, G* gp) {
    if (!p || gp->stack_class != default_class) {
        gfput_global(gp);
        return;
    }
    p->gfree.push(gp);
    if (p->gfree.n < kGfreeMax) return;
    GChains half;
    while (p->gfree.n > kGfreeMax / 2) half.push_front(p->gfree.pop());
    LockGuard guard(sched.glock);
    sched.gfree[default_class].list.prepend(half);
}

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

// A dead G with its stack, or a new one, with room for a closure of `bytes`.
G* newg(std::uint32_t cls, std::size_t bytes, std::size_t align, int* error) {
    Entry entry;
    G* gp = gfget(current_p(), cls);
    if (!gp) gp = malg(cls, error);
    if (!gp) return nullptr;
    sanitizer_fresh_stack(gp);
    const auto top = reinterpret_cast<std::uintptr_t>(stack_top(gp)) - bytes;
    gp->closure = reinterpret_cast<void*>(top & ~(std::uintptr_t{align} - 1));
    return gp;
}

// Where each G begins.
void gstart() {
#if defined(BATON_ASAN)
    sanitizer_enter(nullptr);
#endif
    after_switch();
    G* gp = getg();
    leave_runtime(getm());
    gp->entry(gp->closure); // what it throws ends in exception.cpp
    if (gp->locals) gp->locals->end(gp);
    enter_runtime(getm());
    M* m = getm();
    goexit1(m, m->curg);
}

} // namespace

void goexit0(G* gp, M* m) {
#if defined(BATON_TSAN)
    __tsan_destroy_fiber(gp->fiber);
    gp->fiber = nullptr;
#endif
    count_goroutine(m->p, -1);
    const bool locked = gp->lockedm != nullptr;
    gp->lockedm = nullptr;
    gfput(m->p, gp); // without a P, on credit: to the global list
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

void gfpurge(P* p) {
    GChains all;
    while (G* gp = p->gfree.pop()) all.push_front(gp);
    LockGuard guard(sched.glock);
    sched.gfree[default_class].list.prepend(all);
}

Idle gfidle() {
    LockGuard guard(sched.glock);
    bool wait = false;
    for (const FreeGs& f : sched.gfree) {
        if (f.surplus != 0) return Idle::kGiveBack;
        wait = wait || f.list.size() > kGfreeKeep;
    }
    return wait ? Idle::kWait : Idle::kNothing;
}

void gfperiod(bool all) {
    if (all) {
        LockGuard guard(sched.lock); // idle Ps stay so
        for (P* p = sched.pidle; p; p = p->link) gfpurge(p);
    }
    LockGuard guard(sched.glock);
    for (FreeGs& f : sched.gfree) {
        f.emptying = all || (f.emptying && f.surplus != 0); // it may take longer than a period
        const std::uint32_t low = all ? f.list.size() : f.low;
        const std::uint32_t keep = f.emptying ? 0 : kGfreeKeep;
        f.surplus = low > keep ? low - keep : 0;
        f.low = f.list.size();
    }
}

bool gfscavenge() {
    G* gp = nullptr;
    {
        LockGuard guard(sched.glock);
        auto* f = std::find_if(std::begin(sched.gfree), std::end(sched.gfree),
                               [](const FreeGs& list) { return list.surplus != 0; });
        if (f == std::end(sched.gfree)) return false;
        f->surplus--;
        gp = f->pop();
    }
    if (gp && !stackfree(gp)) {
        LockGuard guard(sched.glock);
        sched.gfree[gp->stack_class].list.push_front(gp);
    }
    return true;
}

bool newproc(void (*entry)(void*), void* arg) noexcept {
    int error = 0;
    G* gp = newg(default_class, sizeof arg, alignof(void*), &error);
    if (!gp) return false;
    gp->gopc = 0; // whoever asked for it is gone
    gp->parent = 0;
    *static_cast<void**>(gp->closure) = arg;
    baton::detail::newproc_commit(gp, entry);
    return true;
}

void set_default_stack(std::size_t bytes) { default_class = stack_class_for(bytes); }

} // namespace baton::rt

namespace baton::detail {

NewG newproc_begin(std::size_t bytes, std::size_t align, const GoOptions& options) {
    using namespace rt;
    ensure_started();
    const std::uint32_t cls =
        options.stack_bytes ? stack_class_for(options.stack_bytes) : default_class;
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
    gfput_global(static_cast<G*>(g));
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
    gp->sched = arch::make_context(static_cast<std::byte*>(gp->closure), gstart);
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
