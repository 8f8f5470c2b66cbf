// SPDX-License-Identifier: Apache-2.0
//
//     asker                                  M asked, in the handler
//     -----                                  -----------------------
//     state = {m, asked};  tgkill   --->     state {me, asked} -> {me, answering}
//     futex wait                             walks its stack into `stack`
//     state is {m, answered}:        <---    state = {me, answered};  futex wake
//     takes the stack
//
// An asker that is tired of waiting takes its question back, {m, asked} -> 0, so that whoever comes
// late finds none. One that is being answered is waited for.
#include "runtime/ask.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/futex.hpp"
#include "kernel/syscall.hpp"
#include "runtime/preempt.hpp"
#include "runtime/sched.hpp"
#include "runtime/sigurg.hpp"

namespace baton::rt {

namespace {

constexpr std::int64_t kPatienceNs = 100'000'000;
constexpr std::int64_t kAnswerNs = 1'000'000'000; // as a walk takes microseconds

enum Phase : std::uint32_t { kNone, kAsked, kAnswering, kAnswered };
std::uint32_t word(const M* m, Phase phase) { return m->slot << 2 | phase; }

struct Question {
    std::atomic<std::uint32_t> state{0};
    const G* gp = nullptr;
    bool right = false; // it was gp that ran there
    Stack stack;
};
constinit Question question{};

bool wait_for(std::uint32_t wanted, std::int64_t ns) {
    const std::int64_t until = kernel::nanotime() + ns;
    for (;;) {
        // acquire: pairs with the release in answer_stack.
        const std::uint32_t now = question.state.load(std::memory_order_acquire);
        if (now == wanted) return true;
        if (kernel::nanotime() >= until) return false;
        (void)kernel::futex_wait(&question.state, now, until);
    }
}

} // namespace

bool ask_stack(M* m, const G* gp, Ask how, Stack* stack) {
    if (how == Ask::kAnyway) {
        (void)take_urg();
    } else if (!may_interrupt(m)) {
        return false;
    }
    if (question.state.load(kSeqCst) != kNone) return false; // one is still being answered
    question.gp = gp;
    question.state.store(word(m, kAsked), kSeqCst);
    // relaxed: a thread that has gone does not answer.
    const std::uint32_t tid = std::atomic_ref(m->rec->tid).load(std::memory_order_relaxed);
    (void)kernel::raw_syscall(SYS_tgkill, ::getpid(), tid, SIGURG);
    if (!wait_for(word(m, kAnswered), kPatienceNs)) {
        std::uint32_t asked = word(m, kAsked);
        if (question.state.compare_exchange_strong(asked, kNone, kSeqCst)) return false;
        if (!wait_for(word(m, kAnswered), kAnswerNs)) return false;
    }
    const bool right = question.right;
    if (right) *stack = question.stack;
    question.state.store(kNone, kSeqCst);
    return right;
}

bool answer_stack(M* m, const void* ucontext) {
    std::uint32_t asked = word(m, kAsked);
    if (!question.state.compare_exchange_strong(asked, word(m, kAnswering), kSeqCst)) return false;
    question.right = m->curg == question.gp;
    if (question.right) walk(*arch::registers_of(ucontext), &question.stack);
    // release: pairs with wait_for.
    question.state.store(word(m, kAnswered), std::memory_order_release);
    kernel::futex_wake(&question.state, 1);
    return true;
}

} // namespace baton::rt
