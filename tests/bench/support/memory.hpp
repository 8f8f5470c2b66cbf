// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <fstream>
#include <string>

namespace bench {

/// A process's resident set; 0 if it is gone.
inline double resident_bytes(const std::string& pid = "self") {
    long size = 0, resident = 0;
    std::ifstream("/proc/" + pid + "/statm") >> size >> resident;
    return static_cast<double>(resident) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

} // namespace bench
