// SPDX-License-Identifier: Apache-2.0
//
// Who fails prints its first words and the head of its own stack, whose addresses it notes. The
// rest is sysmon's to print: to find names takes a deep stack, and malloc, whose locks whoever
// failed may hold. sysmon has its own stack, and the arena of a thread that has never allocated.
//
//     who fails                              sysmon
//     ---------                              ------
//     begin_crash: is it the first?
//     first words, stack noted
//     request = trace;  wake sysmon   --->   snapshot of the others; prints
//     waits while it sees progress           progress++ with each goroutine
//     request is done                 <---   request = done
//     die(), or the signal's default
//
// Should sysmon make no progress, as who failed holds what it needs, who failed prints the bare
// addresses and ends the process. Should sysmon itself have no end, the kernel ends it, by SIGALRM.
//
// Rejected: printing in a child made by fork, which would inherit every lock as it is. Printing
// without malloc: there is no library for it.
#include "runtime/crash.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include "kernel/clock.hpp"
#include "kernel/futex.hpp"
#include "kernel/syscall.hpp"
#include "runtime/sched.hpp"

namespace baton::rt {

namespace {

constinit CrashPatience patience{.progress_ns = 10'000'000'000, .alarm_s = 60};

enum Request : std::uint32_t { kNothing, kTrace, kDone };

struct Crash {
    std::atomic<int> tid{0}; // who failed first
    std::atomic<std::uint32_t> request{kNothing};
    std::atomic<std::uint32_t> progress{0};
    std::atomic<bool> quit{false}; // SIGQUIT came, with the next three
    std::uintptr_t quit_pc = 0;
    std::uint32_t quit_m = 0;
    int quit_code = 0;
    // Of who failed. Published by `request`.
    const G* gp = nullptr; // null: a plain thread, or one of the runtime's own
    GoroutineSnap goroutine;
    Show show;
    Stack stack;
};
constinit Crash crash{};
constinit Traceback level = Traceback::kSingle;

bool shows_runtime() { return level >= Traceback::kSystem; }

void put(const char* text, std::size_t n) { kernel::raw_syscall(SYS_write, 2, text, n); }

void write_out(const std::string& text, void*) {
    ::alarm(patience.alarm_s);
    put(text.data(), text.size());
    crash.progress.fetch_add(1, kSeqCst);
    kernel::futex_wake(&crash.progress, 1);
}

int own_tid() { return static_cast<int>(kernel::raw_syscall(SYS_gettid)); }

// Where no names are to be had: the addresses, for addr2line.
void print_bare() {
    char line[128];
    int n = std::snprintf(line, sizeof line, "\tno names to be had; addresses:\n");
    put(line, static_cast<std::size_t>(n));
    for (std::uint32_t i = 0; i < crash.stack.kept(); i++) {
        n = std::snprintf(line, sizeof line, "\t%#llx\n",
                          static_cast<unsigned long long>(crash.stack[i]));
        put(line, static_cast<std::size_t>(n));
    }
}

void note_own_stack(const CrashTrace& trace) {
    if (trace.at) {
        walk(*trace.at, &crash.stack);
    } else {
        walk_here(&crash.stack);
    }
}

void print_head() {
    char text[256];
    std::size_t n;
    text[0] = '\n';
    if (crash.gp) {
        n = header(crash.goroutine, shows_runtime(), text + 1, sizeof text - 1);
    } else {
        n = static_cast<std::size_t>(
            std::snprintf(text + 1, sizeof text - 1, "thread %d [running]:\n", own_tid()));
    }
    put(text, n + 1);
}

// The others are to stand still, as far as they come by where they hold nothing.
void freeze() {
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(patience.alarm_s);
    sched.gcwaiting.store(true, kSeqCst);
    const std::uint32_t n = procs();
    for (std::uint32_t i = 0; i < n; i++) sched.allp[i]->attention.fetch_or(kAttnStop, kSeqCst);
    constexpr std::int64_t kComeByNs = 1'000'000; // as long as the reference waits
    const std::atomic<std::uint32_t> never{0};
    (void)kernel::futex_wait(&never, 0, kernel::nanotime() + kComeByNs);
}

void print_others(const G* but, Symbolizer& symbols) {
    Snapshot others;
    others.take(
        Ask::kAnyway, [](const G* gp, const void* failed) { return gp != failed; }, but);
    write_goroutines(others, {shows_runtime(), false}, symbols, write_out, nullptr);
    write_threads(write_out, nullptr);
}

void print_requested() {
    freeze();
    Symbolizer symbols;
    std::uintptr_t pcs[Stack::kInner + Stack::kOuter];
    std::string text = frames(snap(crash.stack, pcs), crash.show, symbols);
    if (crash.gp) text.append(created_by(crash.goroutine, symbols));
    write_out(text, nullptr);
    // As in the reference: all, too, where it was no goroutine that failed.
    if (level >= Traceback::kAll || !crash.gp) print_others(crash.gp, symbols);
}

void print_noexcept() noexcept {
    try {
        print_requested();
    } catch (const std::exception&) { // no memory: what was printed is what there is
    }
}

[[noreturn]] void serve_quit() {
    begin_crash();
    char text[128];
    const int n = std::snprintf(text, sizeof text, "SIGQUIT: quit\nPC=%#llx m=%u sigcode=%d\n",
                                static_cast<unsigned long long>(crash.quit_pc), crash.quit_m,
                                crash.quit_code);
    put(text, static_cast<std::size_t>(n));
    freeze();
    print_goroutines();
    die();
}

} // namespace

void set_traceback(Traceback to) { level = to; }
void set_crash_patience(const CrashPatience& to) noexcept { patience = to; }
Traceback traceback_level() noexcept { return level; }

void begin_crash() noexcept {
    int nobody = 0;
    if (crash.tid.compare_exchange_strong(nobody, own_tid(), kSeqCst)) return;
    if (nobody != own_tid()) {
        for (;;) ::pause(); // the first one ends the process
    }
    constexpr char kAgain[] = "baton: failed again while telling of a failure\n";
    put(kAgain, sizeof kAgain - 1);
    die();
}

void print_crash(const CrashTrace& trace) noexcept {
    if (level == Traceback::kNone || !started()) return;
    const M* m = getm_or_null();
    crash.gp = m ? m->curg : nullptr;
    if (crash.gp) {
        crash.goroutine = snap(crash.gp);
        crash.goroutine.state = GoroutineSnap::State::kRunning;
    }
    crash.show = {shows_runtime(), trace.thrown};
    note_own_stack(trace);
    print_head();
    if (m && state_of(m) == shared::M_SYSMON) {
        print_noexcept();
        return;
    }
    crash.request.store(kTrace, kSeqCst);
    wake_sysmon();
    for (;;) {
        const std::uint32_t seen = crash.progress.load(kSeqCst);
        if (crash.request.load(kSeqCst) == kDone) return;
        (void)kernel::futex_wait(&crash.progress, seen, kernel::nanotime() + patience.progress_ns);
        if (crash.progress.load(kSeqCst) == seen && crash.request.load(kSeqCst) != kDone) break;
    }
    print_bare();
}

void print_goroutines() noexcept {
    if (level == Traceback::kNone) return;
    try {
        Symbolizer symbols;
        print_others(nullptr, symbols);
    } catch (const std::exception&) { // as above
    }
}

void request_quit(std::uintptr_t pc, std::uint32_t m, int sigcode) noexcept {
    crash.quit_pc = pc;
    crash.quit_m = m;
    crash.quit_code = sigcode;
    crash.quit.store(true, kSeqCst);
    wake_sysmon();
}

bool crash_requested() noexcept {
    return crash.request.load(kSeqCst) == kTrace || crash.quit.load(kSeqCst);
}

void serve_crash() noexcept {
    if (crash.request.load(kSeqCst) == kTrace) {
        print_noexcept();
        crash.request.store(kDone, kSeqCst);
        crash.progress.fetch_add(1, kSeqCst);
        kernel::futex_wake(&crash.progress, 1);
        for (;;) ::pause(); // who failed ends the process
    }
    if (crash.quit.load(kSeqCst)) serve_quit();
}

void wait_for_crash() noexcept {
    if (const int tid = crash.tid.load(kSeqCst); tid != 0 && tid != own_tid()) {
        for (;;) ::pause();
    }
}

} // namespace baton::rt
