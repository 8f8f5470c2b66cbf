// SPDX-License-Identifier: Apache-2.0
#include "runtime/file_calls.hpp"

#include <atomic>

#include "baton/run.hpp"
#include "runtime/entry.hpp"
#include "runtime/sema.hpp"

namespace baton::rt {

namespace {

std::atomic<std::uint32_t> g_turns{0};
std::atomic<std::uint32_t> g_now{0};
std::uint32_t g_most = 0;

} // namespace

FileCall::FileCall(Turn turn) : turn_(turn) {
    const M* m = getm_or_null();
    if (!m || in_bracket(m)) return;
    counted_ = true;
    if (turn_ == Turn::kOne) semacquire(&g_turns, false, WaitReason::kFileTurn);
    g_now.fetch_add(1, std::memory_order_relaxed); // relaxed: a count for people
    entered_ = detail::entersyscall();
}

FileCall::~FileCall() {
    if (!counted_) return;
    if (entered_) detail::exitsyscall(entered_);
    g_now.fetch_sub(1, std::memory_order_relaxed); // relaxed: as above
    if (turn_ == Turn::kOne) semrelease(&g_turns);
}

std::uint32_t file_threads() noexcept { return g_most; }

std::uint32_t file_calls_now() noexcept {
    return g_now.load(std::memory_order_relaxed); // relaxed: a count for people
}

void file_calls_start(std::uint32_t most) {
    g_most = most;
    g_turns.store(most, std::memory_order_seq_cst);
}

void file_calls_forget() {
    // relaxed: the child has one thread.
    g_now.store(0, std::memory_order_relaxed);
}

} // namespace baton::rt
