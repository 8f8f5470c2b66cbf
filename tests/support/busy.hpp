// SPDX-License-Identifier: Apache-2.0
//
// Other processes that compute, so that whoever is tested waits for a CPU now and then.
#pragma once

#include <csignal>
#include <thread>
#include <vector>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace busy {

/// So many for each CPU, as long as this object lives.
class Processes {
public:
    explicit Processes(unsigned per_cpu) : pids_(per_cpu * std::thread::hardware_concurrency()) {
        for (pid_t& pid : pids_) {
            pid = ::fork();
            if (pid != 0) continue;
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) asm volatile(""); // one that does nothing might be left out
        }
    }
    ~Processes() {
        for (const pid_t pid : pids_) {
            if (pid <= 0) continue; // not to be had
            ::kill(pid, SIGKILL);
            ::waitpid(pid, nullptr, 0);
        }
    }
    Processes(const Processes&) = delete;
    Processes& operator=(const Processes&) = delete;

private:
    std::vector<pid_t> pids_;
};

} // namespace busy
