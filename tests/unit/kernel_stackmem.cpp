// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/features.hpp"
#include "kernel/stackmem.hpp"

using namespace baton::kernel;

namespace {

/// The signal a child dies of when it touches `address`; 0 if it lives.
int signal_of_touch(void* address, bool write) {
    const pid_t child = fork();
    if (child == 0) {
        // The default action, whatever the runtime or the test program has installed.
        std::signal(SIGSEGV, SIG_DFL);
        const rlimit no_core{0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        auto* byte = static_cast<volatile char*>(address);
        if (write) {
            *byte = 1;
        } else {
            (void)*byte;
        }
        _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/// Runs `test` with each kind of guard this machine has.
template <class Test>
void with_each_guard(Test test) {
    SUBCASE("mprotect") { test(GuardKind::kMprotect); }
    SUBCASE("MADV_GUARD_INSTALL") {
        if (features().guard_pages) {
            test(GuardKind::kMadvise);
        } else {
            MESSAGE("SKIPPED: no guard pages here, or switched off");
        }
    }
}

} // namespace

TEST_CASE("kernel stackmem: reserved memory is zero, writable, and can be huge") {
    constexpr std::size_t kBytes = std::size_t{1} << 36;
    int error = -1;
    auto* start = static_cast<char*>(reserve(kBytes, &error));
    REQUIRE(start != nullptr);
    CHECK(error == 0);
    CHECK(start[0] == 0);
    start[kBytes - 1] = 1;
    CHECK(start[kBytes - 1] == 1);
    release(start, kBytes);
}

TEST_CASE("kernel stackmem: a refusal is nullptr and says why") {
    int error = 0;
    CHECK(reserve(std::size_t{1} << 60, &error) == nullptr);
    CHECK(error == -ENOMEM);
    CHECK(reserve(0, &error) == nullptr);
    CHECK(error == -EINVAL);
}

TEST_CASE("kernel stackmem: I1, a guard faults, before and after a discard around it") {
    with_each_guard([](GuardKind kind) {
        const std::size_t page = page_size();
        auto* start = static_cast<char*>(reserve(3 * page));
        REQUIRE(start != nullptr);
        std::memset(start, 1, 3 * page);
        REQUIRE(install_guard_by(kind, start + page, page) == 0);
        CHECK(signal_of_touch(start + page, true) == SIGSEGV);
        CHECK(signal_of_touch(start + 2 * page - 1, false) == SIGSEGV);
        CHECK(signal_of_touch(start + page - 1, true) == 0);
        CHECK(signal_of_touch(start + 2 * page, true) == 0);
        REQUIRE(discard(start, 3 * page) == 0);
        CHECK(signal_of_touch(start + page, false) == SIGSEGV);
        release(start, 3 * page);
    });
}

TEST_CASE("kernel stackmem: I2, discarded pages read as zeros") {
    const std::size_t page = page_size();
    auto* start = static_cast<char*>(reserve(2 * page));
    REQUIRE(start != nullptr);
    std::memset(start, 7, 2 * page);
    CHECK(discard(start, page) == 0);
    CHECK(start[0] == 0);
    CHECK(start[page - 1] == 0);
    CHECK(start[page] == 7);
    release(start, 2 * page);
}

TEST_CASE("kernel stackmem: the usual guard works, in locked memory too") {
    const std::size_t page = page_size();
    auto* start = static_cast<char*>(reserve(2 * page));
    REQUIRE(start != nullptr);
    CHECK(install_guard(start, page) == 0);
    CHECK(signal_of_touch(start, true) == SIGSEGV);
    if (mlock(start + page, page) == 0) {
        CHECK(install_guard(start + page, page) == 0);
        CHECK(signal_of_touch(start + page, true) == SIGSEGV);
    } else {
        MESSAGE("SKIPPED: mlock refused, RLIMIT_MEMLOCK");
    }
    CHECK(install_guard(start + 1, page) == -EINVAL);
    release(start, 2 * page);
}
