// SPDX-License-Identifier: Apache-2.0
//
// Small text files of the kernel's (proc, sysfs, cgroups) as strings.
//
// Threads: any thread.
#pragma once

#include <string>

namespace baton::kernel {

/// The whole file, at most a megabyte of it; empty when it cannot be read.
[[nodiscard]] std::string read_text_file(const std::string& path);

} // namespace baton::kernel
