// SPDX-License-Identifier: Apache-2.0
//
// Staying awake for a moment in place of going to sleep, where what one waits for is likely to
// come: to wake a thread that sleeps on another, idle CPU takes tens of microseconds, and a system
// call of whoever does.
//
// Threads: a Patience belongs to one thread, the one that waits.
#pragma once

#include <cstdint>

namespace baton::rt {

class Patience {
public:
    /// Until a thread that sleeps on another, idle CPU would run.
    static constexpr std::int64_t kNs = 50'000;

    /// Has it lately paid to wait awake? If not, it is tried now and then.
    bool worth_it() { return vain_ < kVain || ++vain_ % kTryAgain == 0; }
    void note(bool paid) {
        if (paid) {
            vain_ = 0;
        } else if (vain_ < kVain) {
            vain_++;
        }
    }

private:
    static constexpr std::uint32_t kVain = 4;      // in a row, until most are not tried
    static constexpr std::uint32_t kTryAgain = 32; // and how often one is
    std::uint32_t vain_ = 0;
};

} // namespace baton::rt
