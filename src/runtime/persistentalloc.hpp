// SPDX-License-Identifier: Apache-2.0
//
// The runtime's own memory (the reference's persistentalloc). A goroutine may be preempted inside
// malloc, and holds its locks until it gets a P again: were the scheduler to wait for one of them,
// with a P or as the thread that hands Ps out, it might wait for ever. So nothing in the runtime
// calls malloc once a goroutine runs, but for the template thread, which nobody waits for
// (template.cpp); tests/unit/nomalloc.cpp sees to it.
//
// Threads: any thread, no locks.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

namespace baton::rt {

/// Zeroed memory that is never given back. Null: there is none.
[[nodiscard]] void* persistentalloc(std::size_t bytes, std::size_t align) noexcept;

template <class T, class... Args>
[[nodiscard]] T* persistent_new(Args&&... args) noexcept {
    void* space = persistentalloc(sizeof(T), alignof(T));
    return space ? ::new (space) T(std::forward<Args>(args)...) : nullptr;
}

/// Whole pages from the kernel; null if it has none.
[[nodiscard]] void* page_alloc(std::size_t bytes) noexcept;
void page_free(void* pages, std::size_t bytes) noexcept;

/// For containers that grow, and hold much or nothing.
template <class T>
struct PageAllocator {
    using value_type = T;
    PageAllocator() = default;
    template <class U>
    PageAllocator(const PageAllocator<U>&) noexcept {}
    [[nodiscard]] T* allocate(std::size_t n) {
        void* pages = page_alloc(n * sizeof(T));
        if (!pages) throw std::bad_alloc();
        return static_cast<T*>(pages);
    }
    void deallocate(T* pages, std::size_t n) noexcept { page_free(pages, n * sizeof(T)); }
    friend bool operator==(const PageAllocator&, const PageAllocator&) { return true; }
};

} // namespace baton::rt
