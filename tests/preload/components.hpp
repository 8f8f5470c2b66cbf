// SPDX-License-Identifier: Apache-2.0
//
// Real libraries at work, by plain threads and by goroutines with hooks: the same answers, and few
// threads. What works is an example, run with --threads and without (compare_example), or a test
// case "child: NAME" in a process of its own (compare): many workers, each of which gives an
// answer.
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
#include "examples/workers.hpp"
#include "preload/hooked.hpp"
#include "support/child.hpp"

namespace components {

using namespace std::chrono_literals;
using child_process::Child;
using child_process::Strings;

inline bool by_goroutines() { return std::getenv("WORKERS") == std::string("goroutines"); }

/// As workers::run, in a child.
template <class Work>
void run_workers(workers::Plan plan, Work work) {
    plan.threads = !by_goroutines();
    workers::run(plan, work);
    child_process::reached();
}

/// What workers::run has printed.
struct Outcome {
    explicit Outcome(const std::string& output) {
        std::istringstream stream(output);
        for (std::string line; std::getline(stream, line);) {
            if (line.starts_with("answer ")) answers += line + '\n';
            if (line.starts_with("took ")) took = line;
            if (line.starts_with("threads ")) threads = std::stoi(line.substr(8));
        }
    }
    std::string answers, took;
    int threads = -1;
};

inline void compare_outcomes(const std::string& name, const std::string& by_threads,
                             const std::string& by_goroutines, int threads_most) {
    const Outcome plain(by_threads), ours(by_goroutines);
    INFO(by_goroutines);
    CHECK(!plain.answers.empty());
    CHECK(ours.answers == plain.answers);
    CHECK(ours.threads > 0);
    CHECK(ours.threads <= threads_most);
    std::printf("%s: threads %s (%d threads); goroutines %s (%d threads)\n", name.c_str(),
                plain.took.c_str(), plain.threads, ours.took.c_str(), ours.threads);
}

/// What "child: NAME" prints, which must reach its end.
inline std::string run_child_by(const std::string& name, bool goroutines, Strings variables = {}) {
    variables.push_back("BATON_MAXPROCS=2");
    variables.push_back(std::string("WORKERS=") + (goroutines ? "goroutines" : "threads"));
    if (goroutines) variables.push_back(hooked::preload());
    const Child child = child_process::run_child(name, variables, 60s);
    child_process::check_works(child);
    return child.output;
}

/// Runs "child: NAME" both ways.
inline void compare(const std::string& name, int threads_most) {
    compare_outcomes(name, run_child_by(name, false), run_child_by(name, true), threads_most);
}

inline std::string build_dir() {
    const char* build = std::getenv("BUILD");
    return build ? build : "build";
}

/// What an example prints, which must end well.
inline std::string run_example(const std::string& command) {
    const std::string line = "BATON_MAXPROCS=2 timeout 60 " + build_dir() + "/examples/" + command;
    std::string output;
    FILE* f = ::popen((line + " 2>&1").c_str(), "r");
    REQUIRE(f != nullptr);
    char buf[4096];
    for (std::size_t n; (n = std::fread(buf, 1, sizeof buf, f)) > 0;) output.append(buf, n);
    INFO(command << "\n" << output);
    CHECK(::pclose(f) == 0);
    return output;
}

/// Runs an example both ways.
inline void compare_example(const std::string& name, const std::string& command, int threads_most) {
    compare_outcomes(name, run_example(command + " --threads"), run_example(command), threads_most);
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
    pid_t pid() const { return pid_; }

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
