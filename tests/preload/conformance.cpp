// SPDX-License-Identifier: Apache-2.0
//
// The same rows on a thread, on a goroutine without hooks, on one with them, and on a thread beside
// such goroutines: all have to say the same.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <future>
#include <map>

#include "baton/baton.hpp"
#include "preload/hooked.hpp"
#include "preload/rows/rows.hpp"
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
    rows::add_syscalls(all);
    rows::add_forms(all);
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

Child run_rows(const char* where, bool hooks) {
    child_process::Strings variables{std::string("ROWS=") + where};
    if (hooks) variables.push_back(hooked::preload());
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

TEST_CASE("threads, goroutines with hooks and goroutines without agree") {
    // Side by side: they mostly wait.
    const auto start = [](const char* where, bool hooks) {
        return std::async(std::launch::async, run_rows, where, hooks);
    };
    auto hooked = start("goroutine", true);
    auto unhooked = start("goroutine", false);
    auto beside = start("thread", true);
    const Child child = run_rows("thread", false);
    CHECK(child.has(child_process::kReached));
    const auto native = outcomes(child);
    CHECK(native.size() >= 300);
    std::printf("%zu rows\n", native.size());
    compare(native, "goroutine", hooked.get());
    compare(native, "goroutine", unhooked.get());
    compare(native, "thread", beside.get());
}

} // namespace
