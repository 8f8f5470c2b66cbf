// SPDX-License-Identifier: Apache-2.0
//
// The same rows on a thread, on a goroutine without hooks, on one with them, and on a thread beside
// such goroutines: all have to say the same.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <future>
#include <map>
#include <set>

#include <unistd.h>

#include "baton/baton.hpp"
#include "preload/hooked.hpp"
#include "preload/rows/named.hpp"
#include "support/child.hpp"

namespace {

using child_process::Child;
using child_process::run_child;

rows::Rows all_rows() {
    rows::Rows all;
    rows::add_reads(all);
    rows::add_writes(all);
    rows::add_waits(all);
    rows::add_sleeps(all);
    rows::add_files(all);
    rows::add_locks(all);
    rows::add_semaphores(all);
    rows::add_dials(all);
    rows::add_threads(all);
    rows::add_streams(all);
    rows::add_preads(all);
    rows::add_paths(all);
    rows::add_syscalls(all);
    rows::add_forms(all);
    rows::add_stdio_forms(all);
    rows::add_rest(all);
    return all;
}

std::map<std::string, std::string> outcomes(const Child& child) {
    std::map<std::string, std::string> all;
    std::istringstream stream(child.output);
    for (std::string line; std::getline(stream, line);) {
        const auto at = line.find(" => ");
        if (line.starts_with("row ") && at != std::string::npos)
            all[line.substr(4, at - 4)] = line.substr(at + 4);
    }
    return all;
}

Child run_rows(const char* where, bool hooks, const char* allocator = "") {
    child_process::Strings variables{std::string("ROWS=") + where};
    if (hooks) variables.push_back(hooked::preload() + allocator);
    return run_child("rows", variables, std::chrono::seconds(40));
}

void compare(const std::map<std::string, std::string>& native, const char* where,
             const Child& child) {
    CHECK_FALSE(child.hung);
    const auto here = outcomes(child);
    CHECK(child.has(child_process::kReached));
    for (const auto& [name, outcome] : native) {
        const auto found = here.find(name);
        const std::string got = found == here.end() ? "(nothing)" : found->second;
        if (got != outcome)
            std::fprintf(stderr, "%s: %s: %s\n  natively: %s\n", where, name.c_str(), got.c_str(),
                         outcome.c_str());
        CHECK(got == outcome);
    }
}

TEST_CASE("child: rows" * doctest::skip()) {
    const bool thread = std::getenv("ROWS") == std::string("thread");
    std::signal(SIGPIPE, SIG_IGN);
    const auto run = [] {
        for (const rows::Row& row : all_rows()) {
            std::string outcome = row.body();
            std::replace(outcome.begin(), outcome.end(), '\n', '|');
            std::printf("row %s => %s\n", row.name.c_str(), outcome.c_str());
            std::fflush(stdout);
        }
        child_process::reached();
    };
    if (thread) {
        baton::run([] {});
        run();
    } else {
        baton::run([&] {
            const bool wanted = std::getenv("LD_PRELOAD") != nullptr;
            if (baton::hooks_active() != wanted) std::printf("hooks_active() is wrong\n");
            run();
        });
    }
}

constexpr const char* kSymbols[] = {
#define PARK(group, type, name, params, args) #name,
#define SAME(group, type, name, params, target, args) #name,
#define FORMATS(group, type, name, vname, params, last, args) #name,
#include "preload/symbols.def"
};

/// What this program imports, or asks for by name.
std::set<std::string> called_functions() {
    std::set<std::string> names = rows::named_functions();
    const std::string command = "nm -D -u /proc/" + std::to_string(::getpid()) + "/exe";
    FILE* f = ::popen(command.c_str(), "r");
    REQUIRE(f != nullptr);
    char line[512];
    while (std::fgets(line, sizeof line, f)) {
        char name[512];
        if (std::sscanf(line, " %*s %511[^@\n]", name) == 1) names.insert(name);
    }
    CHECK(::pclose(f) == 0);
    return names;
}

TEST_CASE("each hooked function is called by some row") {
    (void)all_rows();
    const std::set<std::string> called = called_functions();
    // Not called: they are for all disks of the machine, and all streams.
    const std::set<std::string> left_out = {"sync", "fcloseall"};
    for (const std::string name : kSymbols) {
        const bool is_called = called.count(name) + left_out.count(name) == 1;
        if (!is_called) std::fprintf(stderr, "no row calls %s\n", name.c_str());
        CHECK(is_called);
    }
}

TEST_CASE("threads, goroutines with hooks and goroutines without agree") {
    // Side by side: they mostly wait.
    const auto start = [](const char* where, bool hooks, const char* allocator = "") {
        return std::async(std::launch::async, run_rows, where, hooks, allocator);
    };
    auto hooked = start("goroutine", true);
    auto unhooked = start("goroutine", false);
    auto beside = start("thread", true);
    auto jemalloc = start("goroutine", true, ":libjemalloc.so.2");
    auto tcmalloc = start("goroutine", true, ":libtcmalloc_minimal.so.4");
    const Child child = run_rows("thread", false);
    CHECK(child.has(child_process::kReached));
    const auto native = outcomes(child);
    CHECK(native.size() >= 300);
    std::printf("%zu rows\n", native.size());
    compare(native, "goroutine", hooked.get());
    compare(native, "goroutine without", unhooked.get());
    compare(native, "thread", beside.get());
    compare(native, "goroutine, jemalloc", jemalloc.get());
    compare(native, "goroutine, tcmalloc", tcmalloc.get());
}

} // namespace
