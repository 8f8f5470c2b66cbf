// SPDX-License-Identifier: Apache-2.0
//
// Redis by hiredis, whose connections block: 200 workers with one each.
#if !__has_include(<hiredis/hiredis.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("Redis") { std::printf("skip: libhiredis-dev is not installed\n"); }
#else
#include <hiredis/hiredis.h>

#include "preload/components.hpp"

namespace {

using namespace components;

std::string ask(redisContext* c, const std::string& command) {
    auto* r = static_cast<redisReply*>(::redisCommand(c, command.c_str()));
    if (!r) return c->errstr;
    const std::string value = r->type == REDIS_REPLY_INTEGER ? std::to_string(r->integer)
                              : r->str                       ? r->str
                                                             : "";
    ::freeReplyObject(r);
    return value;
}

TEST_CASE("child: redis" * doctest::skip()) {
    run_workers(200, [&](int i) {
        redisContext* c = ::redisConnectUnix(std::getenv("REDIS"));
        if (!c || c->err) return std::string("no connection");
        const std::string key = "k" + std::to_string(i);
        std::string all = ask(c, "DEL " + key) == "x" ? "?" : "";
        for (int j = 0; j < 50; j++) all = ask(c, "INCRBY " + key + " " + std::to_string(i + j));
        // One that the server keeps waiting.
        all += ask(c, "BLPOP nothing" + std::to_string(i) + " 0.05");
        ::redisFree(c);
        return all;
    });
}

TEST_CASE("hiredis: 200 goroutines ask as 200 threads do") {
    const std::string server = program("redis-server", {"/usr/bin/redis-server"});
    if (server.empty()) return;
    const Folder folder;
    const std::string socket = folder / "redis";
    const Service redis(
        {server, "--port", "0", "--unixsocket", socket, "--save", "", "--maxclients", "1000"},
        folder / "log");
    REQUIRE(comes_up([&] { return std::filesystem::exists(socket); }));
    compare("redis", {"REDIS=" + socket}, 40);
}

} // namespace
#endif
