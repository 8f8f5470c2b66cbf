// SPDX-License-Identifier: Apache-2.0
//
// A plain C library with a mutex and condition variables (boundedq.c), loaded by dlopen: producers
// and consumers, and who gives up waiting.
#include <cerrno>

#include <dlfcn.h>

#include "preload/boundedq.h"
#include "preload/components.hpp"

namespace {

using namespace components;

constexpr int kPairs = 100;
constexpr int kItems = 300;

struct Library {
    void* handle =
        ::dlopen((build_dir() + "/tests/preload/libboundedq.so").c_str(), RTLD_NOW | RTLD_LOCAL);
    template <class F>
    F* symbol(const char* name) const {
        return reinterpret_cast<F*>(::dlsym(handle, name));
    }
    decltype(boundedq_new)* make = symbol<decltype(boundedq_new)>("boundedq_new");
    decltype(boundedq_free)* free = symbol<decltype(boundedq_free)>("boundedq_free");
    decltype(boundedq_put)* put = symbol<decltype(boundedq_put)>("boundedq_put");
    decltype(boundedq_get)* get = symbol<decltype(boundedq_get)>("boundedq_get");
    decltype(boundedq_close)* close = symbol<decltype(boundedq_close)>("boundedq_close");
};

const Library& library() {
    static const Library library;
    return library;
}

TEST_CASE("child: queue" * doctest::skip()) {
    const Library& lib = library();
    REQUIRE(lib.handle != nullptr);
    boundedq* q = lib.make(8);
    std::atomic<long> sum{0};
    run_workers({.workers = 2 * kPairs, .unit = "items", .each = kItems / 2}, [&](int i) {
        int done = 0;
        for (int j = 0; j < kItems; j++) {
            long value = i * kItems + j;
            const bool puts = i < kPairs;
            if ((puts ? lib.put(q, value, -1) : lib.get(q, &value, 30'000)) == 0) done++;
            if (!puts) sum += value;
        }
        return std::to_string(done);
    });
    std::printf("answer sum: %ld\n", sum.load());
    lib.free(q);
}

/// A get from an empty queue, which gives up after 20 ms; and one that ends with the queue.
TEST_CASE("child: queue in vain" * doctest::skip()) {
    const Library& lib = library();
    REQUIRE(lib.handle != nullptr);
    boundedq* q = lib.make(1);
    std::atomic<int> waiting{0};
    run_workers({.workers = 101}, [&](int i) {
        long value = 0;
        if (i == 100) {
            while (waiting < 100) ::usleep(1000);
            ::usleep(50'000);
            lib.close(q);
            return std::string("closed");
        }
        waiting++;
        const auto start = std::chrono::steady_clock::now();
        const int rc = lib.get(q, &value, i % 2 ? 20 : -1);
        const auto took = std::chrono::steady_clock::now() - start;
        return std::string(rc == ETIMEDOUT ? "timed out"
                           : rc == EPIPE   ? "its end"
                                           : "?") +
               (took >= 20ms ? "" : ", early");
    });
    lib.free(q);
}

TEST_CASE("condition variables of a C library: goroutines wait as threads do") {
    compare("queue", 20);
    compare("queue in vain", 20);
}

} // namespace
