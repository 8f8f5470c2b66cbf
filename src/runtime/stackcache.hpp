// SPDX-License-Identifier: Apache-2.0
//
// Stacks between two goroutines: the last few on their P, the rest in lists that all Ps share, from
// which a batch is taken without a look at any but the first (as gchain.hpp, and why).
//
// Threads: StackList: who holds sched.glock; the functions: any thread that is no G code.
#pragma once

#include <cstdint>

#include "runtime/stack.hpp"

namespace baton::rt {

/// The most that a P keeps, half of which it passes on when there would be more.
inline constexpr std::uint32_t kStackCache = 16;

class StackList {
public:
    std::uint32_t size() const { return n_; }
    void push(StackSlot* stack) {
        n_++;
        stack->next = nullptr;
        stack->next_batch = first_;
        stack->n = 1;
        if (first_ && first_->n < kStackCache / 2) {
            stack->next = first_;
            stack->next_batch = first_->next_batch;
            stack->n += first_->n;
        }
        first_ = stack;
    }
    /// `n` that hang together.
    void push_batch(StackSlot* first, std::uint32_t n) {
        first->next_batch = first_;
        first->n = n;
        first_ = first;
        n_ += n;
    }
    /// One batch, as many as its first says; or null.
    StackSlot* pop_batch() {
        StackSlot* first = first_;
        if (!first) return nullptr;
        first_ = first->next_batch;
        n_ -= first->n;
        return first;
    }
    StackSlot* pop() {
        StackSlot* stack = first_;
        if (!stack) return nullptr;
        n_--;
        first_ = stack->next;
        if (first_) {
            first_->next_batch = stack->next_batch;
            first_->n = stack->n - 1;
        } else {
            first_ = stack->next_batch;
        }
        return stack;
    }

private:
    StackSlot* first_ = nullptr; // of the first batch
    std::uint32_t n_ = 0;
};

/// A stack of class `cls`: p's last, one of the shared ones, or one without memory. Null and *error
/// when the kernel refuses, which it does not where one was promised. `p` may be null.
StackSlot* stackget(P* p, std::uint32_t cls, int* error) noexcept;
void stackput(P* p, StackSlot* stack) noexcept;

} // namespace baton::rt
