// SPDX-License-Identifier: Apache-2.0
//
// SIGURG under ThreadSanitizer (tsan_signal.cpp). In other builds there is nothing to it.
//
// Threads: was_put_off in the handler; the others on one thread at a time.
#pragma once

#include <csignal>

#include "kernel/build.hpp"

namespace baton::rt {

#if defined(BATON_TSAN)

/// Has the kernel itself enter `handler`, which sigaction has just installed for `sig`, wherever
/// ThreadSanitizer's state is whole. False: that cannot be told, so it comes when that likes.
/// Another handler has another level (sigurg.hpp).
bool enter_directly(int sig, int level, void (*handler)(int, siginfo_t*, void*));
/// The level of the handler that sigaction finds as `found` then; -1: it is another one.
int level_in_front(void (*found)(int, siginfo_t*, void*));
/// Does sigaction find that, as `found`? Then it is what the kernel enters, again if need be.
bool entered_directly(int sig, void (*found)(int, siginfo_t*, void*));
/// Is this one that M::signalled announced and ThreadSanitizer put off? Says so once.
bool was_put_off() noexcept;

#else

inline bool enter_directly(int, int, void (*)(int, siginfo_t*, void*)) { return true; }
inline int level_in_front(void (*)(int, siginfo_t*, void*)) { return -1; }
inline bool entered_directly(int, void (*)(int, siginfo_t*, void*)) { return false; }
inline bool was_put_off() noexcept { return false; }

#endif

} // namespace baton::rt
