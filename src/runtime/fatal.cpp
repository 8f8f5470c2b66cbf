// SPDX-License-Identifier: Apache-2.0
//
// The first words of a process that fails, its end, and its warnings: one write each, no
// allocation, from any thread or signal handler. vsnprintf is not on POSIX's list of what a handler
// may call, but glibc's neither locks nor allocates for the integer and string formats used here.
#include <unistd.h>

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "assist/pins.hpp"
#include "kernel/syscall.hpp"
#include "runtime/crash.hpp"
#include "runtime/runtime.hpp"

namespace baton::rt {

namespace {

constexpr int kExitCode = 2; // the reference's

void say(const char* prefix, const char* fmt, va_list args) {
    char text[1024];
    int n = std::snprintf(text, sizeof text, "%s", prefix);
    const int m =
        std::vsnprintf(text + n, sizeof text - static_cast<std::size_t>(n) - 1, fmt, args);
    n += m < 0 ? 0 : m;
    if (n > static_cast<int>(sizeof text) - 2) n = static_cast<int>(sizeof text) - 2;
    text[n++] = '\n';
    kernel::raw_syscall(SYS_write, 2, static_cast<const char*>(text), static_cast<std::size_t>(n));
}

} // namespace

void warn(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say("baton: ", fmt, args);
    va_end(args);
}

void die() {
    assist::remove_pins();
    hurry_end();
    if (traceback_level() == Traceback::kCrash) {
        ::signal(SIGABRT, SIG_DFL);
        std::abort();
    }
    _exit(kExitCode);
}

void fatal_error(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say("fatal error: ", fmt, args);
    va_end(args);
}

void fatal(const char* fmt, ...) {
    begin_crash();
    va_list args;
    va_start(args, fmt);
    say("baton: ", fmt, args);
    va_end(args);
    print_crash({});
    die();
}

void say_panic(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say("panic: ", fmt, args);
    va_end(args);
}

void say_nested_in(const char* fmt, ...) {
    va_list args;
    va_start(args, fmt);
    say("\tnested: ", fmt, args);
    va_end(args);
}

} // namespace baton::rt
