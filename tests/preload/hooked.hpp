// SPDX-License-Identifier: Apache-2.0
//
// Where the hooks library is, for tests that start a process with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace hooked {

inline std::string library() {
    const char* build = std::getenv("BUILD");
    const std::string dir = build ? build : "build";
    return std::filesystem::absolute(dir).string() + "/libbaton_preload.so";
}
inline std::string preload() { return "LD_PRELOAD=" + library(); }

} // namespace hooked
