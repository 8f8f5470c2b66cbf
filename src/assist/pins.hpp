// SPDX-License-Identifier: Apache-2.0
//
// What bpftool and cat can see of a process: maps and a table pinned in /sys/fs/bpf/baton/PID.
//
//     bpftool map dump pinned /sys/fs/bpf/baton/PID/m
//     cat /sys/fs/bpf/baton/PID/ms
//
// The directory is its owner's alone (0700); root reads everyone's. Beside the pins lies a symbolic
// link, `ns`, that names the pid namespace PID is a number of: several namespaces may share one
// bpffs, and a process of another one can neither be seen from here nor told dead.
//
// Threads: pin_objects and sweep_pins by one thread at a time; remove_pins by any thread, and from
// signal handlers. One set of pins per process.
//
// Invariants:
//   I1  pins end with the process: exit() and remove_pins() remove them, and what a killed process
//       left is removed by the next one that pins
//   I2  sweeping removes nothing but known names from directories that are named by the digits of
//       a process which this pid namespace no longer has
//   I3  a forked child never removes its parent's pins
#pragma once

#include <span>
#include <string>

namespace baton::assist {

inline constexpr char kPinRoot[] = "/sys/fs/bpf/baton";

/// A map's or link's descriptor, and one of the names m, p, sched, ms.
struct PinObject {
    const char* name;
    int fd;
};

/// Pins all of them, sweeping first; mounts a bpffs where there is none, if allowed. 0 or -errno:
/// then nothing is pinned, and `why` is one line, reason and cure. -EBUSY: pinned already.
[[nodiscard]] int pin_objects(std::span<const PinObject> objects, std::string& why);

/// Removes this process's pins. Nothing to remove is no error. Async-signal-safe.
void remove_pins() noexcept;

/// Removes what processes that are gone have left; how many directories.
int sweep_pins() noexcept;

} // namespace baton::assist
