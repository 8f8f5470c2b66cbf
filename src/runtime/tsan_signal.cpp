// SPDX-License-Identifier: Apache-2.0
//
// ThreadSanitizer puts a handler of its own in front of every other, which keeps a signal until the
// thread next ends a call that it intercepts. A hog that makes none would never be preempted. So
// the kernel is given another one, which looks where the thread is:
//
//     in the program's code, or ours     in no call of ThreadSanitizer's, whose state of the thread
//                                        is whole and whose locks are free: the handler runs now
//     anywhere else                      perhaps inside it, or in libc, called by it with a lock
//                                        held: the signal goes its way, and comes when that call
//                                        ends
//
// While the handler waits it keeps its thread and its stack, so that nothing which ThreadSanitizer
// knows of the thread moves.
//
// Rejected: the handler wherever the thread is (what it does is seen by ThreadSanitizer, too, which
// would have to enter itself while it allocates); leaving the signal out where it does not fit (a
// goroutine that lives in malloc is met outside it once in some hundred ms).
#include "runtime/tsan_signal.hpp"

#if defined(BATON_TSAN)

#include <link.h>
#include <ucontext.h>

#include <cstdint>

#include "kernel/syscall.hpp"
#include "runtime/runtime.hpp"
#include "runtime/sigurg.hpp"

extern "C" void __tsan_func_entry(void* pc);

namespace baton::rt {

namespace {

// As the kernel has it, which is not as libc has it.
struct KernelAction {
    void (*handler)(int, siginfo_t*, void*);
    unsigned long flags;
    void (*restorer)();
    std::uint64_t mask;
};

struct Code {
    std::uintptr_t begin = 0, end = 0;
    bool has(std::uintptr_t pc) const { return pc >= begin && pc < end; }
    template <class F>
    bool has(F* function) const {
        return has(reinterpret_cast<std::uintptr_t>(function));
    }
};
struct Whole { // of which code it is known that ThreadSanitizer is not in the middle of anything
    Code program, ours;
} whole;

UrgHandler direct[kUrgLevels];
UrgHandler theirs = nullptr;
constinit thread_local bool put_off = false; // one of preempt.cpp's

// The program comes first.
int find_code(dl_phdr_info* info, std::size_t, void* arg) {
    auto* found = static_cast<Whole*>(arg);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& segment = info->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
        const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
        const Code code{begin, begin + segment.p_memsz};
        if (found->program.end == 0) found->program = code;
        if (code.has(find_code)) found->ours = code;
    }
    return 0;
}

long kernel_sigaction(int sig, const KernelAction* now, KernelAction* old) {
    return kernel::raw_syscall(SYS_rt_sigaction, sig, now, old, sizeof old->mask);
}

// Not seen by ThreadSanitizer itself.
BATON_NO_TSAN bool in_whole_code(const void* context) {
    const auto& regs = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
    const auto pc = static_cast<std::uintptr_t>(regs[REG_RIP]);
    return (pc >= whole.program.begin && pc < whole.program.end) ||
           (pc >= whole.ours.begin && pc < whole.ours.end);
}

// The same.
BATON_NO_TSAN void arrived(int level, int sig, siginfo_t* info, void* context) {
    // The kernel puts the context on the stack that the handler runs on. Elsewhere it is a copy of
    // ThreadSanitizer's, which calls this if the program puts back what it found, or none, if the
    // program calls that.
    constexpr std::uintptr_t kNear = 64 << 10;
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const bool copied = reinterpret_cast<std::uintptr_t>(context) - frame > kNear;
    if (copied || in_whole_code(context)) {
        const bool other = put_off && !copied; // is still to come
        if (other) put_off = false;
        direct[level](sig, info, context);
        if (other) put_off = true;
        return;
    }
    // By the compiler's own means, as ThreadSanitizer sees the library's.
    const auto* m = static_cast<const M*>(baton_tls_m);
    if (m && __atomic_load_n(reinterpret_cast<const bool*>(&m->signalled), __ATOMIC_RELAXED))
        put_off = true;
    theirs(sig, info, context);
}

template <int kLevel>
BATON_NO_TSAN void on_signal(int sig, siginfo_t* info, void* context) {
    arrived(kLevel, sig, info, context);
}

constexpr auto kInFront =
    each_urg_level([]<int kLevel>() -> UrgHandler { return on_signal<kLevel>; });

// False if one is so already.
bool put_in_front(int sig, int level) {
    KernelAction action;
    if (kernel_sigaction(sig, nullptr, &action) != 0 || level_in_front(action.handler) >= 0)
        return false;
    theirs = action.handler;
    action.handler = kInFront[static_cast<std::size_t>(level)];
    return kernel_sigaction(sig, &action, nullptr) == 0;
}

} // namespace

int level_in_front(UrgHandler found) {
    int level = kUrgLevels - 1;
    while (level >= 0 && found != kInFront[static_cast<std::size_t>(level)]) level--;
    return level;
}

bool enter_directly(int sig, int level, UrgHandler handler) {
    if (whole.program.end == 0) dl_iterate_phdr(find_code, &whole);
    // Linked into one of the two, ThreadSanitizer cannot be told from the rest.
    if (whole.program.has(__tsan_func_entry) || whole.ours.has(__tsan_func_entry)) return false;
    direct[level] = handler;
    return put_in_front(sig, level);
}

bool entered_directly(int sig, UrgHandler found) {
    const int level = level_in_front(found);
    if (level < 0) return false;
    (void)put_in_front(sig, level); // behind ThreadSanitizer's, if the program has put it back
    return true;
}

bool was_put_off() noexcept {
    const bool was = put_off;
    put_off = false;
    return was;
}

} // namespace baton::rt

#endif
