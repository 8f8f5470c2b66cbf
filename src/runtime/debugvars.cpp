// SPDX-License-Identifier: Apache-2.0
#include "runtime/debugvars.hpp"

#include <sys/auxv.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "runtime/runtime.hpp"

namespace baton::rt {

namespace {

constexpr std::string_view kLevels[] = {"none", "single", "all", "system", "crash"};

void read_debug_var(std::string_view item, DebugVars& vars) {
    const std::size_t equals = item.find('=');
    const std::string name(item.substr(0, equals));
    const std::string value(equals == item.npos ? "" : item.substr(equals + 1));
    if (name != "leak") {
        warn("BATON_DEBUG: unknown name '%s'; known: leak", name.c_str());
    } else if (value != "0" && value != "1") {
        warn("BATON_DEBUG: leak=%s: not 0 or 1; using 0", value.c_str());
    } else {
        vars.leak = value == "1";
    }
}

} // namespace

Traceback read_traceback() {
    // Who runs a setuid program is not told what it does.
    if (::getauxval(AT_SECURE) != 0) return Traceback::kNone;
    const char* v = std::getenv("BATON_TRACEBACK");
    if (!v || !*v) return Traceback::kSingle;
    for (std::size_t i = 0; i < std::size(kLevels); i++) {
        if (kLevels[i] == v) return static_cast<Traceback>(i);
    }
    warn("BATON_TRACEBACK=%s: not one of none, single, all, system, crash; using single", v);
    return Traceback::kSingle;
}

DebugVars read_debug() {
    DebugVars vars;
    const char* v = std::getenv("BATON_DEBUG");
    std::string_view rest = v ? v : "";
    while (!rest.empty()) {
        const std::size_t comma = rest.find(',');
        const std::string_view item = rest.substr(0, comma);
        if (!item.empty()) read_debug_var(item, vars);
        rest = comma == rest.npos ? "" : rest.substr(comma + 1);
    }
    return vars;
}

} // namespace baton::rt
