// SPDX-License-Identifier: Apache-2.0
#include "neighbours.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "key_values.hpp"

namespace bench {

namespace {

constexpr unsigned kLongestS = 300;

[[noreturn]] void spin_on(int cpu, bool own_session, pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(0); // it died before the line above
    ::alarm(kLongestS);                    // ends us
    if (own_session) ::setsid();
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    ::sched_setaffinity(0, sizeof only, &only);
    for (volatile unsigned long turns = 0;;) turns = turns + 1;
}

} // namespace

BusyNeighbours::BusyNeighbours(Neighbours kind, int most) {
    if (kind == Neighbours::kNone) return;
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    ::sched_getaffinity(0, sizeof allowed, &allowed);
    const pid_t parent = ::getpid();
    for (int cpu = 0; cpu < CPU_SETSIZE && most > 0; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const pid_t pid = ::fork();
        if (pid == 0) spin_on(cpu, kind == Neighbours::kOtherGroup, parent);
        if (pid < 0) throw Failure(std::string("fork: ") + std::strerror(errno));
        pids_.push_back(pid);
        --most;
    }
    ::usleep(20'000); // until each has reached its CPU
}

BusyNeighbours::~BusyNeighbours() {
    for (const pid_t pid : pids_) ::kill(pid, SIGKILL);
    for (const pid_t pid : pids_) ::waitpid(pid, nullptr, 0);
}

bool autogroups_enabled() {
    int enabled = 0;
    std::ifstream("/proc/sys/kernel/sched_autogroup_enabled") >> enabled;
    return enabled == 1;
}

} // namespace bench
