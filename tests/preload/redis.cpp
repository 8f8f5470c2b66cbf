// SPDX-License-Identifier: Apache-2.0
//
// Redis by hiredis, whose connections block: the example rediscache, 200 workers with one each.
#if !__has_include(<hiredis/hiredis.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("Redis") { std::printf("skip: libhiredis-dev is not installed\n"); }
#else
#include "preload/components.hpp"

namespace {

using namespace components;

TEST_CASE("hiredis: 200 goroutines ask as 200 threads do") {
    const std::string server = program("redis-server", {"/usr/bin/redis-server"});
    if (server.empty()) return;
    const Folder folder;
    const std::string socket = folder / "redis";
    const Service redis(
        {server, "--port", "0", "--unixsocket", socket, "--save", "", "--maxclients", "1000"},
        folder / "log");
    REQUIRE(comes_up([&] { return std::filesystem::exists(socket); }));
    compare_example("Redis", "rediscache " + socket + " 200", 30);
}

} // namespace
#endif
