// SPDX-License-Identifier: Apache-2.0
//
// What the kernel says of this process's io_urings, in /proc/self/fdinfo.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

namespace rings_test {

struct Rings {
    std::uint64_t submitted = 0; ///< requests the kernel has taken
    std::uint64_t completed = 0;
    bool overflown = false; ///< it keeps completions that a ring has no room for
};

inline Rings look() {
    namespace fs = std::filesystem;
    Rings rings;
    for (const fs::directory_entry& fd : fs::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (fs::read_symlink(fd.path(), gone) != "anon_inode:[io_uring]") continue;
        // Nothing is said of one that is just entered.
        for (bool said = false; !said;) {
            std::ifstream info("/proc/self/fdinfo/" + fd.path().filename().string());
            if (!info) break; // closed
            bool kept = false;
            for (std::string line; std::getline(info, line);) {
                if (line.starts_with("SqHead:")) rings.submitted += std::stoul(line.substr(7));
                if (line.starts_with("CqTail:")) rings.completed += std::stoul(line.substr(7));
                if (kept && line.find("user_data=") != std::string::npos) rings.overflown = true;
                kept = kept || line.starts_with("CqOverflowList:");
                said = said || line.starts_with("CqTail:");
            }
        }
    }
    return rings;
}

} // namespace rings_test
