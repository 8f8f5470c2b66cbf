// SPDX-License-Identifier: Apache-2.0
#include "runtime/stack.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "kernel/stackmem.hpp"
#include "runtime/lock.hpp"
#include "runtime/persistentalloc.hpp"

#if defined(BATON_ASAN)
#include <sanitizer/lsan_interface.h>
#endif

namespace baton::rt {

namespace {

constexpr std::size_t kSlabBytes = std::size_t{64} << 20;
constexpr std::size_t kSlabsMax = std::size_t{1} << 16;

struct Slab {
    std::byte* start;
    std::byte* end;
    std::uint32_t cls;
    // A bit for each slot that was given back; made with the first. Under the lock of the class.
    std::uint64_t* free;
    std::uint32_t nfree;
};
// Written under the lock of the class, read without one by the SIGSEGV handler.
Slab slabs[kSlabsMax];
std::atomic<std::size_t> nslabs{0};

struct Class {
    Lock lock{Rank::kStack};
    std::byte* next = nullptr; // the rest of the newest slab
    std::byte* end = nullptr;
    std::size_t first = 0; // no slab before this one has a slot that was given back
    std::size_t nfree = 0;
};
Class classes[kStackClasses];
Lock slabs_lock{Rank::kLeaf};

int grow(Class& c, std::uint32_t cls) {
    const std::size_t bytes = std::max(kSlabBytes, stack_class_bytes(cls));
    int error = 0;
    auto* start = static_cast<std::byte*>(kernel::reserve(bytes, &error));
    if (!start) return -error;
    LockGuard guard(slabs_lock);
    const std::size_t n = nslabs.load(std::memory_order_relaxed); // relaxed: under the lock
    if (n == kSlabsMax) {
        kernel::release(start, bytes);
        return ENOMEM;
    }
    slabs[n] = {start, start + bytes, cls, nullptr, 0};
    nslabs.store(n + 1, std::memory_order_release); // release: pairs with guard_owner's acquire
    c.next = start;
    c.end = start + bytes;
    return 0;
}

// The slot given back that lies lowest, so that the others stay together; null if there is none.
// The lock of the class is held.
std::byte* take_freed(Class& c, std::uint32_t cls) {
    if (c.nfree == 0) return nullptr;
    (void)nslabs.load(std::memory_order_acquire); // acquire: slabs of other classes are read too
    while (slabs[c.first].cls != cls || slabs[c.first].nfree == 0) c.first++;
    Slab& s = slabs[c.first];
    std::size_t word = 0;
    while (s.free[word] == 0) word++;
    const auto bit = static_cast<std::size_t>(std::countr_zero(s.free[word]));
    s.free[word] &= s.free[word] - 1;
    s.nfree--;
    c.nfree--;
    return s.start + (word * 64 + bit) * stack_class_bytes(cls);
}

// Null if none has it.
Slab* slab_of(const std::byte* at) {
    const std::size_t n = nslabs.load(std::memory_order_acquire); // acquire: pairs with grow
    for (std::size_t i = 0; i < n; i++) {
        if (at >= slabs[i].start && at < slabs[i].end) return &slabs[i];
    }
    return nullptr;
}

std::byte* g_address(std::byte* lo, std::size_t bytes) {
    const std::size_t colour = reinterpret_cast<std::uintptr_t>(lo) / bytes % 16 * 64;
    return lo + bytes - colour - (sizeof(G) + 63) / 64 * 64;
}

} // namespace

std::size_t stack_class_bytes(std::uint32_t cls) noexcept { return kMinStack << cls; }

std::uint32_t stack_class_for(std::size_t bytes) noexcept {
    const std::size_t size = std::bit_ceil(std::max(bytes, kMinStack));
    const int cls = std::countr_zero(size) - std::countr_zero(kMinStack);
    return std::min(static_cast<std::uint32_t>(cls), kStackClasses);
}

G* malg(std::uint32_t cls, int* error) noexcept {
    const std::size_t bytes = stack_class_bytes(cls);
    Class& c = classes[cls];
    std::byte* lo;
    bool guarded = true;
    {
        LockGuard guard(c.lock);
        lo = take_freed(c, cls);
        if (!lo) {
            if (c.next == c.end) {
                *error = grow(c, cls);
                if (*error) return nullptr;
            }
            lo = c.next;
            c.next += bytes;
            guarded = false;
        }
    }
    const int rc = guarded ? 0 : kernel::install_guard(lo, kernel::page_size());
    if (rc < 0) { // the slot is lost, 64 KiB of address space
        *error = -rc;
        return nullptr;
    }
    auto* gp = new (g_address(lo, bytes)) G;
    gp->stack_lo = lo + kernel::page_size();
    gp->stack_class = cls;
#if defined(BATON_ASAN)
    // What a G that never ends still holds is no leak.
    const auto* end = reinterpret_cast<const std::byte*>(gp + 1);
    __lsan_register_root_region(gp->stack_lo, static_cast<std::size_t>(end - gp->stack_lo));
#endif
    return gp;
}

void each_g(void (*visit)(G* gp, void* arg), void* arg) {
    const std::size_t n = nslabs.load(std::memory_order_acquire); // acquire: pairs with grow
    for (std::size_t i = 0; i < n; i++) {
        const Slab& s = slabs[i];
        std::byte* end = s.end;
        {
            Class& c = classes[s.cls];
            LockGuard guard(c.lock);
            if (c.end == s.end) end = c.next;
        }
        const std::size_t bytes = stack_class_bytes(s.cls);
        for (std::byte* lo = s.start; lo < end; lo += bytes) {
            G* gp = reinterpret_cast<G*>(g_address(lo, bytes));
            if (gp->stack_lo) visit(gp, arg); // null: the slot was lost
        }
    }
}

bool stackfree(G* gp) noexcept {
    // acquire: pairs with the release of who took it out of a heap, and reads it no more.
    if (gp->sleep_timer.heap.load(std::memory_order_acquire)) return false;
    const std::uint32_t cls = gp->stack_class;
    const std::size_t bytes = stack_class_bytes(cls);
    std::byte* lo = gp->stack_lo - kernel::page_size();
    Slab& s = *slab_of(lo);
    Class& c = classes[cls];
    const auto slots = static_cast<std::size_t>(s.end - s.start) / bytes;
    const auto slot = static_cast<std::size_t>(lo - s.start) / bytes;
    {
        LockGuard guard(c.lock);
        if (!s.free)
            s.free = static_cast<std::uint64_t*>(
                persistentalloc((slots + 63) / 64 * sizeof(std::uint64_t), alignof(std::uint64_t)));
        if (!s.free) return false;
    }
    gp->~G();
    (void)kernel::discard(lo + kernel::page_size(), bytes - kernel::page_size());
    LockGuard guard(c.lock);
    s.free[slot / 64] |= std::uint64_t{1} << slot % 64;
    s.nfree++;
    c.nfree++;
    c.first = std::min(c.first, static_cast<std::size_t>(&s - slabs));
    return true;
}

G* guard_owner(const void* addr) noexcept {
    auto* a = static_cast<const std::byte*>(addr);
    const Slab* s = slab_of(a);
    if (!s) return nullptr;
    const std::size_t bytes = stack_class_bytes(s->cls);
    std::byte* lo = s->start + static_cast<std::size_t>(a - s->start) / bytes * bytes;
    if (static_cast<std::size_t>(a - lo) >= kernel::page_size()) return nullptr;
    return reinterpret_cast<G*>(g_address(lo, bytes));
}

void stacks_forget() {
    for (Class& c : classes) new (&c) Class;
    new (&slabs_lock) Lock(Rank::kLeaf);
}

} // namespace baton::rt
