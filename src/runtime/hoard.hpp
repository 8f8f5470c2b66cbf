// SPDX-License-Identifier: Apache-2.0
//
// Hoards: what layers above keep for later use and give back if nobody comes for it. sysmon asks
// for that with its forced pass. To give something back can mean to run the program's own code,
// which may wait for anything: so a goroutine does it, one for all of them, and sysmon only starts
// it.
//
// Threads: any, but for hoards_pass (sysmon).
// Invariants: I1 a hoard that is in the list stays where it is; I2 `busy` is raised with the lock
// held, on a hoard in the list, and who removes one waits until it has fallen: so release runs on
// no hoard that is gone.
// Locks: one of rank kLeaf, not held during release.
// Rejected: a timer for each hoard: with one armed a process is never found deadlocked.
#pragma once

#include <atomic>
#include <cstdint>

namespace baton::rt {

struct Hoard {
    /// Gives back what has not been needed lately. On a goroutine; may park; must not throw.
    void (*release)(Hoard* hoard) noexcept;

    // hoard.cpp's, as what follows.
    Hoard* next = nullptr;
    Hoard* prev = nullptr;
    std::uint32_t pass = 0;             // that looked at it last
    std::uint32_t forks = 0;            // how often this process is a child of who made it
    std::atomic<std::uint32_t> busy{0}; // released just now; a futex
};

void hoard_add(Hoard* hoard) noexcept;
/// Returns when nothing is released of it any more.
void hoard_remove(Hoard* hoard) noexcept;

/// Is there any?
bool hoards_any() noexcept;
/// Starts the goroutine, if there is something to do and the last one has ended.
void hoards_pass() noexcept;
/// In a forked child: nobody asks for what those of its parent keep.
void hoards_forget();

} // namespace baton::rt
