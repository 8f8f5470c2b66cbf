// SPDX-License-Identifier: Apache-2.0
//
// Dumps of goroutines, and what they are to show.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "baton/baton.hpp"

namespace dumps_test {

inline bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// No INFO stays open across a park.
inline void check_shows(const std::string& text, const std::string& part) {
    INFO("no \"" << part << "\" in\n" << text);
    CHECK(has(text, part));
}

/// The part of a dump that is about one goroutine; empty if there is none.
inline std::string about(const std::string& dump, std::uint64_t goid) {
    const std::string head = "goroutine " + std::to_string(goid) + " ";
    std::size_t at = dump.starts_with(head) ? 0 : dump.find("\n" + head);
    if (at == std::string::npos) return "";
    if (at != 0) at++;
    return dump.substr(at, dump.find("\n\n", at) - at);
}

/// A goroutine that does f until the end of the scope, and its number.
template <class F>
class Doing {
public:
    explicit Doing(F f) {
        wg_.go([this, f] {
            id_.store(baton::goid());
            f();
        });
        while (id_.load() == 0) baton::yield();
    }
    ~Doing() { wg_.wait(); }
    std::uint64_t id() const { return id_.load(); }

private:
    std::atomic<std::uint64_t> id_{0};
    baton::WaitGroup wg_;
};

/// Once it shows what it is to show.
template <class Shows>
std::string dump_once(const Shows& shows) {
    std::string dump = baton::stack_dump();
    for (int i = 0; i < 1000 && !shows(dump); i++) {
        baton::sleep_for(std::chrono::milliseconds(1));
        dump = baton::stack_dump();
    }
    return dump;
}

/// What is said of it once it is in that state.
inline std::string dump_of(std::uint64_t goid, const std::string& state) {
    return about(
        dump_once([&](const std::string& dump) { return has(about(dump, goid), "[" + state); }),
        goid);
}

} // namespace dumps_test
