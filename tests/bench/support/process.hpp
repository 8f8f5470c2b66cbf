// SPDX-License-Identifier: Apache-2.0
//
// Child processes: every figure is taken in a fresh one, baton's like the peers'.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace bench {

/// Figures of one run, in the order the child printed them.
using Figures = std::vector<std::pair<std::string, double>>;

struct Command {
    std::vector<std::string> argv;
    std::vector<std::string> env; ///< "NAME=value", added to ours
    bool exact_sleeps = false;    ///< timer slack 1 ns instead of 50 us, for all its threads
    std::vector<int> keep_fds;    ///< descriptors the child inherits
};

/// A child whose standard output we read. It dies with us, and when this object is destroyed. What
/// it writes to standard error goes to ours, each different line once; the last line of a child
/// that failed becomes part of the Failure.
class Process {
public:
    explicit Process(const Command& command);
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    /// Its first line of output (a server's address). Throws Failure after `limit_s`.
    std::string first_line(double limit_s);
    /// All output until it ends; throws Failure if it fails or `limit_s` pass.
    std::string finish(double limit_s);
    /// User and system time it has used so far.
    [[nodiscard]] double cpu_us() const;
    /// Its resident set.
    [[nodiscard]] double resident_bytes() const;

private:
    bool read_more(double until_s);
    [[nodiscard]] std::string complaints() const;
    std::string name_;
    pid_t pid_ = -1;
    int out_ = -1;
    int err_ = -1; ///< an anonymous file
    std::string text_;
};

/// Thrown when a child printed `skip=reason`: it cannot measure here, which is no failure.
struct Skipped {
    std::string reason;
};

/// Runs a child to its end and reads its `figure=value` lines.
Figures figures_of(const Command& command, double limit_s);

} // namespace bench
