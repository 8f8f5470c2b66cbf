// SPDX-License-Identifier: Apache-2.0
//
// A test case in a process of its own: this very program with another environment and one of the
// cases whose titles begin with "child", which are skipped otherwise.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace child_process {

using namespace std::chrono_literals;
using Strings = std::vector<std::string>;

inline constexpr const char* kReached = "child reached its end";

struct Child {
    int status = 0; ///< as waitpid has it
    bool hung = false;
    std::string output;

    bool exited(int code) const { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
    bool killed_by(int sig) const { return WIFSIGNALED(status) && WTERMSIG(status) == sig; }
    bool has(const std::string& text) const { return output.find(text) != std::string::npos; }
    /// What baton said, a line each, but for what a tier below the best has it say always.
    Strings said() const {
        return lines([](const std::string& line) {
            return !line.starts_with(kTier) &&
                   (line.starts_with("baton: ") || line.starts_with("panic: "));
        });
    }
    Strings said_of_tier() const {
        return lines([](const std::string& line) { return line.starts_with(kTier); });
    }

private:
    static constexpr const char* kTier = "baton: assist tier is ";
    template <class Which>
    Strings lines(Which which) const {
        Strings all;
        std::istringstream stream(output);
        for (std::string line; std::getline(stream, line);) {
            if (which(line)) all.push_back(line);
        }
        return all;
    }
};

/// What a child has of this program's environment. The tier and the number of Ps are its own to
/// say; unsaid, they are those this test runs on. Of the rest of baton's variables it gets none.
inline bool inherits(const std::string& entry, const Strings& variables) {
    const std::string name = entry.substr(0, entry.find('=') + 1);
    if (name == "BATON_ASSIST=" || name == "BATON_MAXPROCS=") {
        for (const std::string& variable : variables) {
            if (variable.starts_with(name)) return false;
        }
        return true;
    }
    return !name.starts_with("BATON_") && name != "GLIBC_TUNABLES=";
}

inline std::vector<char*> environment(Strings& variables) {
    std::vector<char*> all;
    for (std::string& variable : variables) all.push_back(variable.data());
    for (char** entry = environ; *entry != nullptr; ++entry) {
        if (inherits(*entry, variables)) all.push_back(*entry);
    }
    all.push_back(nullptr);
    return all;
}

inline Child run_child(const std::string& title, Strings variables = {},
                       std::chrono::milliseconds limit = 15s,
                       const char* program = "/proc/self/exe") {
    const std::string filter = "--test-case=child: " + title;
    const char* argv[] = {"child", filter.c_str(), "--no-skip", nullptr};
    std::vector<char*> env = environment(variables);
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t quit; // a shell has its background jobs ignore it
    sigemptyset(&quit);
    sigaddset(&quit, SIGQUIT);
    posix_spawnattr_setsigdefault(&attributes, &quit);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    pid_t pid = 0;
    const int error =
        posix_spawn(&pid, program, &actions, &attributes, const_cast<char**>(argv), env.data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    REQUIRE(error == 0);

    Child child;
    const auto end = std::chrono::steady_clock::now() + limit;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            end - std::chrono::steady_clock::now());
        pollfd pfd{ends[0], POLLIN, 0};
        if (left.count() <= 0 || poll(&pfd, 1, static_cast<int>(left.count())) == 0) {
            child.hung = true;
            kill(pid, SIGKILL);
            break;
        }
        char buffer[1024];
        const ssize_t n = read(ends[0], buffer, sizeof buffer);
        if (n <= 0) break;
        child.output.append(buffer, static_cast<std::size_t>(n));
    }
    close(ends[0]);
    REQUIRE(waitpid(pid, &child.status, 0) == pid);
    return child;
}

/// The child must say so itself: a filter that matches nothing ends with status 0 as well.
inline void reached() { std::fprintf(stderr, "%s\n", kReached); }

inline void check_works(const Child& child) {
    INFO(child.output);
    CHECK(!child.hung);
    CHECK(child.exited(0));
    CHECK(child.has(kReached));
}

/// All these values of a variable, or the one this test was told to run on.
inline Strings each_of(const std::string& name, const Strings& values) {
    const char* told = std::getenv(name.c_str());
    if (told != nullptr && *told != '\0') return {name + "=" + told};
    Strings all;
    for (const std::string& value : values) all.push_back(name + "=" + value);
    return all;
}
inline const Strings kTiers = each_of("BATON_ASSIST", {"probe", "understudy", "sysmon"});
inline const Strings kProcs = each_of("BATON_MAXPROCS", {"1", "2", "4", "8"});

/// On all of them side by side: children mostly wait.
inline std::vector<Child> run_on_tiers(const std::string& title, const Strings& variables = {}) {
    std::vector<std::future<Child>> runs;
    for (const std::string& tier : kTiers) {
        Strings all = variables;
        all.push_back(tier);
        runs.push_back(
            std::async(std::launch::async, [title, all] { return run_child(title, all); }));
    }
    std::vector<Child> children;
    for (std::future<Child>& run : runs) children.push_back(run.get());
    return children;
}

inline std::size_t count(const std::string& text, const std::string& what) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at++) n++;
    return n;
}

/// It ended by itself, and its output has `part`.
inline void check_shows(const Child& child, const std::string& part) {
    INFO("no \"" << part << "\" in\n" << child.output);
    CHECK(!child.hung);
    CHECK(child.has(part));
}
inline void check_hides(const Child& child, const std::string& part) {
    INFO("\"" << part << "\" in\n" << child.output);
    CHECK(!child.has(part));
}
/// It ended with this exit code, before its end.
inline void check_ends(const Child& child, int code) {
    INFO(child.output);
    CHECK(!child.hung);
    CHECK(child.exited(code));
    CHECK(!child.has(kReached));
}

/// The child ends with `line` as its only one, and exit code 2.
inline void check_dies(const std::string& title, const std::string& line,
                       const Strings& variables = {}) {
    const Child child = run_child(title, variables);
    INFO(title << "\n" << child.output);
    CHECK(!child.hung);
    CHECK(child.exited(2));
    CHECK(!child.has(kReached));
    const Strings said = child.said();
    REQUIRE(said.size() == 1);
    CHECK(said[0].substr(0, line.size()) == line);
}

} // namespace child_process
