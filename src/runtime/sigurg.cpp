// SPDX-License-Identifier: Apache-2.0
//
// SIGURG is the runtime's and the program's. Ours goes on to what it found in its place, unless
// the signal is one that preempt.cpp sent. A program may put a handler in our place at any time,
// which is seen when the next signal is to be sent: then ours goes in front of it.
//
// It is another one of ours each time, as the program may have kept what it found, and may call
// that, or put it back:
//
//     start: the program has A     on_urg<0>, goes on to A
//     B, found on_urg<0>           on_urg<1>, goes on to B, which may call on_urg<0>, so A
//     puts on_urg<0> back          that, and B is out of it
//
// A handler that it installs twice gets the level that it had, so that a program which goes to and
// fro uses up no more of them; the ninth and those after it share one.
//
// Rejected: one handler for all, which cannot tell whether it is to call A or B.
#include "runtime/sigurg.hpp"

#include <atomic>
#include <csignal>
#include <cstdint>

#include "kernel/build.hpp"
#include "runtime/preempt.hpp"
#include "runtime/tsan_signal.hpp"

namespace baton::rt {

namespace {

constexpr std::uint64_t kTakesInfo = std::uint64_t{1} << 63; // no address has it

// What on_urg<level> goes on to. A handler of the last level may read it while it changes, so it is
// one word.
std::atomic<std::uint64_t> below[kUrgLevels];
int levels = 0;                               // in use; of who holds `taking`
std::atomic<bool> taking{false};              // tried, never waited for
constinit thread_local unsigned going_on = 0; // from which levels, a bit each

std::uint64_t word_of(const struct sigaction& sa) {
    if ((sa.sa_flags & SA_SIGINFO) != 0)
        return reinterpret_cast<std::uint64_t>(sa.sa_sigaction) | kTakesInfo;
    return reinterpret_cast<std::uint64_t>(sa.sa_handler);
}

void go_on(int level, int sig, siginfo_t* info, void* context) {
    // acquire: pairs with the release in take; the kernel orders all but the last level anyway.
    const std::uint64_t word = below[level].load(std::memory_order_acquire);
    if ((word & kTakesInfo) != 0) {
        reinterpret_cast<UrgHandler>(word & ~kTakesInfo)(sig, info, context);
    } else if (auto* handler = reinterpret_cast<void (*)(int)>(word);
               handler != SIG_DFL && handler != SIG_IGN) {
        handler(sig);
    }
}

// `entered`: by the kernel. Else a handler of the program's has called what it found in its place,
// with one argument perhaps, as it may have been told by signal().
void arrived(int level, int sig, siginfo_t* info, void* context, bool entered) {
    // What a handler that was left by longjmp has set does not count.
    const unsigned before = entered ? 0 : going_on;
    if (entered) {
        if (heed_urg(info, context)) return;
    } else if (before == 0 && lose_urg()) {
        return; // the program had been quicker than the signal
    }
    const unsigned bit = 1U << level;
    // A program that looked for its handler, found ours and so installed it once more calls itself.
    if ((before & bit) != 0) return;
    going_on = before | bit;
    go_on(level, sig, info, context);
    going_on = before;
}

template <int kLevel>
void on_urg(int sig, siginfo_t* info, void* context) {
#if defined(BATON_TSAN)
    const bool entered = going_on == 0; // by ThreadSanitizer, perhaps with a copy of the context
#else
    // The kernel puts the context right above the return address.
    const bool entered = context == __builtin_dwarf_cfa();
#endif
    arrived(kLevel, sig, info, context, entered);
}

constexpr auto kOurs = each_urg_level([]<int kLevel>() -> UrgHandler { return on_urg<kLevel>; });

int level_of(UrgHandler handler) {
    if (const int level = level_in_front(handler); level >= 0) return level;
    int level = kUrgLevels - 1;
    while (level >= 0 && handler != kOurs[static_cast<std::size_t>(level)]) level--;
    return level;
}

// Level 0 at first.
int level_for(std::uint64_t word) {
    for (int level = 0; level < levels; level++) {
        // relaxed: written under `taking`, which is held.
        if (below[level].load(std::memory_order_relaxed) == word) return level;
    }
    return levels < kUrgLevels ? levels++ : kUrgLevels - 1;
}

bool put(int level, const struct sigaction& found) {
    struct sigaction sa = {}, old;
    sa.sa_sigaction = kOurs[static_cast<std::size_t>(level)];
    sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGURG, &sa, &old) != 0) return false;
    if (word_of(old) != word_of(found)) { // another one meanwhile: its turn comes with a new look
        (void)sigaction(SIGURG, &old, nullptr);
        return false;
    }
    return enter_directly(SIGURG, level, sa.sa_sigaction);
}

bool take(const struct sigaction& found) {
    int level = level_of(found.sa_sigaction);
    if (level < 0) { // else signal() has put ours back, as a handler of one argument
        level = level_for(word_of(found));
        below[level].store(word_of(found), std::memory_order_release); // see go_on
    }
    return put(level, found);
}

bool is_ours(const struct sigaction& sa) {
    return (sa.sa_flags & SA_SIGINFO) != 0 &&
           (entered_directly(SIGURG, sa.sa_sigaction) || level_of(sa.sa_sigaction) >= 0);
}

} // namespace

bool keep_urg() {
    struct sigaction now;
    if (sigaction(SIGURG, nullptr, &now) != 0) return false;
    if (is_ours(now)) return true;
    // acquire: pairs with the release below, for `levels`.
    if (taking.exchange(true, std::memory_order_acquire)) return false;
    const bool taken = take(now);
    taking.store(false, std::memory_order_release); // see above
    return taken;
}

bool take_urg() {
    // relaxed: a thread of a parent's may have held it; else nobody else is there.
    taking.store(false, std::memory_order_relaxed);
    return keep_urg();
}

} // namespace baton::rt
