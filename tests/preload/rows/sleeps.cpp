// SPDX-License-Identifier: Apache-2.0
//
// Sleeping, waiting for children, and names.
#include <csignal>
#include <ctime>

#include <netdb.h>
#include <sys/wait.h>
#include <threads.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

void add_naps(Rows& rows) {
    const auto row = [&](const char* name, std::function<long()> nap, std::chrono::milliseconds d) {
        rows.push_back({name, [=] {
                            const auto start = Clock::now();
                            const std::string what = result(nap());
                            return what + timing(start, d);
                        }});
    };
    static constexpr timespec k20ms{0, 20'000'000}, kNone{0, 0}, kBad{0, 1'000'000'000},
        kPast{-1, 0};
    row(
        "nanosleep", [] { return ::nanosleep(&k20ms, nullptr); }, 20ms);
    row(
        "nanosleep none", [] { return ::nanosleep(&kNone, nullptr); }, 0ms);
    row(
        "nanosleep bad", [] { return ::nanosleep(&kBad, nullptr); }, 0ms);
    row(
        "nanosleep negative", [] { return ::nanosleep(&kPast, nullptr); }, 0ms);
    row(
        "usleep", [] { return ::usleep(20'000); }, 20ms);
    row(
        "sleep none", [] { return ::sleep(0); }, 0ms);
    row(
        "sleep", [] { return ::sleep(1); }, 1000ms);
    row(
        "thrd_sleep", [] { return ::thrd_sleep(&k20ms, nullptr); }, 20ms);
    for (const clockid_t id : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
        row(("clock_nanosleep " + std::to_string(id)).c_str(),
            [=] { return ::clock_nanosleep(id, 0, &k20ms, nullptr); }, 20ms);
        row(("clock_nanosleep until " + std::to_string(id)).c_str(),
            [=] {
                timespec t;
                ::clock_gettime(id, &t);
                t.tv_nsec += 20'000'000;
                if (t.tv_nsec >= 1'000'000'000) {
                    t.tv_nsec -= 1'000'000'000;
                    t.tv_sec++;
                }
                return ::clock_nanosleep(id, TIMER_ABSTIME, &t, nullptr);
            },
            20ms);
        row(("clock_nanosleep long ago " + std::to_string(id)).c_str(),
            [=] { return ::clock_nanosleep(id, TIMER_ABSTIME, &kNone, nullptr); }, 0ms);
        row(("clock_nanosleep bad " + std::to_string(id)).c_str(),
            [=] { return ::clock_nanosleep(id, 0, &kBad, nullptr); }, 0ms);
    }
    row(
        "clock_nanosleep no clock", [] { return ::clock_nanosleep(99, 0, &k20ms, nullptr); }, 0ms);
}

std::string child(const char* how) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        ::usleep(5000);
        ::_exit(7);
    }
    int status = 0;
    siginfo_t info{};
    long r = -1;
    switch (how[0]) {
    case 'p':
        r = ::waitpid(pid, &status, 0);
        break;
    case '4':
        r = ::wait4(pid, &status, 0, nullptr);
        break;
    default:
        if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED) != 0) return result(-1);
        return "exit " + std::to_string(info.si_status);
    }
    if (r != pid) return result(r);
    return "exit " + std::to_string(WEXITSTATUS(status));
}

void add_children(Rows& rows) {
    rows.push_back({"waitpid", [] { return child("p"); }});
    rows.push_back({"wait4", [] { return child("4"); }});
    rows.push_back({"waitid", [] { return child("i"); }});
    rows.push_back({"waitpid nobody", [] { return result(::waitpid(1, nullptr, 0)); }});
    rows.push_back({"system", [] { return result(::system("exit 3")); }});
    rows.push_back({"popen", [] {
                        FILE* f = ::popen("sleep 0.01; echo hello", "r");
                        char line[32] = {};
                        const bool got = ::fgets(line, sizeof line, f) != nullptr;
                        return line + std::to_string(got) + std::to_string(::pclose(f));
                    }});
    rows.push_back({"sigtimedwait nothing", [] {
                        sigset_t set;
                        sigemptyset(&set);
                        sigaddset(&set, SIGUSR2);
                        const timespec t{0, 20'000'000};
                        const auto start = Clock::now();
                        const std::string what = result(::sigtimedwait(&set, nullptr, &t));
                        return what + timing(start, 20ms);
                    }});
}

void add_names(Rows& rows) {
    rows.push_back({"getaddrinfo numeric", [] {
                        addrinfo hints{};
                        hints.ai_flags = AI_NUMERICHOST;
                        hints.ai_socktype = SOCK_STREAM;
                        addrinfo* found = nullptr;
                        const int r = ::getaddrinfo("127.0.0.1", "80", &hints, &found);
                        const std::string what = std::to_string(r) + (found ? " found" : "");
                        if (found) ::freeaddrinfo(found);
                        return what;
                    }});
    rows.push_back({"getaddrinfo localhost", [] {
                        addrinfo* found = nullptr;
                        const int r = ::getaddrinfo("localhost", nullptr, nullptr, &found);
                        if (found) ::freeaddrinfo(found);
                        return std::to_string(r);
                    }});
    rows.push_back({"getaddrinfo nonsense", [] {
                        addrinfo hints{};
                        hints.ai_flags = AI_NUMERICHOST;
                        addrinfo* found = nullptr;
                        return std::to_string(::getaddrinfo("nonsense", nullptr, &hints, &found));
                    }});
    rows.push_back({"gethostbyname", [] {
                        const hostent* h = ::gethostbyname("localhost");
                        return std::string(h ? "found" : "none");
                    }});
}

} // namespace

void add_sleeps(Rows& rows) {
    add_naps(rows);
    add_children(rows);
    add_names(rows);
}

} // namespace rows
