// SPDX-License-Identifier: Apache-2.0
//
// Threads and children: joining, waiting for them, barriers, pthread_once.
#include <atomic>
#include <csignal>
#include <mutex>
#include <stdexcept>

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <threads.h>

#include "preload/rows/lock_rows.hpp"

namespace rows {

namespace {

void* nap(void* result) {
    std::this_thread::sleep_for(20ms);
    return result;
}
void* long_nap(void* result) {
    std::this_thread::sleep_for(80ms); // for who gives up before that
    return result;
}
void* at_once(void* result) { return result; }

pthread_t start(void* (*f)(void*)) {
    pthread_t t;
    static int result;
    ::pthread_create(&t, nullptr, f, &result);
    return t;
}

void add_joins(Rows& rows) {
    rows.push_back({"pthread_join", [] {
                        void* got = nullptr;
                        const std::string what = name_of_error(::pthread_join(start(nap), &got));
                        return what + (got ? " it" : " nothing");
                    }});
    rows.push_back({"pthread_join, ended", [] {
                        const pthread_t t = start(at_once);
                        std::this_thread::sleep_for(5ms);
                        return name_of_error(::pthread_join(t, nullptr));
                    }});
    rows.push_back({"pthread_join detached", [] {
                        const pthread_t t = start(nap);
                        ::pthread_detach(t);
                        const std::string what = name_of_error(::pthread_join(t, nullptr));
                        std::this_thread::sleep_for(30ms);
                        return what;
                    }});
    rows.push_back({"pthread_timedjoin_np", [] {
                        const pthread_t t = start(long_nap);
                        timespec soon = in(CLOCK_REALTIME, 5ms), late = in(CLOCK_REALTIME, 5000ms);
                        const auto start = Clock::now();
                        std::string what = name_of_error(::pthread_timedjoin_np(t, nullptr, &soon));
                        what += timing(start, 5ms);
                        what += name_of_error(::pthread_timedjoin_np(t, nullptr, &late));
                        return what + timing(start, 60ms);
                    }});
    rows.push_back({"pthread_clockjoin_np", [] {
                        const pthread_t t = start(long_nap);
                        timespec soon = in(CLOCK_MONOTONIC, 5ms), bad{0, -1}, past{0, 0};
                        const auto j = [&](clockid_t id, const timespec* until) {
                            return name_of_error(::pthread_clockjoin_np(t, nullptr, id, until)) +
                                   " ";
                        };
                        std::string what = j(CLOCK_MONOTONIC, &soon) + j(CLOCK_MONOTONIC, &bad);
                        what += j(CLOCK_BOOTTIME, &soon) + j(CLOCK_REALTIME, &past);
                        return what + j(CLOCK_MONOTONIC, nullptr);
                    }});
    rows.push_back({"pthread_tryjoin_np", [] {
                        const pthread_t t = start(nap);
                        const std::string what = name_of_error(::pthread_tryjoin_np(t, nullptr));
                        return what + name_of_error(::pthread_join(t, nullptr));
                    }});
    rows.push_back({"thrd_join", [] {
                        thrd_t t;
                        ::thrd_create(
                            &t,
                            [](void*) {
                                std::this_thread::sleep_for(10ms);
                                return -7;
                            },
                            nullptr);
                        int got = 0;
                        const std::string what = std::to_string(::thrd_join(t, &got));
                        return what + std::to_string(got);
                    }});
    rows.push_back({"joins, one by one", [] {
                        int joined = 0;
                        for (int i = 0; i < 50; i++)
                            joined += ::pthread_join(start(at_once), nullptr) == 0;
                        return std::to_string(joined);
                    }});
}

struct Crossing {
    pthread_barrier_t barrier;
    std::atomic<int> serial{0}, inside{0}, mistakes{0};
    explicit Crossing(unsigned n) { ::pthread_barrier_init(&barrier, nullptr, n); }
    ~Crossing() { ::pthread_barrier_destroy(&barrier); }
    void cross(int rounds, int n) {
        for (int i = 0; i < rounds; i++) {
            inside++;
            const int rc = ::pthread_barrier_wait(&barrier);
            if (inside < n * (i + 1)) mistakes++;
            if (rc == PTHREAD_BARRIER_SERIAL_THREAD) serial++;
            if (rc > 0) mistakes++;
        }
    }
};

void add_barriers(Rows& rows) {
    rows.push_back({"barrier of one", [] {
                        Crossing c(1);
                        c.cross(3, 1);
                        return std::to_string(c.serial) + std::to_string(c.mistakes);
                    }});
    rows.push_back({"barrier, many rounds", [] {
                        Crossing c(3);
                        std::thread a([&] { c.cross(200, 3); }), b([&] { c.cross(200, 3); });
                        c.cross(200, 3);
                        a.join();
                        b.join();
                        return std::to_string(c.serial) + " " + std::to_string(c.mistakes);
                    }});
    rows.push_back({"barrier, gone at once", [] {
                        for (int i = 0; i < 100; i++) {
                            Crossing c(2);
                            std::thread other([&] { c.cross(1, 2); });
                            c.cross(1, 2);
                            other.join();
                            if (c.serial != 1) return std::string("wrong");
                        }
                        return std::string("right");
                    }});
    rows.push_back({"barrier, process-shared", [] {
                        pthread_barrierattr_t attr;
                        ::pthread_barrierattr_init(&attr);
                        ::pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
                        Crossing c(2);
                        ::pthread_barrier_init(&c.barrier, &attr, 2);
                        Later later([&] { c.cross(1, 2); });
                        c.cross(1, 2);
                        return std::to_string(c.mistakes);
                    }});
}

void add_onces(Rows& rows) {
    rows.push_back({"pthread_once", [] {
                        static int calls;
                        calls = 0;
                        pthread_once_t once = PTHREAD_ONCE_INIT;
                        std::string what;
                        for (int i = 0; i < 3; i++)
                            what += name_of_error(::pthread_once(&once, [] { calls++; }));
                        return what + std::to_string(calls);
                    }});
    rows.push_back({"pthread_once, another's", [] {
                        static std::atomic<int> state;
                        state = 0;
                        pthread_once_t once = PTHREAD_ONCE_INIT;
                        const auto init = [] {
                            state = 1;
                            std::this_thread::sleep_for(20ms);
                            state = 2;
                        };
                        std::thread other([&] { ::pthread_once(&once, init); });
                        while (state == 0) std::this_thread::sleep_for(1ms);
                        const int rc = ::pthread_once(&once, init);
                        const std::string what = std::to_string(rc) + std::to_string(state);
                        other.join();
                        return what;
                    }});
    rows.push_back({"pthread_once, its own", [] {
                        static std::atomic<int> state;
                        state = 0;
                        static pthread_once_t once;
                        once = PTHREAD_ONCE_INIT;
                        const auto init = [] {
                            std::this_thread::sleep_for(20ms);
                            state++;
                        };
                        Later other([&] { ::pthread_once(&once, init); }, 5ms);
                        ::pthread_once(&once, init);
                        return std::to_string(state);
                    }});
    rows.push_back({"call_once", [] {
                        static int calls;
                        calls = 0;
                        once_flag once = ONCE_FLAG_INIT;
                        for (int i = 0; i < 3; i++) ::call_once(&once, [] { calls++; });
                        return std::to_string(calls);
                    }});
    rows.push_back({"std::call_once that throws", [] {
                        std::once_flag once;
                        std::atomic<int> calls{0};
                        std::string what;
                        const auto init = [&] {
                            std::this_thread::sleep_for(5ms);
                            if (++calls == 1) throw std::runtime_error("no");
                        };
                        const auto attempt = [&] {
                            try {
                                std::call_once(once, init);
                                return std::string("done ");
                            } catch (const std::runtime_error& e) {
                                return e.what() + std::string(" ");
                            }
                        };
                        what += attempt() + attempt() + attempt();
                        return what + std::to_string(calls);
                    }});
    rows.push_back({"std::call_once that throws in another thread", [] {
                        std::once_flag once;
                        std::atomic<int> calls{0};
                        const auto init = [&] {
                            const int call = ++calls;
                            std::this_thread::sleep_for(10ms);
                            if (call == 1) throw std::runtime_error("no");
                        };
                        std::thread other([&] {
                            try {
                                std::call_once(once, init);
                            } catch (const std::runtime_error&) {
                            }
                        });
                        while (calls == 0) std::this_thread::sleep_for(1ms);
                        std::call_once(once, init);
                        other.join();
                        return std::to_string(calls);
                    }});
}

/// A child that ends, by itself or by a signal, after a while.
pid_t child(int code, std::chrono::milliseconds after = 10ms) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    ::usleep(static_cast<unsigned>(after.count()) * 1000);
    if (code < 0) ::kill(::getpid(), -code);
    ::_exit(code);
}
std::string ended(pid_t pid, pid_t got, int status) {
    return (got == pid ? "it " : result(got) + " ") + std::to_string(status);
}

void add_children(Rows& rows) {
    rows.push_back({"waitpid a signal", [] {
                        int status = 0;
                        const pid_t pid = child(-SIGKILL);
                        const pid_t got = ::waitpid(pid, &status, 0);
                        return ended(pid, got, status) + result(::waitpid(pid, &status, 0));
                    }});
    rows.push_back({"waitpid, ended", [] {
                        const pid_t pid = child(3, 0ms);
                        std::this_thread::sleep_for(20ms);
                        return ended(pid, ::waitpid(pid, nullptr, 0), 0);
                    }});
    rows.push_back({"waitpid WNOHANG", [] {
                        int status = 0;
                        const pid_t pid = child(3, 30ms);
                        std::string what = result(::waitpid(pid, &status, WNOHANG));
                        const pid_t got = ::waitpid(pid, &status, 0);
                        return what + ended(pid, got, status);
                    }});
    rows.push_back({"waitpid any", [] {
                        int status = 0;
                        const pid_t pid = child(3);
                        const pid_t got = ::waitpid(-1, &status, 0);
                        return ended(pid, got, status);
                    }});
    rows.push_back({"wait", [] {
                        int status = 0;
                        const pid_t pid = child(4);
                        const pid_t got = ::wait(&status);
                        return ended(pid, got, status) + result(::wait(&status));
                    }});
    rows.push_back({"waitpid stopped", [] {
                        int status = 0;
                        const pid_t pid = child(-SIGSTOP);
                        const pid_t got = ::waitpid(pid, &status, WUNTRACED);
                        const std::string what = ended(pid, got, status);
                        ::kill(pid, SIGKILL);
                        const bool same = ::waitpid(pid, &status, 0) == pid;
                        return what + std::to_string(same) + std::to_string(status);
                    }});
    rows.push_back({"waitpid bad flags", [] { return result(::waitpid(1, nullptr, 0x1000)); }});
    rows.push_back({"waitpid, ignored", [] {
                        std::signal(SIGCHLD, SIG_IGN);
                        const pid_t pid = child(0);
                        const std::string what = result(::waitpid(pid, nullptr, 0));
                        std::signal(SIGCHLD, SIG_DFL);
                        return what;
                    }});
    rows.push_back({"wait4 with usage", [] {
                        int status = 0;
                        rusage usage{};
                        const pid_t pid = child(5);
                        const pid_t got = ::wait4(pid, &status, 0, &usage);
                        return ended(pid, got, status) + (usage.ru_maxrss > 0 ? " used" : " none");
                    }});
    rows.push_back({"waitid WNOWAIT", [] {
                        siginfo_t info{};
                        const auto pid = static_cast<id_t>(child(6));
                        std::string what = result(::waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
                        what += std::to_string(info.si_status) + std::to_string(info.si_code);
                        what += result(::waitid(P_PID, pid, nullptr, WEXITED));
                        return what + result(::waitid(P_PID, pid, &info, WEXITED));
                    }});
    rows.push_back(
        {"waitid P_PIDFD", [] {
             siginfo_t info{};
             const pid_t pid = child(7);
             const Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
             const auto id = static_cast<id_t>(static_cast<int>(fd));
             std::string what = result(::waitid(static_cast<idtype_t>(3), id, &info, WEXITED));
             return what + std::to_string(info.si_status) + (info.si_pid == pid ? " it" : "");
         }});
    rows.push_back({"waitid bad flags", [] { return result(::waitid(P_PID, 1, nullptr, 0)); }});
    rows.push_back({"waitid bad address", [] {
                        const auto pid = static_cast<id_t>(child(0));
                        const std::string what =
                            result(::waitid(P_PID, pid, reinterpret_cast<siginfo_t*>(16), WEXITED));
                        (void)::waitid(P_PID, pid, nullptr, WEXITED);
                        return what;
                    }});
}

} // namespace

void add_threads(Rows& rows) {
    add_joins(rows);
    add_barriers(rows);
    add_onces(rows);
    add_children(rows);
}

} // namespace rows
