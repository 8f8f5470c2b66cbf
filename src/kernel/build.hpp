// SPDX-License-Identifier: Apache-2.0
//
// How this build differs from the plain one: which sanitizer must be told of stack switches, and
// whether the lock order is checked (in every sanitizer build).
#pragma once

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BATON_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define BATON_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define BATON_TSAN 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define BATON_ASAN 1
#endif
#if defined(BATON_TSAN) || defined(BATON_ASAN)
#define BATON_LOCKRANK 1
#endif

/// For a function that reads what others may be writing, and can make do with either.
#define BATON_NO_TSAN __attribute__((no_sanitize("thread")))
