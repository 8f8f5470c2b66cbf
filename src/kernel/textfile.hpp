// SPDX-License-Identifier: Apache-2.0
//
// Small text files of the kernel's (proc, sysfs, cgroups) as strings.
//
// Threads: any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace baton::kernel {

/// The whole file, at most a megabyte of it; empty when it cannot be read.
[[nodiscard]] std::string read_text_file(const std::string& path);

/// The same into a buffer, as much as fits, for those who may not allocate.
[[nodiscard]] std::string_view read_text_file(const char* path, std::span<char> buffer) noexcept;

} // namespace baton::kernel
