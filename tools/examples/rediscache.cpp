// SPDX-License-Identifier: Apache-2.0
//
// rediscache: Redis by hiredis, whose calls block: many workers with a connection each, which look
// up what is cached, work out what is not, and leave it there for the others.
//
//   rediscache SOCKET [WORKERS] [--threads]                 "/run/redis/redis.sock"
//
// Of a goroutine's stack this uses 20 KiB: hiredis reads into 16 KiB there.
#include "workers.hpp"

#include <hiredis/hiredis.h>

namespace {

constexpr int kLookups = 50;

/// Text of the reply; empty if there is no such key.
std::string ask(redisContext* c, const std::string& command) {
    auto* r = static_cast<redisReply*>(::redisCommand(c, command.c_str()));
    if (!r) throw std::runtime_error(c->errstr);
    std::string text = r->str                           ? r->str
                       : r->type == REDIS_REPLY_INTEGER ? std::to_string(r->integer)
                                                        : "";
    ::freeReplyObject(r);
    return text;
}

std::string square(redisContext* c, int n) {
    const std::string key = "square:" + std::to_string(n);
    std::string value = ask(c, "GET " + key);
    if (!value.empty()) return value;
    value = std::to_string(n * n);
    ask(c, "SET " + key + " " + value);
    return value;
}

std::string look_up(const std::string& socket, int i) {
    redisContext* c = ::redisConnectUnix(socket.c_str());
    if (!c || c->err) throw std::runtime_error(c ? c->errstr : "no memory");
    long sum = 0;
    for (int j = 0; j < kLookups; j++) sum += std::stol(square(c, (i + j) % 100));
    // One that the server keeps waiting for 50 ms.
    const std::string nothing = ask(c, "BLPOP nothing" + std::to_string(i) + " 0.05");
    ::redisFree(c);
    return std::to_string(sum) + nothing;
}

} // namespace

int main(int argc, char** argv) try {
    bool threads = false;
    const std::vector<std::string> args = workers::arguments(argc, argv, &threads);
    if (args.empty()) {
        std::fprintf(stderr, "usage: rediscache SOCKET [WORKERS] [--threads]\n");
        return 2;
    }
    const int count = args.size() > 1 ? std::stoi(args[1]) : 200;
    workers::run({.workers = count, .threads = threads, .unit = "lookups", .each = kLookups},
                 [&](int i) { return look_up(args[0], i); });
} catch (const std::exception& e) {
    std::fprintf(stderr, "rediscache: %s\n", e.what());
    return 1;
}
