// SPDX-License-Identifier: Apache-2.0
#include "runtime/persistentalloc.hpp"

#include <sys/mman.h>

#include <atomic>

namespace baton::rt {

namespace {

constexpr std::size_t kChunk = 256 << 10;

struct Chunk {
    std::atomic<std::size_t> used{sizeof(Chunk)};
};

std::atomic<Chunk*> current{nullptr};

// Null if it is full.
void* take(Chunk* c, std::size_t bytes, std::size_t align) {
    // relaxed: the bytes are nobody's before, and who publishes what is made there orders that.
    std::size_t used = c->used.load(std::memory_order_relaxed);
    for (;;) {
        const std::size_t at = (used + align - 1) & ~(align - 1);
        if (at + bytes > kChunk) return nullptr;
        // relaxed: as above
        if (c->used.compare_exchange_weak(used, at + bytes, std::memory_order_relaxed))
            return reinterpret_cast<std::byte*>(c) + at;
    }
}

} // namespace

void* page_alloc(std::size_t bytes) noexcept {
    void* pages =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? nullptr : pages;
}

void page_free(void* pages, std::size_t bytes) noexcept { (void)::munmap(pages, bytes); }

void* persistentalloc(std::size_t bytes, std::size_t align) noexcept {
    if (bytes > kChunk / 4) return page_alloc(bytes);
    for (;;) {
        // acquire: pairs with the CAS below; the chunk's header is seen.
        Chunk* c = current.load(std::memory_order_acquire);
        if (c) {
            if (void* space = take(c, bytes, align)) return space;
        }
        void* pages = page_alloc(kChunk);
        if (!pages) return nullptr;
        auto* fresh = ::new (pages) Chunk;
        // release: the header. relaxed on failure: somebody else's chunk is as good.
        if (!current.compare_exchange_strong(c, fresh, std::memory_order_release,
                                             std::memory_order_relaxed))
            page_free(pages, kChunk);
    }
}

} // namespace baton::rt
