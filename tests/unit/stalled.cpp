// SPDX-License-Identifier: Apache-2.0
//
// Gs queued behind one that computes, while the other P has no end of work from the network.
// run: tiers
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>

#include <sys/socket.h>

#include "baton/baton.hpp"

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

constexpr int kRounds = 20;
constexpr int kQueued = 8;
constexpr int kTokens = 8;

void compute(std::chrono::microseconds time) {
    for (const auto until = Clock::now() + time; Clock::now() < until;) asm volatile("");
}

/// Goroutines that pass bytes round through sockets: where one parks, the network has the next.
class Chatter {
public:
    Chatter() {
        for (int i = 0; i < kTokens; i++) {
            int fds[2];
            REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
            for (const int side : {0, 1}) {
                wg_.go([this, side, conn = baton::Conn::adopt(fds[side])]() mutable {
                    std::array<std::byte, 1> byte{};
                    if (side == 0) conn.write(byte);
                    while (conn.read(byte) == 1 && !stop_) {
                        compute(20us);
                        said_++;
                        conn.write(byte);
                    }
                });
            }
        }
    }
    ~Chatter() {
        stop_ = true;
        wg_.wait();
    }
    Chatter(const Chatter&) = delete;
    Chatter& operator=(const Chatter&) = delete;

    /// Until it has said so much more.
    void listen(int n) const {
        for (const int before = said_; said_ - before < n;) baton::sleep_for(100us);
    }

private:
    std::atomic<bool> stop_{false};
    std::atomic<int> said_{0};
    baton::WaitGroup wg_;
};

/// Of some that are queued here, how many had run after this P has computed for most of a slice.
int ran_meanwhile() {
    std::atomic<int> ran{0};
    baton::WaitGroup wg;
    baton::yield(); // a slice of its own
    for (int i = 0; i < kQueued; i++) wg.go([&] { ran++; });
    compute(6ms);
    const int meanwhile = ran;
    wg.wait();
    return meanwhile;
}

} // namespace

TEST_CASE("who is queued behind a computation is taken though the network has enough for all") {
    int all = 0;
    baton::run([&] {
        baton::set_max_procs(2);
        const Chatter chatter;
        for (int round = 0; round < kRounds; round++) {
            chatter.listen(20);
            all += ran_meanwhile() >= kQueued - 1; // one may be next here
        }
    });
    MESSAGE(all, " of ", kRounds);
    CHECK(all >= kRounds / 2);
}
