// SPDX-License-Identifier: Apache-2.0
//
// What people see of a process in /sys/fs/bpf/baton, and that it goes when the process does.
// Needs root and a kernel with BTF, as the probe's own tests do.
#include <doctest/doctest.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "assist/ownership.hpp"
#include "assist/pins.hpp"
#include "assist/probe.hpp"
#include "kernel/syscall.hpp"

using namespace baton;
using assist::Probe;
using assist::Word;

namespace {

/// A probe whose records are pinned, or null where that cannot be; loud about which.
std::unique_ptr<Probe> pinned_or_skip() {
    if (::geteuid() != 0 || ::access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
        MESSAGE("SKIPPED: needs root, and a kernel with BTF");
        return nullptr;
    }
    std::string why;
    auto probe = Probe::load(why);
    REQUIRE_MESSAGE(probe, why);
    const int r = probe->pin(why);
    REQUIRE_MESSAGE(r == 0, why);
    return probe;
}

std::string dir_of(long pid) { return std::string(assist::kPinRoot) + "/" + std::to_string(pid); }
std::string own_dir() { return dir_of(kernel::raw_syscall(__NR_getpid)); }
bool exists(const std::string& path) {
    struct stat st;
    return ::lstat(path.c_str(), &st) == 0;
}

std::string output_of(const std::string& command) {
    FILE* pipe = ::popen(("PATH=$PATH:/usr/sbin; " + command).c_str(), "r");
    REQUIRE(pipe);
    std::string text;
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
    ::pclose(pipe);
    return text;
}

std::string contents_of(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

/// Runs body in a child, and waits until that is gone: its pid.
template <class Body>
pid_t run_child(Body&& body) {
    std::fflush(nullptr);
    const pid_t pid = ::fork();
    if (pid == 0) {
        body();
        ::_exit(0);
    }
    int status;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    return pid;
}

std::unique_ptr<Probe> kept; // reachable, so that nobody reports it as leaked at exit

void load_and_pin() {
    std::string why;
    kept = Probe::load(why);
    if (!kept || kept->pin(why) != 0) ::_exit(1);
}

} // namespace

TEST_CASE("pins: bpftool prints Ms and Ps with their states by name, cat a table") {
    auto probe = pinned_or_skip();
    if (!probe) return;
    shared::m_rec& m = probe->records().m[7];
    m.tid = 4242;
    m.state = shared::M_BLOCKED;
    m.p = 3;
    m.sysno = 35;
    m.goid = 99;
    probe->records().m[8].state = shared::M_UNDERSTUDY;
    probe->records().m[9].state =
        static_cast<shared::m_state>(200); // anything may be written there
    probe->records().p[3].word = Word{7, 0, 1, shared::P_BLOCKED}.pack();
    const std::string dir = own_dir();

    const std::string ms = output_of("bpftool map dump pinned " + dir + "/m");
    CHECK(ms.find("\"M_BLOCKED\"") != std::string::npos);
    CHECK(ms.find("\"M_UNDERSTUDY\"") != std::string::npos);
    CHECK(ms.find("\"tid\": 4242") != std::string::npos);
    const std::string ps = output_of("bpftool map dump pinned " + dir + "/p");
    CHECK(ps.find("\"state\": \"P_BLOCKED\"") != std::string::npos);
    CHECK(ps.find("\"owner\": 7") != std::string::npos);
    CHECK(output_of("bpftool map dump pinned " + dir + "/sched").find("nblocked") !=
          std::string::npos);

    const std::string table = contents_of(dir + "/ms");
    INFO(table);
    std::istringstream rows(table);
    std::string header, seven, eight, nine, more;
    std::getline(rows, header);
    std::getline(rows, seven);
    std::getline(rows, eight);
    std::getline(rows, nine);
    CHECK_FALSE(std::getline(rows, more));
    CHECK(header.find("STATE") != std::string::npos);
    int slot = 0, tid = 0, p = 0, goid = 0;
    char state[16] = {};
    CHECK(std::sscanf(seven.c_str(), "%d %d %15s %d %d", &slot, &tid, state, &p, &goid) == 5);
    CHECK(slot == 7);
    CHECK(tid == 4242);
    CHECK(std::string(state) == "blocked");
    CHECK(p == 3);
    CHECK(goid == 99);
    CHECK(eight.find(" understudy ") != std::string::npos);
    CHECK(nine.find(" ? ") != std::string::npos);

    struct stat st;
    REQUIRE(::stat(dir.c_str(), &st) == 0);
    CHECK((st.st_mode & 07777) == 0700);
    REQUIRE(::stat(assist::kPinRoot, &st) == 0);
    CHECK((st.st_mode & 07777) == 01777);
}

TEST_CASE("pins: one set per process, gone with the probe") {
    auto probe = pinned_or_skip();
    if (!probe) return;
    std::string why;
    CHECK(probe->pin(why) == -EBUSY);
    CHECK(exists(own_dir() + "/m"));
    probe.reset();
    CHECK_FALSE(exists(own_dir()));

    probe = pinned_or_skip(); // and again
    CHECK(exists(own_dir() + "/ms"));
    assist::remove_pins(); // what a fatal error calls
    CHECK_FALSE(exists(own_dir()));
    assist::remove_pins();
}

TEST_CASE("pins I1: exit removes them, and the next process those of a killed one") {
    auto probe = pinned_or_skip();
    if (!probe) return;
    probe.reset();
    const pid_t exited = run_child([] {
        load_and_pin();
        if (!exists(own_dir() + "/m")) ::_exit(1);
        std::exit(0);
    });
    CHECK_FALSE(exists(dir_of(exited)));

    const pid_t killed = run_child([] {
        load_and_pin();
        ::kill(::getpid(), SIGKILL);
    });
    CHECK(exists(dir_of(killed) + "/m"));
    probe = pinned_or_skip();
    CHECK_FALSE(exists(dir_of(killed)));
}

TEST_CASE("pins I2: the sweep leaves the living, other names and other namespaces alone") {
    auto probe = pinned_or_skip();
    if (!probe) return;
    const pid_t gone = run_child([] {});
    const std::string stale = dir_of(gone), living = dir_of(1);
    const std::string named = std::string(assist::kPinRoot) + "/12x", empty = dir_of(0);
    const auto all = {stale, living, named, empty};
    for (const auto& dir : all) REQUIRE(::mkdir(dir.c_str(), 0700) == 0);

    REQUIRE(::symlink("pid:[1]", (stale + "/ns").c_str()) == 0);
    (void)assist::sweep_pins();
    for (const auto& dir : all) CHECK(exists(dir)); // the stale one is not ours to judge
    REQUIRE(::unlink((stale + "/ns").c_str()) == 0);

    REQUIRE(::mkdir((stale + "/other").c_str(), 0700) == 0);
    (void)assist::sweep_pins();
    CHECK(exists(stale + "/other")); // not one of the names we create
    REQUIRE(::rmdir((stale + "/other").c_str()) == 0);

    CHECK(assist::sweep_pins() >= 1);
    CHECK_FALSE(exists(stale));
    CHECK(exists(own_dir() + "/m"));
    for (const auto& dir : {living, named, empty}) {
        CHECK(exists(dir));
        ::rmdir(dir.c_str());
    }
}

TEST_CASE("pins I3: a forked child does not remove its parent's") {
    auto probe = pinned_or_skip();
    if (!probe) return;
    run_child([&] {
        assist::remove_pins();
        if (probe->after_fork_in_child() != 0) ::_exit(1);
        probe.reset();
        std::exit(0);
    });
    CHECK(exists(own_dir() + "/m"));
    CHECK(exists(own_dir() + "/ms"));
}

TEST_CASE("pins: a refusal is one line, and harmless") {
    auto probe = pinned_or_skip();
    if (!probe) return;
    probe.reset();
    REQUIRE(::mkdir(own_dir().c_str(), 0700) == 0); // of another namespace, with our number
    REQUIRE(::symlink("pid:[1]", (own_dir() + "/ns").c_str()) == 0);
    std::string why;
    probe = Probe::load(why);
    REQUIRE(probe);
    CHECK(probe->pin(why) == -EEXIST);
    CHECK(why.find(own_dir()) == 0);
    CHECK(why.find('\n') == std::string::npos);
    CHECK(exists(own_dir() + "/ns")); // theirs
    ::unlink((own_dir() + "/ns").c_str());
    CHECK(probe->pin(why) == 0); // stale, and ours: replaced
}
