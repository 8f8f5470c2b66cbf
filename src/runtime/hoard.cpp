// SPDX-License-Identifier: Apache-2.0
#include "runtime/hoard.hpp"

#include <new>

#include "baton/run.hpp"
#include "kernel/futex.hpp"
#include "runtime/entry.hpp"
#include "runtime/lock.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

/// A ring, in which those that were looked at longest ago come first.
struct Hoards {
    Lock lock{Rank::kLeaf};
    Hoard* first = nullptr;
    std::uint32_t pass = 0;
    bool running = false;
};
constinit Hoards hoards;

/// The lock is held.
void link_last(Hoard* h) {
    Hoard*& first = hoards.first;
    if (!first) first = h->next = h->prev = h;
    if (first == h) return;
    h->next = first;
    h->prev = first->prev;
    h->prev->next = h;
    first->prev = h;
}

/// One that this pass has not looked at, to be released; null, and the pass is over, if there is
/// none.
Hoard* next_of_pass() {
    Entry entry;
    LockGuard guard(hoards.lock);
    Hoard* h = hoards.first;
    if (!h || h->pass == hoards.pass) {
        hoards.running = false;
        return nullptr;
    }
    h->pass = hoards.pass;
    hoards.first = h->next; // and so it is the last
    // relaxed: looked at with the lock held, or by who waits for it to fall.
    h->busy.store(1, std::memory_order_relaxed);
    return h;
}

void release_all(void*) {
    while (Hoard* h = next_of_pass()) {
        h->release(h);
        // release: pairs with the acquire in hoard_remove, after which its memory is another's.
        h->busy.store(0, std::memory_order_release);
        kernel::futex_wake(&h->busy, 1);
    }
}

} // namespace

void hoard_add(Hoard* h) noexcept {
    Entry entry;
    LockGuard guard(hoards.lock);
    h->pass = hoards.pass;
    h->forks = forks;
    link_last(h);
}

void hoard_remove(Hoard* h) noexcept {
    if (h->forks != forks) return; // forgotten already
    for (;;) {
        {
            Entry entry;
            LockGuard guard(hoards.lock);
            // acquire: pairs with the release in release_all.
            if (h->busy.load(std::memory_order_acquire) == 0) {
                if (hoards.first == h) hoards.first = h->next == h ? nullptr : h->next;
                h->prev->next = h->next;
                h->next->prev = h->prev;
                return;
            }
        }
        // Once in a great while; also where one must not park.
        blocking([h] { (void)kernel::futex_wait(&h->busy, 1); });
    }
}

bool hoards_any() noexcept {
    LockGuard guard(hoards.lock);
    return hoards.first != nullptr;
}

void hoards_pass() noexcept {
    {
        LockGuard guard(hoards.lock);
        if (!hoards.first || hoards.running) return;
        hoards.running = true;
        hoards.pass++;
    }
    if (newproc(release_all, nullptr)) return;
    LockGuard guard(hoards.lock); // no memory now: the next pass
    hoards.running = false;
}

void hoards_forget() { new (&hoards) Hoards; }

} // namespace baton::rt
