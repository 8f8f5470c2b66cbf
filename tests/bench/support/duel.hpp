// SPDX-License-Identifier: Apache-2.0
//
// The rounds of the handoff benchmark, for baton's side and the bare threads alike: who blocks
// calls begin(), wait() and settle(); the other calls look() whenever it runs.
//
// Threads: begin, wait and settle by one, look by one other.
// Ordering: (A) begin's release of round_ pairs with (B) look's acquire, so that look sees the
// stamp of the round it sees. The way back is the pipe, which the kernel orders.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "clock.hpp"
#include "key_values.hpp"
#include "samples.hpp"

namespace bench {

class Duel {
public:
    /// At most `rounds`, and for at most `ms` milliseconds if that is not 0.
    Duel(long rounds, long ms)
        : took_(static_cast<std::size_t>(rounds)),
          until_(ms == 0 ? INT64_MAX : now_ns() + ms * 1'000'000) {
        if (::pipe2(pipe_, O_CLOEXEC) != 0)
            throw Failure(std::string("pipe: ") + std::strerror(errno));
    }
    ~Duel() {
        ::close(pipe_[0]);
        ::close(pipe_[1]);
    }
    Duel(const Duel&) = delete;
    Duel& operator=(const Duel&) = delete;

    /// Stamps a round; false once there are no more. The block must follow at once.
    bool begin() {
        if (settled_ == took_.size() || now_ns() >= until_) {
            over_.store(true, std::memory_order_release);
            return false;
        }
        stamp_ = now_ns();
        round_.store(settled_ + 1, std::memory_order_release); // (A)
        return true;
    }
    /// The call that blocks: the number that came through the pipe, or 0.
    [[nodiscard]] std::uint64_t wait() const {
        std::uint64_t number = 0;
        ssize_t n = 0;
        do { // a preemption signal may cut it short
            n = ::read(pipe_[0], &number, sizeof number);
        } while (n < 0 && errno == EINTR);
        return n == sizeof number ? number : 0;
    }
    void settle(std::uint64_t number) {
        if (number != settled_ + 1) lost(number);
        ++settled_;
    }

    [[nodiscard]] bool over() const { return over_.load(std::memory_order_acquire); }
    /// Takes the time of a round begun since the last look and ends its block; false if none was.
    /// Then gives the CPU to a thread that waits for it, if one does: the one just woken, on a full
    /// machine, would else wait for the end of our time slice. That is between the rounds, and
    /// makes them more, not faster.
    bool look() {
        const std::uint64_t round = round_.load(std::memory_order_acquire); // (B)
        if (round == seen_) return false;
        took_[round - 1] =
            static_cast<std::uint32_t>(std::min<std::int64_t>(now_ns() - stamp_, UINT32_MAX));
        if (round != seen_ + 1) lost(round);
        seen_ = round;
        if (::write(pipe_[1], &round, sizeof round) != sizeof round)
            throw Failure(std::string("write: ") + std::strerror(errno));
        ::sched_yield(); // lets the one just woken by
        return true;
    }

    void report() {
        if (seen_ != settled_) lost(seen_);
        const auto taken = std::span(took_).first(settled_);
        std::printf("p50_ns=%.0f\np99_ns=%.0f\nmax_ns=%.0f\n", percentile(taken, 0.5),
                    percentile(taken, 0.99), percentile(taken, 1));
    }

private:
    [[noreturn]] void lost(std::uint64_t number) const {
        throw Failure("round " + std::to_string(settled_ + 1) + " expected, " +
                      std::to_string(number) + " came: a round was lost or doubled");
    }

    int pipe_[2];
    std::vector<std::uint32_t> took_;
    std::int64_t until_;
    std::uint64_t settled_ = 0;
    alignas(64) std::uint64_t seen_ = 0;
    alignas(64) std::int64_t stamp_ = 0;
    std::atomic<std::uint64_t> round_{0};
    std::atomic<bool> over_{false};
};

} // namespace bench
