// SPDX-License-Identifier: Apache-2.0
//
// Real libraries at work, by plain threads and by goroutines with hooks: the same answers, and few
// threads. A test case "child: NAME" does the work in a process of its own, `work(i)` for each of
// many workers, each of which gives an answer; compare() runs it both ways.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <dirent.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "preload/hooked.hpp"
#include "support/child.hpp"

namespace components {

using namespace std::chrono_literals;
using child_process::Child;
using child_process::Strings;

inline bool by_goroutines() { return std::getenv("WORKERS") == std::string("goroutines"); }

inline int threads_now() {
    int n = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        (void)entry;
        n++;
    }
    return n;
}

/// Prints the answers, then "took N ms" and "threads N", the most that were seen.
template <class Work>
void run_workers(int n, Work work) {
    std::vector<std::string> answers(static_cast<std::size_t>(n));
    std::atomic<bool> done{false};
    int most = 0;
    std::thread watcher([&] {
        while (!done) {
            most = std::max(most, threads_now());
            std::this_thread::sleep_for(2ms);
        }
    });
    if (by_goroutines()) baton::run([] {}); // what starting takes is not theirs
    const auto start = std::chrono::steady_clock::now();
    const auto one = [&](int i) { answers[static_cast<std::size_t>(i)] = work(i); };
    if (by_goroutines()) {
        baton::run([&] {
            baton::WaitGroup wg;
            for (int i = 0; i < n; i++) wg.go([&, i] { one(i); });
            wg.wait();
        });
    } else {
        std::vector<std::thread> all;
        for (int i = 0; i < n; i++) all.emplace_back(one, i);
        for (std::thread& t : all) t.join();
    }
    const auto took = std::chrono::steady_clock::now() - start;
    done = true;
    watcher.join();
    for (int i = 0; i < n; i++)
        std::printf("answer %d: %s\n", i, answers[static_cast<std::size_t>(i)].c_str());
    std::printf(
        "took %lld ms\nthreads %d\n",
        static_cast<long long>(std::chrono::duration_cast<std::chrono::milliseconds>(took).count()),
        most);
    std::fflush(stdout);
    child_process::reached();
}

inline std::string lines_with(const Child& child, const std::string& start) {
    std::string all;
    std::istringstream stream(child.output);
    for (std::string line; std::getline(stream, line);)
        if (line.starts_with(start)) all += line + '\n';
    return all;
}
inline int number_of(const Child& child, const std::string& key) {
    const auto at = child.output.find("\n" + key);
    return at == std::string::npos ? -1 : std::atoi(child.output.c_str() + at + 1 + key.size());
}

/// Runs "child: NAME" both ways.
inline void compare(const std::string& name, Strings variables, int threads_most) {
    variables.push_back("BATON_STACK=512k"); // what these libraries need
    variables.push_back("BATON_MAXPROCS=2");
    Strings native = variables, hooked = variables;
    native.push_back("WORKERS=threads");
    hooked.push_back("WORKERS=goroutines");
    hooked.push_back(hooked::preload());
    const Child plain = child_process::run_child(name, native, 60s);
    child_process::check_works(plain);
    const Child ours = child_process::run_child(name, hooked, 60s);
    child_process::check_works(ours);
    CHECK(!lines_with(plain, "answer ").empty());
    CHECK(lines_with(ours, "answer ") == lines_with(plain, "answer "));
    CHECK(number_of(ours, "threads ") <= threads_most);
    std::printf("%s: threads took %d ms (%d of them), goroutines %d ms (%d threads)\n",
                name.c_str(), number_of(plain, "took "), number_of(plain, "threads "),
                number_of(ours, "took "), number_of(ours, "threads "));
}

/// A folder for a server's files, removed at the end.
class Folder {
public:
    Folder() {
        char name[] = "/tmp/baton-component-XXXXXX";
        path_ = ::mkdtemp(name);
        std::filesystem::permissions(path_, std::filesystem::perms::all);
    }
    ~Folder() {
        std::error_code ec;
        std::filesystem::remove_all(path_, ec);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

private:
    std::string path_;
};

/// A server, ended with us or with this object. Its words go to `log`.
class Service {
public:
    Service(const std::vector<std::string>& argv, const std::string& log) {
        pid_ = ::fork();
        if (pid_ != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (!std::freopen(log.c_str(), "w", stdout)) ::_exit(126);
        ::dup2(1, 2);
        std::vector<char*> args;
        for (const std::string& a : argv) args.push_back(const_cast<char*>(a.c_str()));
        args.push_back(nullptr);
        ::execvp(args[0], args.data());
        ::_exit(127);
    }
    ~Service() {
        ::kill(pid_, SIGINT);
        ::waitpid(pid_, nullptr, 0);
    }
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

private:
    pid_t pid_;
};

/// Tries until `f` holds; false after 20 s.
template <class F>
bool comes_up(F f) {
    for (int i = 0; i < 400; i++) {
        if (f()) return true;
        std::this_thread::sleep_for(50ms);
    }
    return false;
}

/// The first of these programs that is there; empty: none, and that is said.
inline std::string program(const char* what, const std::vector<std::string>& paths) {
    for (const std::string& p : paths)
        if (::access(p.c_str(), X_OK) == 0) return p;
    std::printf("skip: %s is not installed\n", what);
    return {};
}

} // namespace components
