// SPDX-License-Identifier: Apache-2.0
#include "runtime/stack.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "kernel/stackmem.hpp"
#include "runtime/lock.hpp"

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
};
// Written under the lock of the class, read without one by the SIGSEGV handler.
Slab slabs[kSlabsMax];
std::atomic<std::size_t> nslabs{0};

struct Class {
    Lock lock{Rank::kStack};
    std::byte* next = nullptr; // the rest of the newest slab
    std::byte* end = nullptr;
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
    slabs[n] = {start, start + bytes, cls};
    nslabs.store(n + 1, std::memory_order_release); // release: pairs with guard_owner's acquire
    c.next = start;
    c.end = start + bytes;
    return 0;
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
    {
        LockGuard guard(c.lock);
        if (c.next == c.end) {
            *error = grow(c, cls);
            if (*error) return nullptr;
        }
        lo = c.next;
        c.next += bytes;
    }
    const int rc = kernel::install_guard(lo, kernel::page_size());
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

G* guard_owner(const void* addr) noexcept {
    auto* a = static_cast<const std::byte*>(addr);
    const std::size_t n = nslabs.load(std::memory_order_acquire); // acquire: pairs with grow
    for (std::size_t i = 0; i < n; i++) {
        const Slab& s = slabs[i];
        if (a < s.start || a >= s.end) continue;
        const std::size_t bytes = stack_class_bytes(s.cls);
        std::byte* lo = s.start + static_cast<std::size_t>(a - s.start) / bytes * bytes;
        if (static_cast<std::size_t>(a - lo) >= kernel::page_size()) return nullptr;
        return reinterpret_cast<G*>(g_address(lo, bytes));
    }
    return nullptr;
}

void stacks_forget() {
    for (Class& c : classes) new (&c) Class;
    new (&slabs_lock) Lock(Rank::kLeaf);
}

} // namespace baton::rt
