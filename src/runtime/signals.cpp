// SPDX-License-Identifier: Apache-2.0
#include "runtime/signals.hpp"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "assist/pins.hpp"
#include "kernel/syscall.hpp"
#include "runtime/crash.hpp"
#include "runtime/sched.hpp"
#include "runtime/stack.hpp"

namespace baton::rt {

namespace {

using Handler = void (*)(int sig, siginfo_t* info, void* context);

/// The signals of a fault, in the reference's words. SIGABRT is how a program ends that breaks a
/// noexcept, or finds its heap torn.
struct Fault {
    int sig;
    const char* name;
    const char* text;
    struct sigaction old = {};
};
Fault faults[] = {
    {SIGSEGV, "SIGSEGV", "segmentation violation"},
    {SIGBUS, "SIGBUS", "bus error"},
    {SIGFPE, "SIGFPE", "floating-point exception"},
    {SIGILL, "SIGILL", "illegal instruction"},
    {SIGABRT, "SIGABRT", "abort"},
};

Fault& fault_of(int sig) {
    return *std::find_if(std::begin(faults), std::end(faults),
                         [sig](const Fault& f) { return f.sig == sig; });
}

std::size_t signal_stack_bytes() {
    // AT_MINSIGSTKSZ grows with the vector registers of the machine.
    const std::size_t least = std::max<std::size_t>(getauxval(51 /* AT_MINSIGSTKSZ */), 4096);
    // A preempted M waits here (preempt.cpp), while handlers of other signals may come on top.
    return (least + 65536 + 4095) / 4096 * 4096;
}

std::uintptr_t pc_of(const void* context) {
    return static_cast<std::uintptr_t>(arch::registers_of(context)->at[BATON_REG_RIP]);
}

[[noreturn]] void overflowed(const G* gp, const void* context) {
    begin_crash();
    const std::size_t kib = stack_class_bytes(gp->stack->cls) >> 10;
    say_panic("goroutine %llu overflowed its stack of %zu KiB: give it more with "
              "baton::go({.stack_bytes = ...}, f), or all of them with BATON_STACK=%zuk",
              static_cast<unsigned long long>(gp->goid), kib, kib * 4);
    print_crash({.at = arch::registers_of(context)});
    die();
}

void tell(const Fault& fault, const siginfo_t* info, const void* context) {
    begin_crash();
    fatal_error("unexpected signal\n[signal %s: %s code=%#x addr=%#llx pc=%#llx]", fault.name,
                fault.text, static_cast<unsigned>(info->si_code),
                static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(info->si_addr)),
                static_cast<unsigned long long>(pc_of(context)));
    print_crash({.at = arch::registers_of(context)});
    assist::remove_pins();
}

void on_fault(int sig, siginfo_t* info, void* context) {
    if (survive_fault(context)) return;
    Fault& fault = fault_of(sig);
    const G* gp = sig == SIGSEGV && info->si_code > 0 ? guard_owner(info->si_addr) : nullptr;
    if (gp) overflowed(gp, context);
    if (fault.old.sa_flags & SA_SIGINFO) {
        fault.old.sa_sigaction(sig, info, context);
        return;
    }
    if (fault.old.sa_handler != SIG_DFL && fault.old.sa_handler != SIG_IGN) {
        fault.old.sa_handler(sig);
        return;
    }
    if (getm_or_null()) tell(fault, info, context);
    hurry_end();
    // As if we had never been there: the fault repeats under the default action. One that was sent
    // is sent again.
    ::signal(sig, SIG_DFL);
    if (info->si_code <= 0)
        kernel::raw_syscall(SYS_tgkill, ::getpid(), kernel::raw_syscall(SYS_gettid), sig);
}

void on_quit(int sig, siginfo_t* info, void* context) {
    if (!started()) { // a forked child
        ::signal(sig, SIG_DFL);
        (void)::raise(sig);
        return;
    }
    const M* m = getm_or_null();
    request_quit(pc_of(context), m ? m->slot : 0, info->si_code);
}

/// Takes a signal, if nobody has it or `always`. What a runtime before a fork took is ours.
void take(int sig, Handler handler, int flags, bool always, struct sigaction* old) {
    struct sigaction now = {};
    if (::sigaction(sig, nullptr, &now) != 0) return;
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == handler) return;
    const bool nobodys = (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_DFL;
    if (!nobodys && !always) return;
    struct sigaction sa = {};
    sa.sa_sigaction = handler;
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | flags;
    sigemptyset(&sa.sa_mask);
    ::sigaction(sig, &sa, old);
}

} // namespace

void install_handlers() {
    for (Fault& f : faults) take(f.sig, on_fault, SA_NODEFER, f.sig == SIGSEGV, &f.old);
    // Once: the second SIGQUIT ends a process that has not managed to tell what it does.
    take(SIGQUIT, on_quit, SA_RESTART | static_cast<int>(SA_RESETHAND), false, nullptr);
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
