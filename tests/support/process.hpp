// SPDX-License-Identifier: Apache-2.0
//
// What the tests of processes share: what goes on while one forks or ends, and whether its child
// is well.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <mutex>

#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/child.hpp"

namespace process_test {

using namespace std::chrono_literals;
using baton::Chan;
using baton::WaitGroup;

inline void check_child(const char* title, std::chrono::milliseconds limit = 15s) {
    child_process::check_works(child_process::run_child(title, {}, limit));
}

/// The exit code of a child, -1 when a signal killed it. It is a failure to take 10 s.
inline int wait_for(pid_t pid) {
    return baton::blocking([pid] {
        int status = 0;
        for (int i = 0; i < 10'000; i++) {
            if (waitpid(pid, &status, WNOHANG) == pid)
                return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
            usleep(1000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return -2;
    });
}

/// A little of everything, on as many goroutines.
inline bool works() {
    return baton::run([] {
        constexpr int kEach = 20;
        Chan<int> channel(2);
        baton::Mutex mutex;
        int guarded = 0;
        WaitGroup wg;
        for (int i = 0; i < kEach; i++) {
            wg.go([&, channel] {
                baton::blocking([] { usleep(500); });
                baton::sleep_for(200us);
                std::lock_guard guard(mutex);
                baton::yield();
                guarded++;
                channel.send(1);
            });
        }
        int sum = 0;
        while (sum < kEach) sum += *channel.recv();
        wg.wait();
        return guarded == kEach;
    });
}

/// Goroutines that run, park, block and start others, until they are told to end.
class Storm {
public:
    Storm() {
        for (int i = 0; i < 8; i++) {
            wg_.go([this] {
                while (!stop_.load()) {
                    WaitGroup few;
                    for (int n = 0; n < 8; n++) few.go([this] { turns.fetch_add(1); });
                    few.wait();
                    (void)channel_.recv();
                    channel_.send(1);
                }
            });
            wg_.go([this] {
                while (!stop_.load()) {
                    baton::blocking([] { usleep(100); });
                    std::lock_guard guard(mutex_);
                    baton::sleep_for(50us);
                    turns.fetch_add(1);
                }
            });
        }
        for (int i = 0; i < 4; i++) channel_.send(1);
    }
    ~Storm() {
        stop_.store(true);
        wg_.wait();
    }
    std::atomic<long> turns{0};

private:
    std::atomic<bool> stop_{false};
    Chan<int> channel_{16};
    baton::Mutex mutex_;
    WaitGroup wg_;
};

} // namespace process_test
