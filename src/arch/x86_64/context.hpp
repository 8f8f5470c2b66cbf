// SPDX-License-Identifier: Apache-2.0
//
// Switching stacks, and the word at the GS base by which a thread finds its M.
//
// Threads: any. baton_switch saves what the System V ABI lets a function expect to survive a call
// (rbx, rbp, r12-r15, rsp). It does not save MXCSR and the x87 control word: they belong to the
// thread, as rounding modes are set for a thread, not for a goroutine, and saving them costs 10
// cycles each way. The signal mask is the thread's too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace baton::arch {

/// A stack that does not run: everything else is saved on it.
struct Context {
    void* sp = nullptr;
};

/// Saves this stack in `from` and goes on with `to`. Returns when somebody switches back.
extern "C" void baton_switch(Context* from, const Context* to);
/// Where a fresh stack begins: calls r12 and never returns.
extern "C" void baton_context_start();

/// A context that will call `entry` on the stack that ends at `top`.
inline Context make_context(std::byte* top, void (*entry)()) {
    // Layout baton_switch pops: r15 r14 r13 r12 rbx rbp, return address; then two words of padding
    // that keep rsp 16-byte aligned at the call in baton_context_start.
    constexpr std::size_t kWords = 9;
    auto aligned = reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15};
    auto* sp = reinterpret_cast<std::uintptr_t*>(aligned) - kWords;
    for (std::size_t i = 0; i < kWords; i++) sp[i] = 0;
    sp[3] = reinterpret_cast<std::uintptr_t>(entry);
    sp[6] = reinterpret_cast<std::uintptr_t>(&baton_context_start);
    return {sp};
}

/// The object whose first word points to itself, at the GS base. Only after set_gs_self.
template <class T>
inline T* gs_self() {
    T* self;
    // volatile: a goroutine changes threads at a switch, so no two reads are the same read.
    asm volatile("movq %%gs:0, %0" : "=r"(self));
    return self;
}
/// What lies kOffset bytes into it, without waiting for its address to be loaded first.
template <class T, std::size_t kOffset>
inline T gs_load() {
    static_assert(std::is_pointer_v<T> || std::is_integral_v<T>);
    T value;
    // volatile: see gs_self. memory: it stays behind what was stored there.
    asm volatile("mov %%gs:%c1, %0" : "=r"(value) : "i"(kOffset) : "memory");
    return value;
}
/// Points the GS base at `self`, by wrgsbase where the kernel allows it.
void set_gs_self(void* self) noexcept;

} // namespace baton::arch
