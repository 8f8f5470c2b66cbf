// SPDX-License-Identifier: Apache-2.0
//
// Dead Gs and their stacks, each kept for the next ones: on their P, Gs up to 64 and stacks up to
// 16, and then, half of them, on the lists that all Ps share. What lay there for a whole second
// without being needed goes back to the system (gfscavenge), but for a few.
#include <algorithm>
#include <iterator>
#include <utility>

#include "kernel/stackmem.hpp"
#include "runtime/galloc.hpp"
#include "runtime/sched.hpp"
#include "runtime/stackcache.hpp"

namespace baton::rt {

namespace {

constexpr std::uint32_t kGfreeMax = 64;
constexpr std::uint32_t kGfreeKeep = 64; // of each shared list the scavenger leaves so many
constexpr std::size_t kStackCacheBytes = std::size_t{16} << 20; // where it would be more: none

// How many stacks p may hold: kStackCache, which are promised on top of one for each G, or none.
std::uint32_t stack_cache_max(P* p) {
    if (p->stackfree.asked) return p->stackfree.max;
    p->stackfree.asked = true;
    const bool small = kStackCache * stack_class_bytes(default_stack_class) <= kStackCacheBytes;
    if (small && stacks_promise(kStackCache) == 0) p->stackfree.max = kStackCache;
    return p->stackfree.max;
}

void stackput_global(StackSlot* stack) {
    // Stacks of another size than most are few: what they have touched is given back.
    if (stack->cls != default_stack_class)
        (void)kernel::discard(stack->lo, stack_class_bytes(stack->cls) / 2);
    LockGuard guard(sched.glock);
    sched.stackfree[stack->cls].list.push(stack);
}

// All but the `keep` that were used last go where all Ps find them.
void stackflush(P* p, std::uint32_t keep) {
    StackCache& c = p->stackfree;
    if (c.n <= keep) return;
    StackSlot** link = &c.head;
    for (std::uint32_t i = 0; i < keep; i++) link = &(*link)->next;
    StackSlot* rest = std::exchange(*link, nullptr);
    const std::uint32_t n = std::exchange(c.n, keep) - keep;
    LockGuard guard(sched.glock);
    sched.stackfree[default_stack_class].list.push_batch(rest, n);
}

template <class F>
void each_list(F&& f) {
    for (FreeStacks& list : sched.stackfree) f(list);
    f(sched.gfree);
}

} // namespace

StackSlot* stackget(P* p, std::uint32_t cls, int* error) noexcept {
    FreeStacks& global = sched.stackfree[cls];
    StackSlot* stack = nullptr;
    if (p && cls == default_stack_class) {
        StackCache& c = p->stackfree;
        if (!c.head && stack_cache_max(p) != 0) {
            LockGuard guard(sched.glock);
            c.head = global.list.pop_batch();
            global.took();
            c.n = c.head ? c.head->n : 0;
        }
        if ((stack = c.head)) {
            c.head = stack->next;
            c.n--;
            return stack;
        }
    }
    {
        LockGuard guard(sched.glock);
        stack = global.pop();
    }
    return stack ? stack : stackalloc(cls, error);
}

void stackput(P* p, StackSlot* stack) noexcept {
    if (!p || stack->cls != default_stack_class) return stackput_global(stack);
    StackCache& c = p->stackfree;
    if (c.n == c.max) {
        if (stack_cache_max(p) == 0) return stackput_global(stack);
        stackflush(p, c.max / 2);
    }
    stack->next = c.head;
    c.head = stack;
    c.n++;
}

G* gfget(P* p, int* error) noexcept {
    if (p && !p->gfree.empty()) return p->gfree.pop();
    GQueue q;
    {
        LockGuard guard(sched.glock);
        q = sched.gfree.list.pop_chain(p ? kGfreeMax / 2 : 1);
        sched.gfree.took();
    }
    GList list{q.head, q.n};
    if (list.empty()) list = malg(error);
    G* gp = list.pop();
    if (p) {
        p->gfree = list;
    } else if (!list.empty()) {
        LockGuard guard(sched.glock);
        while (G* more = list.pop()) sched.gfree.list.push_front(more);
    }
    return gp;
}

void gfput(P* p, G* gp) noexcept {
    if (!p) {
        LockGuard guard(sched.glock);
        sched.gfree.list.push_front(gp);
        return;
    }
    p->gfree.push(gp);
    if (p->gfree.n < kGfreeMax) return;
    GChains half;
    while (p->gfree.n > kGfreeMax / 2) half.push_front(p->gfree.pop());
    LockGuard guard(sched.glock);
    sched.gfree.list.prepend(half);
}

void gfpurge(P* p) {
    stackflush(p, 0);
    GChains all;
    while (G* gp = p->gfree.pop()) all.push_front(gp);
    LockGuard guard(sched.glock);
    sched.gfree.list.prepend(all);
}

bool gfsurplus() {
    LockGuard guard(sched.glock);
    bool any = false;
    each_list([&](const auto& f) { any = any || f.surplus != 0; });
    return any;
}

void gfperiod(bool all) {
    if (all) {
        LockGuard guard(sched.lock); // idle Ps stay so
        for (P* p = sched.pidle; p; p = p->link) gfpurge(p);
    }
    LockGuard guard(sched.glock);
    each_list([all](auto& f) {
        f.emptying = all || (f.emptying && f.surplus != 0); // it may take longer than a period
        const std::uint32_t low = all ? f.list.size() : f.low;
        const std::uint32_t keep = f.emptying ? 0 : kGfreeKeep;
        f.surplus = low > keep ? low - keep : 0;
        f.low = f.list.size();
    });
}

bool gfscavenge() {
    StackSlot* stack = nullptr;
    G* gp = nullptr;
    {
        LockGuard guard(sched.glock);
        auto* f = std::find_if(std::begin(sched.stackfree), std::end(sched.stackfree),
                               [](const FreeStacks& list) { return list.surplus != 0; });
        if (f != std::end(sched.stackfree)) {
            f->surplus--;
            stack = f->pop();
        } else if (sched.gfree.surplus != 0) {
            sched.gfree.surplus--;
            gp = sched.gfree.pop();
        } else {
            return false;
        }
    }
    if (stack && !stackfree(stack)) {
        LockGuard guard(sched.glock);
        sched.stackfree[stack->cls].list.push(stack);
    }
    if (gp && !gdiscard(gp)) {
        LockGuard guard(sched.glock);
        sched.gfree.list.push_back(gp);
    }
    return true;
}

} // namespace baton::rt
