// SPDX-License-Identifier: Apache-2.0
//
// Numbers of the newer futex calls, which many installed kernel headers do not have yet.
// For futex.cpp and features.cpp.
#pragma once

#include <cstdint>

namespace baton::kernel {

inline constexpr long kNrFutexWaitv = 449; ///< Linux 5.16
inline constexpr long kNrFutexWake = 454;  ///< Linux 6.7
inline constexpr long kNrFutexWait = 455;  ///< Linux 6.7

/// FUTEX2_SIZE_U32 | FUTEX2_PRIVATE
inline constexpr std::uint32_t kFutex2Private32 = 0x02 | 0x80;
inline constexpr std::uint32_t kFutexAnyBits = 0xffffffff;

/// struct futex_waitv
struct FutexWaitvEntry {
    std::uint64_t value;
    std::uint64_t address;
    std::uint32_t flags;
    std::uint32_t reserved;
};
static_assert(sizeof(FutexWaitvEntry) == 24);

} // namespace baton::kernel
