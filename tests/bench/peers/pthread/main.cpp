// SPDX-License-Identifier: Apache-2.0
//
// Plain threads, no runtime: the floors of `bracket`, `handoff`, `locked` and `mutex`, the workload
// of `handoff_load` and the thread-per-connection HTTP server. `pthread BENCH key=value...` prints
// `figure=value` lines.
#include <gnu/libc-version.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "../../support/key_values.hpp"
#include "threads.hpp"

int main(int argc, char** argv) {
    try {
        const std::string what = argc > 1 ? argv[1] : "";
        const bench::KeyValues args(std::span(argv + 2, argc > 2 ? argc - 2 : 0));
        if (what == "version") {
            std::printf("version=glibc %s\n", ::gnu_get_libc_version());
        } else if (what == "handoff") {
            floor_of_handoff(args);
        } else if (what == "bracket") {
            floor_of_bracket(args);
        } else if (what == "handoff_load") {
            handoff_load(args);
        } else if (what == "http" || what == "mixed" || what == "neighbour") {
            serve();
        } else if (what == "locked") {
            locked(args);
        } else if (what == "mutex") {
            mutex(args);
        } else {
            throw bench::Failure("unknown benchmark '" + what + "'");
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "pthread: %s\n", error.what());
        std::_Exit(1);
    }
    std::fflush(stdout);
    std::_Exit(0);
}
