// SPDX-License-Identifier: Apache-2.0
//
// Functions by their names in libc, for what no header declares, or a compiler would call by
// another name. The names are noted: each hooked function is to be in some row (conformance.cpp).
#pragma once

#include <set>

#include <dlfcn.h>

#include "preload/rows/rows.hpp"

namespace rows {

inline std::set<std::string>& named_functions() {
    static std::set<std::string> names;
    return names;
}

template <class F>
F* named(const char* name) {
    named_functions().insert(name);
    void* at = ::dlsym(RTLD_DEFAULT, name);
    if (!at) at = ::dlvsym(RTLD_DEFAULT, name, "GLIBC_2.2.5"); // hidden from new programs
    return reinterpret_cast<F*>(at);
}

} // namespace rows
