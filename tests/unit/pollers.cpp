// SPDX-License-Identifier: Apache-2.0
//
// Who polls the network: of all Ms one waits, one looks, and who waits is woken once.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/sched.hpp"
#include "support/child.hpp"

using namespace child_process;

namespace {

namespace fs = std::filesystem;
namespace rt = baton::rt;

/// How often all eventfds of this process together have been written to and not read.
long unread_events() {
    long unread = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator("/proc/self/fdinfo")) {
        std::ifstream info(entry.path());
        const std::string counts = "eventfd-count:";
        for (std::string line; std::getline(info, line);) {
            if (line.starts_with(counts))
                unread += std::stol(line.substr(counts.size()), nullptr, 16);
        }
    }
    return unread;
}

/// How many threads sleep in a wait for epoll at this moment.
int waiting_in_epoll() {
    int n = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator("/proc/self/task")) {
        std::ifstream call(entry.path() / "syscall"); // "running", or the number and arguments
        long number = -1;
        if (call >> number) n += number == SYS_epoll_pwait || number == SYS_epoll_pwait2;
    }
    return n;
}

void compute(std::chrono::microseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < until) {
    }
}

/// Goroutines that wait for a byte each, which the others' ends would send.
class Parked {
public:
    explicit Parked(int n) {
        for (int i = 0; i < n; i++) {
            auto [conn, peer] = baton::Conn::pair();
            peers_.push_back(std::move(peer));
            wg_.go([conn = std::make_shared<baton::Conn>(std::move(conn))] {
                char c = 0;
                (void)conn->read(&c, 1);
            });
        }
    }
    ~Parked() {
        for (baton::Conn& peer : peers_) peer.close();
        wg_.wait();
    }
    Parked(const Parked&) = delete;
    Parked& operator=(const Parked&) = delete;

private:
    std::vector<baton::Conn> peers_;
    baton::WaitGroup wg_;
};

/// Lets each look at the network (epoll_pwait with a timeout of 0) take a moment, and counts how
/// many there are at once: of this thread and all it starts from now on.
class SlowLooks {
public:
    SlowLooks() {
        sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        const sock_fprog filter{std::size(code), code};
        REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        calls_ = static_cast<int>(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                            SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter));
        REQUIRE(calls_ >= 0);
        std::thread([this] { answer(); }).detach(); // until the process ends
    }

    std::atomic<int> looks{0}, at_once{0}; ///< how many; the most at a time

private:
    [[noreturn]] void answer() {
        std::vector<std::uint64_t> held;
        for (;;) {
            pollfd pfd{calls_, POLLIN, 0};
            if (::poll(&pfd, 1, held.empty() ? -1 : 1) > 0) {
                seccomp_notif call{};
                if (::ioctl(calls_, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;
                if (call.data.args[3] == 0 && looks_for_work(call.pid)) {
                    held.push_back(call.id);
                    looks++;
                    at_once = std::max<int>(at_once, static_cast<int>(held.size()));
                } else {
                    go_on(call.id);
                }
            } else { // nobody else for a millisecond
                for (const std::uint64_t id : held) go_on(id);
                held.clear();
            }
        }
    }
    void go_on(std::uint64_t id) const {
        seccomp_notif_resp answer{id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        (void)::ioctl(calls_, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    /// An M with a P; not who waits and finds that a timer is due, nor sysmon.
    static bool looks_for_work(std::uint32_t tid) {
        constexpr auto kRelaxed = std::memory_order_relaxed; // relaxed: it is held in its call
        const rt::LockGuard guard(rt::sched.mlock);
        for (std::uint32_t slot = 1; slot <= rt::sched.mslots; slot++) {
            baton::shared::m_rec& rec = rt::sched.records.m[slot];
            if (std::atomic_ref(rec.tid).load(kRelaxed) != tid) continue;
            const auto state = std::atomic_ref(rec.state).load(kRelaxed);
            return state == baton::shared::M_RUNTIME || state == baton::shared::M_SPINNING;
        }
        return false;
    }

    int calls_;
};

} // namespace

TEST_CASE("child: many breaks" * doctest::skip()) {
    baton::run([] {
        const Parked parked(1);
        int told = 0;
        for (int i = 0; i < 10; i++) {
            baton::sleep_for(2ms); // an M waits, is woken if need be, and comes back with its P
            const long before = unread_events();
            for (int k = 0; k < 1000; k++) rt::netpollbreak();
            const long more = unread_events() - before;
            CHECK(more <= 1); // none where our thread lost its P meanwhile and another M has waited
            told += more == 1;
        }
        CHECK(told > 0);
    });
    reached();
}

TEST_CASE("child: idle Ms" * doctest::skip()) {
    baton::run([] {
        const Parked parked(8);
        for (int round = 0; round < 20; round++) {
            baton::WaitGroup busy;
            for (int i = 0; i < 8; i++) busy.go([] { compute(1ms); });
            busy.wait();
            int waiting = 0;
            // A plain thread counts while every goroutine waits.
            baton::Latch counted(1);
            std::thread counter([&] {
                std::this_thread::sleep_for(5ms);
                waiting = waiting_in_epoll();
                counted.count_down();
            });
            counted.wait();
            CHECK(waiting == 1);
            baton::blocking([&] { counter.join(); });
        }
    });
    reached();
}

TEST_CASE("child: slow looks" * doctest::skip()) {
    static SlowLooks slow;
    baton::run([] {
        const Parked parked(4);
        const auto until = std::chrono::steady_clock::now() + 10s;
        baton::WaitGroup turns;
        for (int i = 0; i < 8; i++)
            turns.go([until] {
                while (slow.looks < 30 && std::chrono::steady_clock::now() < until) {
                    compute(200us);
                    baton::sleep_for(50us);
                }
            });
        turns.wait();
    });
    CHECK(slow.looks >= 30);
    CHECK(slow.at_once == 1);
    reached();
}

TEST_CASE("who waits for the network is woken by one write, however many ask") {
    check_works(run_child("many breaks", {"BATON_MAXPROCS=1", "BATON_POLL=epoll"}));
}

TEST_CASE("of the idle Ms one waits for the network") {
    for (const char* procs : {"BATON_MAXPROCS=2", "BATON_MAXPROCS=8"})
        check_works(run_child("idle Ms", {procs, "BATON_POLL=epoll"}));
}

TEST_CASE("of the Ms that look for work one looks at the network at a time") {
    check_works(run_child("slow looks", {"BATON_MAXPROCS=8", "BATON_POLL=epoll"}));
}
