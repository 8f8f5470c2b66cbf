// SPDX-License-Identifier: Apache-2.0
//
// System calls on files, of whoever makes them, and their errors.
//
// Threads: any.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

#include "kernel/syscall.hpp"
#include "runtime/file_calls.hpp"

namespace baton::detail {

/// One that may block: announced, and in its turn. Again where a signal came first.
template <rt::FileCall::Turn turn = rt::FileCall::Turn::kOne, class... Args>
long file_call(long nr, Args... args) {
    const rt::FileCall call(turn);
    for (;;) {
        const long result = kernel::raw_syscall(nr, args...);
        if (result != -EINTR) return result;
    }
}

/// The error_code of a result; none unless it is negative.
inline std::error_code error_of_result(long result) {
    return {result < 0 ? static_cast<int>(-result) : 0, std::generic_category()};
}

/// Throws std::system_error, "baton::rename a b: No such file or directory", if there is an error.
inline void throw_if(const std::error_code& ec, const char* call, const std::string& about = {}) {
    if (ec)
        throw std::system_error(ec,
                                std::string("baton::") + call + (about.empty() ? "" : " ") + about);
}

} // namespace baton::detail
