// SPDX-License-Identifier: Apache-2.0
#include "assist/records.hpp"

#include <sys/mman.h>

namespace baton::assist {

Records allocate_records() noexcept {
    // One mapping: the scheduler's record in front, as its page is touched anyway.
    static_assert(kSchedBytes % 64 == 0 && kPBytes % 64 == 0); // each array stays aligned
    void* memory = ::mmap(nullptr, kSchedBytes + kPBytes + kMBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return {};
    auto* at = static_cast<char*>(memory);
    Records r;
    r.sched = reinterpret_cast<shared::sched_rec*>(at);
    r.p = reinterpret_cast<shared::p_rec*>(at + kSchedBytes);
    r.m = reinterpret_cast<shared::m_rec*>(at + kSchedBytes + kPBytes);
    return r;
}

} // namespace baton::assist
