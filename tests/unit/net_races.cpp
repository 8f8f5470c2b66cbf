// SPDX-License-Identifier: Apache-2.0
//
// Close against everything else: descriptors whose numbers come back while events of their former
// owners are in flight.
// run: tiers
// run: engines
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sys/socket.h>

#include "../support/net.hpp"

using namespace std::chrono_literals;
using namespace net_test;

namespace {

constexpr int kWorkers = 8;
constexpr int kRounds = 400; // times workers, times numbers of processors

struct Random {
    std::uint64_t state;
    std::uint64_t operator()() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
};

struct Tally {
    std::atomic<int> reused{0}, cut{0}, wrong{0};
};

/// Writes, resets or ends a stream while it is read and closed; what the reader may find is the
/// data, the end, a reset, or that it was closed.
int stir(Random& random, Tally& tally) {
    auto [left, right] = Conn::pair();
    const int number = right.fd();
    baton::WaitGroup wg;
    std::error_code ec;
    std::size_t n = 0;
    char buf[16];
    Conn& reader = right;
    wg.go([&] { n = reader.read(std::as_writable_bytes(std::span(buf)), ec); });
    if (random() % 2) baton::yield();
    switch (random() % 4) {
    case 0:
        left.write("stale");
        break;
    case 1:
        left.close();
        break;
    case 2:
        left.write("stale");
        left.shutdown_write();
        break;
    default:
        break;
    }
    if (random() % 4 == 0) baton::yield();
    right.close();
    wg.wait();
    const bool fine = ec == std::errc::bad_file_descriptor || ec == std::errc::connection_reset ||
                      (!ec && (n == 0 || n == 5));
    if (!fine) tally.wrong++;
    if (ec == std::errc::bad_file_descriptor) tally.cut++;
    return number;
}

/// A stream that has just been made has nothing to read, and then what was written to it.
void find_nothing(Random& random, Tally& tally, int number) {
    auto [left, right] = Conn::pair();
    tally.reused += left.fd() == number || right.fd() == number;
    std::error_code ec;
    std::uint64_t got = 0;
    const auto into = std::as_writable_bytes(std::span(&got, 1));
    std::size_t n = right.read(into, std::chrono::microseconds(random() % 30), ec);
    if (n != 0 || ec != std::errc::timed_out) tally.wrong++;
    const std::uint64_t token = random();
    left.write(std::as_bytes(std::span(&token, 1)));
    n = right.read(into, 10s, ec);
    if (n != sizeof got || got != token) tally.wrong++;
}

} // namespace

TEST_CASE("thousands of closes with events in flight: none reaches who has the number next") {
    on_goroutine([] {
        Tally tally;
        baton::WaitGroup wg;
        for (std::uint64_t i = 1; i <= kWorkers; i++) {
            wg.go([&tally, i] {
                Random random{i * 0x9e3779b97f4a7c15};
                for (int round = 0; round < kRounds; round++) {
                    const int number = stir(random, tally);
                    find_nothing(random, tally, number);
                }
            });
        }
        wg.wait();
        CHECK(tally.wrong == 0);
        CHECK(tally.reused > 0); // else the test has tested nothing
        CHECK(tally.cut > 0);
    });
}

TEST_CASE("close against deadlines, stops and shutdowns of the same connection") {
    on_goroutine([] {
        std::atomic<int> other{0};
        baton::WaitGroup workers;
        for (std::uint64_t i = 1; i <= 4; i++) {
            workers.go([&other, i] {
                Random random{i * 0x9e3779b97f4a7c15};
                for (int round = 0; round < 200; round++) {
                    auto [left, right] = Conn::pair();
                    Conn& conn = right;
                    std::stop_source source;
                    baton::WaitGroup wg;
                    for (int readers = 0; readers < 3; readers++) {
                        wg.go([&, readers] {
                            std::error_code ec;
                            char c;
                            const auto into = std::as_writable_bytes(std::span(&c, 1));
                            if (readers == 0) {
                                conn.read(into, ec);
                            } else {
                                conn.read(into, {1ms, source.get_token()}, ec);
                            }
                            if (ec != std::errc::bad_file_descriptor &&
                                ec != std::errc::timed_out && ec != std::errc::operation_canceled)
                                other++;
                        });
                    }
                    wg.go([&] {
                        try {
                            conn.set_deadline(std::chrono::steady_clock::now() + 10us);
                        } catch (const std::system_error&) { // closed
                        }
                    });
                    wg.go([&] { source.request_stop(); });
                    if (random() % 2) baton::sleep_for(std::chrono::microseconds(random() % 50));
                    conn.close();
                    wg.wait();
                }
            });
        }
        workers.wait();
        CHECK(other == 0);
    });
}

TEST_CASE("a listener is closed while it is dialled and accepts") {
    on_goroutine([] {
        std::atomic<int> other{0};
        for (int round = 0; round < 50; round++) {
            Listener listener = Listener::listen("tcp", "127.0.0.1:0");
            const std::string address = listener.address();
            baton::WaitGroup wg;
            for (int i = 0; i < 3; i++) {
                wg.go([&] {
                    std::error_code ec;
                    while (!ec) (void)listener.accept(ec);
                    if (ec != std::errc::bad_file_descriptor) other++;
                });
                wg.go([&] {
                    for (int dials = 0; dials < 10; dials++) {
                        std::error_code ec;
                        Conn conn = Conn::dial("tcp", address, 10s, ec);
                        if (ec && ec != std::errc::connection_refused &&
                            ec != std::errc::connection_reset)
                            other++;
                    }
                });
            }
            baton::sleep_for(std::chrono::microseconds(20 * round));
            listener.close();
            wg.wait();
        }
        CHECK(other == 0);
    });
}
