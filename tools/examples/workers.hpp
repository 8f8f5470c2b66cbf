// SPDX-License-Identifier: Apache-2.0
//
// What the examples of libraries that block have in common: many workers, each of which calls such
// a library as if it had a thread to itself, and has; or, linked with libbaton_preload.so, a
// goroutine. Prints what each found, and what that took:
//
//   answer 0: ...
//   took 173 ms, 1000 queries, 5780 queries/s
//   threads 11                                   the most there were
#pragma once

#include <baton/baton.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace workers {

struct Plan {
    int workers = 0;
    bool threads = false;       ///< a thread for each, not a goroutine
    const char* unit = "calls"; ///< what a worker does
    int each = 1;               ///< so many of them
};

/// The most threads that this process has at a time.
class ThreadCount {
public:
    ThreadCount()
        : watcher_([this] {
              while (!done_) {
                  most_ = std::max(most_, now());
                  std::this_thread::sleep_for(std::chrono::milliseconds(2));
              }
          }) {}
    ~ThreadCount() {
        if (watcher_.joinable()) most();
    }
    ThreadCount(const ThreadCount&) = delete;
    ThreadCount& operator=(const ThreadCount&) = delete;
    /// Ends the watch.
    long most() {
        done_ = true;
        watcher_.join();
        return most_;
    }

private:
    static long now() {
        return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
    }

    std::atomic<bool> done_{false};
    long most_ = 0;
    std::thread watcher_;
};

/// Calls f(0) to f(n - 1), each on a goroutine or a thread of its own.
template <class F>
void run_each(const Plan& plan, F f) {
    if (plan.threads) {
        std::vector<std::thread> all;
        for (int i = 0; i < plan.workers; i++) all.emplace_back(f, i);
        for (std::thread& t : all) t.join();
        return;
    }
    baton::run([&] {
        if (!baton::hooks_active()) throw std::runtime_error("libbaton_preload.so is not there");
        baton::WaitGroup wg;
        for (int i = 0; i < plan.workers; i++) wg.go(f, i);
        wg.wait();
    });
}

/// `work(i)` gives worker i's answer.
template <class Work>
void run(const Plan& plan, Work work) {
    using Clock = std::chrono::steady_clock;
    std::vector<std::string> answers(static_cast<std::size_t>(plan.workers));
    if (!plan.threads) baton::run([] {}); // what starting takes is not theirs
    ThreadCount threads;
    const auto start = Clock::now();
    run_each(plan, [&](int i) { answers[static_cast<std::size_t>(i)] = work(i); });
    const std::chrono::duration<double> took = Clock::now() - start;
    const long most = threads.most();
    for (int i = 0; i < plan.workers; i++)
        std::printf("answer %d: %s\n", i, answers[static_cast<std::size_t>(i)].c_str());
    const int calls = plan.workers * plan.each;
    std::printf("took %.0f ms, %d %s, %.0f %s/s\nthreads %ld\n", took.count() * 1000, calls,
                plan.unit, calls / took.count(), plan.unit, most);
    std::fflush(stdout);
}

/// What is left of the command line without "--threads", which *threads tells of.
inline std::vector<std::string> arguments(int argc, char** argv, bool* threads) {
    std::vector<std::string> rest;
    for (int i = 1; i < argc; i++) {
        if (argv[i] == std::string_view("--threads"))
            *threads = true;
        else
            rest.emplace_back(argv[i]);
    }
    return rest;
}

} // namespace workers
