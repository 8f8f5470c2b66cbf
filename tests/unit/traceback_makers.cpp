// SPDX-License-Identifier: Apache-2.0
//
// Who made a goroutine, and where, as a dump has it: the line of the program, not one of ours, also
// where nothing is optimised, as here.
#if defined(__clang__)
#pragma clang optimize off
#else
#pragma GCC optimize("O0")
#endif

#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "baton/baton.hpp"
#include "support/dumps.hpp"

using baton::Chan;

namespace {

struct Made {
    std::string by;
    int line;
    std::uint64_t goid;
};

void check_maker(const Made& made) {
    const std::string text = dumps_test::dump_of(made.goid, "chan receive");
    INFO(made.by << " in line " << made.line << ":\n" << text);
    const std::string by = text.substr(text.find("\ncreated by ") + 1);
    CHECK(by.find(" in goroutine " + std::to_string(baton::goid()) + "\n\t") != by.npos);
    CHECK(by.find("baton::") > by.find('\n'));
    CHECK(dumps_test::has(by, "/tests/unit/traceback_makers.cpp:" + std::to_string(made.line)));
    for (const char* ours : {"baton::TaskGroup::", "baton::WaitGroup::", "baton::Promise<",
                             "baton::go<", "std::__invoke", "std::apply"})
        CHECK_FALSE(dumps_test::has(text, ours));
}

} // namespace

TEST_CASE("traceback: who made a goroutine, and where, by whatever means") {
    baton::run([] {
        const Chan<int> c;
        const Chan<std::uint64_t> began;
        std::vector<Made> all;
        const auto wait = [c, began] {
            began.send(baton::goid());
            return c.recv();
        };
        const auto add = [&](const char* by, int line) {
            all.push_back({by, line, *began.recv()});
        };
        baton::WaitGroup wg;
        baton::TaskGroup group;

        baton::go([wait] { (void)wait(); });
        add("go", __LINE__ - 1);
        baton::go({.stack_bytes = 1 << 16}, [wait] { (void)wait(); });
        add("go with options", __LINE__ - 1);
        wg.go([wait] { (void)wait(); });
        add("WaitGroup::go", __LINE__ - 1);
        group.go([wait] { (void)wait(); });
        add("TaskGroup::go", __LINE__ - 1);
        CHECK(group.try_go([wait] { (void)wait(); }));
        add("TaskGroup::try_go", __LINE__ - 1);
        auto future = baton::async(wait);
        add("async", __LINE__ - 1);

        for (const Made& made : all) check_maker(made);
        for (std::size_t i = 0; i < all.size(); i++) c.send(1);
        CHECK(*future.get() == 1);
        group.wait();
        wg.wait();
    });
}
