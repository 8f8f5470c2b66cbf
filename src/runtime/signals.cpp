// SPDX-License-Identifier: Apache-2.0
#include "runtime/signals.hpp"

#include <csignal>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/stack.hpp"

namespace baton::rt {

namespace {

struct sigaction old_segv;

std::size_t signal_stack_bytes() {
    // AT_MINSIGSTKSZ grows with the vector registers of the machine.
    const std::size_t least = std::max<std::size_t>(getauxval(51 /* AT_MINSIGSTKSZ */), 4096);
    // A preempted M waits here (preempt.cpp), while handlers of other signals may come on top.
    return (least + 65536 + 4095) / 4096 * 4096;
}

void on_segv(int sig, siginfo_t* info, void* context) {
    if (const G* gp = guard_owner(info->si_addr)) {
        const std::size_t kib = stack_class_bytes(gp->stack_class) >> 10;
        panic("goroutine %llu overflowed its stack of %zu KiB: give it more with "
              "baton::go({.stack_bytes = ...}, f), or all of them with BATON_STACK=%zuk",
              static_cast<unsigned long long>(gp->goid), kib, kib * 4);
    }
    if (old_segv.sa_flags & SA_SIGINFO) {
        old_segv.sa_sigaction(sig, info, context);
        return;
    }
    if (old_segv.sa_handler != SIG_DFL && old_segv.sa_handler != SIG_IGN) {
        old_segv.sa_handler(sig);
        return;
    }
    // As if we had never been there: the fault repeats under the default action.
    signal(sig, SIG_DFL);
}

} // namespace

void install_handlers() {
    struct sigaction sa = {};
    sa.sa_sigaction = on_segv;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&sa.sa_mask);
    sigaction(SIGSEGV, &sa, &old_segv);
}

void install_signal_stack(M* m) {
    stack_t now = {};
    sigaltstack(nullptr, &now);
    if (!(now.ss_flags & SS_DISABLE)) return; // a sanitizer or the program has set one
    const std::size_t bytes = signal_stack_bytes();
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return; // an overflow on this thread ends as a plain SIGSEGV
    stack_t ss = {};
    ss.ss_sp = p;
    ss.ss_size = bytes;
    sigaltstack(&ss, nullptr);
    m->sigstack = p;
}

void remove_signal_stack(M* m) {
    if (!m->sigstack) return;
    stack_t ss = {};
    ss.ss_flags = SS_DISABLE;
    sigaltstack(&ss, nullptr);
    munmap(m->sigstack, signal_stack_bytes());
    m->sigstack = nullptr;
}

} // namespace baton::rt
