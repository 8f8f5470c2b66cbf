// SPDX-License-Identifier: Apache-2.0
#include "io/fdmutex.hpp"

#include <cerrno>

#include "baton/go.hpp"
#include "runtime/runtime.hpp"
#include "runtime/sema.hpp"

namespace baton::detail {

namespace {

constexpr std::uint64_t kClosed = 1;
constexpr std::uint64_t kRef = 1 << 3;
constexpr std::uint64_t kField = (1 << 20) - 1;
constexpr std::uint64_t kRefMask = kField << 3;

struct SideBits {
    std::uint64_t lock;
    std::uint64_t wait; // one who queues
    std::uint64_t mask; // all who queue
};
constexpr SideBits kReadBits{1 << 1, 1ULL << 23, kField << 23};
constexpr SideBits kWriteBits{1 << 2, 1ULL << 43, kField << 43};

constexpr const SideBits& bits(FdMutex::Side side) {
    return side == FdMutex::Side::kRead ? kReadBits : kWriteBits;
}

// Each change is one CAS. acquire: who enters sees what the one before on this side left in the
// descriptor's state; release: pairs with it, and who gives the descriptor back sees all operations
// done. relaxed: loads and failures only propose a value to the next CAS.
bool cas(std::atomic<std::uint64_t>& state, std::uint64_t& old, std::uint64_t next) {
    return state.compare_exchange_weak(old, next, std::memory_order_acq_rel,
                                       std::memory_order_relaxed);
}
std::uint64_t look(const std::atomic<std::uint64_t>& state) {
    return state.load(std::memory_order_relaxed); // relaxed: see cas
}

std::uint64_t with_ref(std::uint64_t state) {
    if ((state & kRefMask) == kRefMask) rt::fatal("over a million operations on one descriptor");
    return state + kRef;
}

bool last_one_out(std::uint64_t state) { return (state & (kClosed | kRefMask)) == kClosed; }

} // namespace

int FdMutex::enter(Side side, const Until* until) {
    const SideBits& b = bits(side);
    std::uint64_t old = look(state_);
    int err = 0;
    for (;;) {
        if (old & kClosed) return EBADF;
        if (!(old & b.lock)) {
            if (cas(state_, old, with_ref(old | b.lock))) return 0;
            continue;
        }
        if ((old & b.mask) == b.mask) rt::fatal("over a million goroutines on one descriptor");
        if (!cas(state_, old, old + b.wait)) continue;
        if (!queue(side, until, &err)) return err;
        old = look(state_); // whoever woke us took us off the count
    }
}

// Those counted, and the wakes not taken yet, are as many as those who queue. Who gives up takes
// one of the counted off; if there is none, a wake for each who queues is there or about to be, and
// it takes one. It may drop that: who is counted later has found another holder, who will wake it.
bool FdMutex::queue(Side side, const Until* until, int* err) {
    const bool read = side == Side::kRead;
    std::atomic<std::uint32_t>* sema = read ? &rsema_ : &wsema_;
    const auto reason = read ? rt::WaitReason::kFdReadLock : rt::WaitReason::kFdWriteLock;
    const WaitEnd end = rt::semacquire(sema, until, reason);
    if (end == WaitEnd::kDone) return true;
    *err = end == WaitEnd::kTimedOut ? ETIMEDOUT : ECANCELED;
    const SideBits& b = bits(side);
    for (;; yield()) {
        std::uint64_t old = look(state_);
        while ((old & b.mask) != 0) {
            if (cas(state_, old, old - b.wait)) return false;
        }
        // relaxed, both: a wake that is dropped orders nothing.
        std::uint32_t wakes = sema->load(std::memory_order_relaxed);
        if (wakes > 0 && sema->compare_exchange_strong(wakes, wakes - 1, std::memory_order_relaxed,
                                                       std::memory_order_relaxed))
            return false;
    }
}

bool FdMutex::leave(Side side) {
    const SideBits& b = bits(side);
    std::uint64_t old = look(state_);
    std::uint64_t next;
    bool wake;
    do {
        wake = (old & b.mask) != 0;
        next = (old & ~b.lock) - kRef - (wake ? b.wait : 0);
    } while (!cas(state_, old, next));
    if (wake) rt::semrelease(side == Side::kRead ? &rsema_ : &wsema_);
    return last_one_out(next);
}

bool FdMutex::ref() {
    std::uint64_t old = look(state_);
    do {
        if (old & kClosed) return false;
    } while (!cas(state_, old, with_ref(old)));
    return true;
}

bool FdMutex::unref() {
    std::uint64_t old = look(state_);
    while (!cas(state_, old, old - kRef)) {
    }
    return last_one_out(old - kRef);
}

bool FdMutex::close() {
    std::uint64_t old = look(state_);
    do {
        if (old & kClosed) return false;
    } while (!cas(state_, old, (with_ref(old) | kClosed) & ~(kReadBits.mask | kWriteBits.mask)));
    for (std::uint64_t n = old & kReadBits.mask; n != 0; n -= kReadBits.wait)
        rt::semrelease(&rsema_);
    for (std::uint64_t n = old & kWriteBits.mask; n != 0; n -= kWriteBits.wait)
        rt::semrelease(&wsema_);
    return true;
}

int FdMutex::retire() {
    std::uint64_t old = look(state_);
    do {
        if (old & kClosed) return EBADF;
        if (old != 0) return EBUSY;
    } while (!cas(state_, old, kClosed));
    return 0;
}

bool FdMutex::closed() const noexcept { return look(state_) & kClosed; }

bool FdMutex::in_use() const noexcept { return look(state_) & kRefMask; }

} // namespace baton::detail
