// SPDX-License-Identifier: Apache-2.0
#include "runtime/galloc.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <type_traits>

#include "kernel/stackmem.hpp"
#include "runtime/lock.hpp"
#include "runtime/persistentalloc.hpp"
#include "runtime/stack.hpp"

#if defined(BATON_ASAN)
#include <sanitizer/lsan_interface.h>
#endif

namespace baton::rt {

namespace {

static_assert(std::is_trivially_destructible_v<G>);

constexpr std::size_t kPage = 4096;
constexpr std::size_t kSlabPages = 1024;
constexpr std::size_t kSlabsMax = std::size_t{1} << 16;
constexpr std::uint32_t kPerPage = kPage / sizeof(G);
constexpr std::uint32_t kAll = (1U << kPerPage) - 1;

struct GSlab {
    std::byte* start;
    std::size_t pages;   // that have ever been used
    std::uint16_t* free; // for each page: the Gs that were given back
    std::uint32_t nfree;
};
GSlab slabs[kSlabsMax];
std::atomic<std::size_t> nslabs{0}; // written under the lock
Lock slabs_lock{Rank::kStack};
std::size_t newest = kSlabsMax; // the slab that has pages never used; kSlabsMax: none
std::size_t first_free = 0;     // no slab before this one has a G that was given back
std::size_t nfree = 0;

std::byte* page_at(const GSlab& s, std::size_t page) { return s.start + page * kPage; }
G* g_at(std::byte* page, std::uint32_t i) { return reinterpret_cast<G*>(page) + i; }

// The lock is held.
int grow() {
    // relaxed: under the lock
    const std::size_t n = nslabs.load(std::memory_order_relaxed);
    if (n == kSlabsMax) return ENOMEM;
    auto* free = static_cast<std::uint16_t*>(
        persistentalloc(kSlabPages * sizeof(std::uint16_t), alignof(std::uint16_t)));
    if (!free) return ENOMEM;
    int error = 0;
    auto* start = static_cast<std::byte*>(kernel::reserve(kSlabPages * kPage, &error));
    if (!start) return -error;
#if defined(BATON_ASAN)
    __lsan_register_root_region(start, kSlabPages * kPage); // callables are owned by their Gs
#endif
    slabs[n] = {start, 0, free, 0};
    newest = n;
    nslabs.store(n + 1, std::memory_order_release); // release: pairs with each_g's acquire
    return 0;
}

// What was given back on the page that lies lowest, so that other pages become empty. The lock is
// held, and there is some.
GList take_freed() {
    while (slabs[first_free].nfree == 0) first_free++;
    GSlab& s = slabs[first_free];
    std::size_t page = 0;
    while (s.free[page] == 0) page++;
    const std::uint32_t mask = std::exchange(s.free[page], std::uint16_t{0});
    const auto n = static_cast<std::uint32_t>(std::popcount(mask));
    s.nfree -= n;
    nfree -= n;
    GList list;
    for (std::uint32_t i = 0; i < kPerPage; i++) {
        if ((mask >> i & 1) == 0) continue;
        G* gp = g_at(page_at(s, page), i);
        if (mask == kAll) ::new (gp) G; // the page was given back
        list.push(gp);
    }
    return list;
}

GList carve() {
    GSlab& s = slabs[newest];
    std::byte* page = page_at(s, s.pages++);
    GList list;
    for (std::uint32_t i = 0; i < kPerPage; i++) list.push(::new (g_at(page, i)) G);
    return list;
}

} // namespace

GList malg(int* error) noexcept {
    {
        LockGuard guard(slabs_lock);
        if (nfree != 0) return take_freed();
    }
    *error = stacks_promise(kPerPage);
    if (*error) return {};
    LockGuard guard(slabs_lock);
    if (newest == kSlabsMax || slabs[newest].pages == kSlabPages) *error = grow();
    if (*error) return {}; // some stacks can be had that nobody will ask for
    return carve();
}

bool gdiscard(G* gp) noexcept {
    // acquire: pairs with the release of who took it out of a heap, and reads it no more.
    if (gp->sleep_timer.heap.load(std::memory_order_acquire)) return false;
    auto* at = reinterpret_cast<std::byte*>(gp);
    GSlab* s = slabs;
    while (at < s->start || at >= s->start + kSlabPages * kPage) s++;
    const auto page = static_cast<std::size_t>(at - s->start) / kPage;
    std::byte* start = page_at(*s, page);
    const auto bit = 1U << static_cast<std::uint32_t>(gp - g_at(start, 0));
    bool whole;
    {
        LockGuard guard(slabs_lock);
        whole = (s->free[page] | bit) == kAll;
        s->free[page] = whole ? 0 : static_cast<std::uint16_t>(s->free[page] | bit);
        s->nfree += whole ? -(kPerPage - 1) : 1;
        nfree += whole ? -std::size_t{kPerPage - 1} : 1;
        if (!whole) first_free = std::min(first_free, static_cast<std::size_t>(s - slabs));
    }
    if (!whole) return true;
    (void)kernel::discard(start, kPage); // nobody has any of it now
    LockGuard guard(slabs_lock);
    s->free[page] = kAll;
    s->nfree += kPerPage;
    nfree += kPerPage;
    first_free = std::min(first_free, static_cast<std::size_t>(s - slabs));
    return true;
}

void each_g(void (*visit)(G* gp, void* arg), void* arg) {
    const std::size_t n = nslabs.load(std::memory_order_acquire); // acquire: pairs with grow
    for (std::size_t i = 0; i < n; i++) {
        std::size_t pages;
        {
            LockGuard guard(slabs_lock);
            pages = slabs[i].pages;
        }
        for (std::size_t page = 0; page < pages; page++) {
            for (std::uint32_t g = 0; g < kPerPage; g++)
                visit(g_at(page_at(slabs[i], page), g), arg);
        }
    }
}

void gs_forget() {
    new (&slabs_lock) Lock(Rank::kStack);
    newest = kSlabsMax;
    // relaxed: the only thread. Those before are not looked at again.
    first_free = nslabs.load(std::memory_order_relaxed);
    nfree = 0;
}

} // namespace baton::rt
