// SPDX-License-Identifier: Apache-2.0
#include "runtime/stack.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "kernel/features.hpp"
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
constexpr std::size_t kOnTheirWay = 2; // back to the kernel, where nobody finds them meanwhile

struct Slab {
    std::byte* start;
    std::byte* next; // the first slot that was never used; under the lock of the class
    std::byte* end;
    std::uint32_t cls;
    // A bit for each slot that has its guard and no memory; made with the first. Under the lock of
    // the class.
    std::uint64_t* free;
    std::uint32_t nfree;
};
// Written under the lock of the class, read without one by the SIGSEGV handler.
Slab slabs[kSlabsMax];
std::atomic<std::size_t> nslabs{0};

struct Class {
    Lock lock{Rank::kStack};
    std::size_t carved = 0; // no slab before this one has a slot that was never used
    std::size_t first = 0;  // no slab before this one has a slot in `free`
    std::size_t nfree = 0;
    std::size_t slots = 0;              // there are so many, used or not
    std::size_t guarded = 0;            // so many of them have been used or are in `free`
    std::size_t promised = kOnTheirWay; // of the default class
    bool may_refuse = false;            // a guard, which is a mapping then
};
Class classes[kStackClasses];
Lock slabs_lock{Rank::kLeaf};

// Can it be told now that a guard is to be had later?
bool guards_are_mappings(std::byte* page) {
    return !kernel::features().guard_pages ||
           kernel::install_guard_by(kernel::GuardKind::kMadvise, page, kernel::page_size()) != 0;
}

// One slab more. The lock of the class is held.
int grow(Class& c, std::uint32_t cls) {
    const std::size_t bytes = std::max(kSlabBytes, stack_class_bytes(cls));
    int error = 0;
    auto* start = static_cast<std::byte*>(kernel::reserve(bytes, &error));
    if (!start) return -error;
    c.may_refuse = guards_are_mappings(start);
    LockGuard guard(slabs_lock);
    const std::size_t n = nslabs.load(std::memory_order_relaxed); // relaxed: under the lock
    if (n == kSlabsMax) {
        kernel::release(start, bytes);
        return ENOMEM;
    }
    slabs[n] = {start, start, start + bytes, cls, nullptr, 0};
    nslabs.store(n + 1, std::memory_order_release); // release: pairs with guard_owner's acquire
    c.slots += bytes / stack_class_bytes(cls);
    return 0;
}

// The free slot that lies lowest, so that the others stay together; null if there is none. The lock
// of the class is held.
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

// Where a slot that was never used is taken from; null if there is none. The lock of the class is
// held.
Slab* carvable(Class& c, std::uint32_t cls) {
    // acquire: slabs of other classes are read too
    const std::size_t n = nslabs.load(std::memory_order_acquire);
    for (; c.carved < n; c.carved++) {
        Slab& s = slabs[c.carved];
        if (s.cls == cls && s.next != s.end) return &s;
    }
    return nullptr;
}

// Null if none has it.
Slab* slab_of(const std::byte* at) {
    const std::size_t n = nslabs.load(std::memory_order_acquire); // acquire: pairs with grow
    for (std::size_t i = 0; i < n; i++) {
        if (at >= slabs[i].start && at < slabs[i].end) return &slabs[i];
    }
    return nullptr;
}

bool has_notes(Slab& s) {
    const auto slots = static_cast<std::size_t>(s.end - s.start) / stack_class_bytes(s.cls);
    if (!s.free)
        s.free = static_cast<std::uint64_t*>(
            persistentalloc((slots + 63) / 64 * sizeof(std::uint64_t), alignof(std::uint64_t)));
    return s.free != nullptr;
}

// A slot of s, which has notes, has its guard and no memory. The lock of the class is held.
void put_freed(Class& c, Slab& s, const std::byte* lo) {
    const auto slot = static_cast<std::size_t>(lo - s.start) / stack_class_bytes(s.cls);
    s.free[slot / 64] |= std::uint64_t{1} << slot % 64;
    s.nfree++;
    c.nfree++;
    c.first = std::min(c.first, static_cast<std::size_t>(&s - slabs));
}

// The guards of what was promised, where they may be refused later. The lock of the class is held.
int guard_promised(Class& c, std::uint32_t cls) {
    while (c.guarded < c.promised) {
        Slab& s = *carvable(c, cls);
        if (!has_notes(s)) return ENOMEM;
        const int rc = kernel::install_guard(s.next, kernel::page_size());
        if (rc < 0) return -rc;
        put_freed(c, s, s.next);
        s.next += stack_class_bytes(cls);
        c.guarded++;
    }
    return 0;
}

StackSlot* stack_at(std::byte* lo, std::size_t bytes) {
    const std::size_t colour = reinterpret_cast<std::uintptr_t>(lo) / bytes % 16 * 64;
    return reinterpret_cast<StackSlot*>(lo + bytes - colour - sizeof(StackSlot));
}

} // namespace

constinit std::uint32_t default_stack_class = 0;

std::size_t stack_class_bytes(std::uint32_t cls) noexcept { return kMinStack << cls; }

std::uint32_t stack_class_for(std::size_t bytes) noexcept {
    const std::size_t size = std::bit_ceil(std::max(bytes, kMinStack));
    const int cls = std::countr_zero(size) - std::countr_zero(kMinStack);
    return std::min(static_cast<std::uint32_t>(cls), kStackClasses);
}

StackSlot* stackalloc(std::uint32_t cls, int* error) noexcept {
    const std::size_t bytes = stack_class_bytes(cls);
    Class& c = classes[cls];
    std::byte* lo;
    bool guarded = true;
    {
        LockGuard guard(c.lock);
        lo = take_freed(c, cls);
        if (!lo) {
            Slab* s = carvable(c, cls);
            if (!s) {
                *error = grow(c, cls);
                if (*error) return nullptr;
                s = carvable(c, cls);
            }
            lo = s->next;
            s->next += bytes;
            c.guarded++;
            guarded = false;
        }
    }
    const int rc = guarded ? 0 : kernel::install_guard(lo, kernel::page_size());
    if (rc < 0) { // the slot is lost, 64 KiB of address space
        *error = -rc;
        LockGuard guard(c.lock);
        c.slots--;
        c.guarded--;
        return nullptr;
    }
    auto* stack = ::new (stack_at(lo, bytes)) StackSlot;
    stack->lo = lo + kernel::page_size();
    stack->cls = cls;
#if defined(BATON_ASAN)
    // What a G that never ends still holds is no leak.
    __lsan_register_root_region(stack->lo, static_cast<std::size_t>(stack_top(stack) - stack->lo));
#endif
    return stack;
}

int stacks_promise(std::uint32_t n) noexcept {
    const std::uint32_t cls = default_stack_class;
    Class& c = classes[cls];
    LockGuard guard(c.lock);
    c.promised += n;
    int error = 0;
    while (error == 0 && c.slots < c.promised) error = grow(c, cls);
    if (error == 0 && c.may_refuse) error = guard_promised(c, cls);
    if (error != 0) c.promised -= n;
    return error;
}

bool stackfree(StackSlot* stack) noexcept {
    const std::uint32_t cls = stack->cls;
    std::byte* lo = stack->lo - kernel::page_size();
    Slab& s = *slab_of(lo);
    Class& c = classes[cls];
    {
        LockGuard guard(c.lock);
        if (!has_notes(s)) return false;
    }
    (void)kernel::discard(lo + kernel::page_size(), stack_class_bytes(cls) - kernel::page_size());
    LockGuard guard(c.lock);
    put_freed(c, s, lo);
    return true;
}

G* guard_owner(const void* addr) noexcept {
    auto* a = static_cast<const std::byte*>(addr);
    const Slab* s = slab_of(a);
    if (!s) return nullptr;
    const std::size_t bytes = stack_class_bytes(s->cls);
    std::byte* lo = s->start + static_cast<std::size_t>(a - s->start) / bytes * bytes;
    if (static_cast<std::size_t>(a - lo) >= kernel::page_size()) return nullptr;
    return stack_at(lo, bytes)->owner;
}

void stacks_forget() {
    for (Class& c : classes) new (&c) Class;
    new (&slabs_lock) Lock(Rank::kLeaf);
    // relaxed: the only thread. Those before are not looked at again.
    const std::size_t n = nslabs.load(std::memory_order_relaxed);
    for (Class& c : classes) c.carved = c.first = n;
}

} // namespace baton::rt
