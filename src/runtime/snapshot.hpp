// SPDX-License-Identifier: Apache-2.0
//
// What every goroutine does at one moment, and where: state and addresses, to be made text of later
// (traceback.hpp). Taken while other threads stand still, any of which may hold the locks of malloc
// or of the dynamic linker: so it allocates whole pages from the kernel, and calls nothing else.
//
// Threads: who has stopped the world; or who tells of the end of the process, where it does not
// stand still: there a goroutine that goes on meanwhile may show frames it no longer has, or none.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/ask.hpp"
#include "runtime/persistentalloc.hpp"
#include "runtime/runtime.hpp"
#include "runtime/unwind.hpp"

namespace baton::rt {

/// A goroutine, but for its stack.
struct GoroutineSnap {
    enum class State : std::uint8_t { kWaiting, kRunnable, kRunning, kSyscall };
    std::uint64_t goid = 0;
    const G* gp = nullptr;
    std::uint32_t m = 0; ///< slot of the M that runs it; 0: none
    State state = State::kRunning;
    WaitReason reason = WaitReason::kNone;
    bool locked = false;
    std::uint32_t minutes = 0; ///< that it waits
    std::uintptr_t gopc = 0;
    std::uint64_t parent = 0;
};
/// Of one that is not changing: its own, or a stopped one.
GoroutineSnap snap(const G* gp);

struct StackSnap {
    const std::uintptr_t* pcs;
    std::uint32_t n;      ///< 0: it was not to be had, or there is none
    std::uint32_t elided; ///< so many behind the first Stack::kInner
    bool torn;
    bool begun; ///< else there is none
};
inline StackSnap snap(const Stack& stack, std::uintptr_t* pcs) {
    for (std::uint32_t i = 0; i < stack.kept(); i++) pcs[i] = stack[i];
    return {pcs, stack.kept(), stack.elided(), stack.torn, true};
}

class Snapshot {
public:
    /// The most goroutines whose stacks are kept.
    static constexpr std::uint32_t kMost = 10'000;

    using Wanted = bool (*)(const G* gp, const void* arg);
    /// All goroutines that are wanted, in the order of their birth.
    void take(Ask how, Wanted wanted, const void* arg);

    std::size_t size() const { return all_.size(); }
    const GoroutineSnap& operator[](std::size_t i) const { return all_[i].goroutine; }
    StackSnap stack(std::size_t i) const;
    /// How many more there are, and all together.
    std::size_t left_out() const { return left_out_; }
    std::size_t total() const { return size() + left_out_; }

private:
    template <class T>
    using Pages = std::vector<T, PageAllocator<T>>;
    struct Entry {
        GoroutineSnap goroutine;
        std::size_t first = 0; // in pcs_
        std::uint32_t n = 0;
        std::uint32_t elided = 0;
        bool torn = false;
        bool begun = true;
    };
    void add(G* gp, Ask how);

    Pages<Entry> all_;
    Pages<std::uintptr_t> pcs_;
    std::size_t left_out_ = 0;
    std::int64_t asked_until_ = 0;
};

} // namespace baton::rt
