// SPDX-License-Identifier: Apache-2.0
#include "runtime/polldesc.hpp"

#include <new>

#include "runtime/persistentalloc.hpp"

namespace baton::rt {

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed; // each use says why
constexpr std::size_t kDescsPerBlock = 32;

struct Block {
    Block* next;
    PollDesc descs[kDescsPerBlock];
};

struct Pool {
    Lock lock{Rank::kLeaf};
    PollDesc* free = nullptr;
    // All of them; where leak checkers see them. Written under lock.
    std::atomic<Block*> blocks{nullptr};
};
Pool g_pool;

} // namespace

PollDesc* polldesc_alloc() {
    {
        LockGuard guard(g_pool.lock);
        if (PollDesc* pd = g_pool.free) {
            g_pool.free = pd->link;
            return pd;
        }
    }
    auto* block = persistent_new<Block>();
    if (!block) return nullptr;
    LockGuard guard(g_pool.lock);
    block->next = g_pool.blocks.load(kRelaxed); // relaxed: under the lock
    // release: pairs with the acquire in polldesc_see_all. The kernel orders epoll_ctl before the
    // event it leads to, but neither the language nor a sanitizer knows of that.
    g_pool.blocks.store(block, std::memory_order_release);
    for (std::size_t i = 1; i < kDescsPerBlock; i++) {
        block->descs[i].link = g_pool.free;
        g_pool.free = &block->descs[i];
    }
    return &block->descs[0];
}

void polldesc_free(PollDesc* pd) {
    // relaxed: we alone own it now. From here on events of this use are stale.
    const std::uint32_t seq = (pd->fdseq.load(kRelaxed) + 1) & kSeqMask;
    // release: pairs with the acquire in netpollready.
    pd->fdseq.store(seq == 0 ? 1 : seq, std::memory_order_release);
    pd->fd = -1;
    LockGuard guard(g_pool.lock);
    pd->link = g_pool.free;
    g_pool.free = pd;
}

void polldesc_see_all() {
    // acquire: pairs with the release in polldesc_alloc.
    (void)g_pool.blocks.load(std::memory_order_acquire);
}

void polldesc_forget() {
    new (&g_pool.lock) Lock(Rank::kLeaf);
    g_pool.free = nullptr;
}

void polldesc_each(void (*visit)(PollDesc* pd)) {
    // relaxed: there is one thread.
    for (Block* b = g_pool.blocks.load(kRelaxed); b; b = b->next) {
        for (PollDesc& pd : b->descs) visit(&pd);
    }
}

} // namespace baton::rt
