// SPDX-License-Identifier: Apache-2.0
//
// pgpool: PostgreSQL by libpq, which knows nothing of goroutines: many workers that share a pool of
// connections, a plain one with a mutex and a condition variable.
//
//   pgpool CONNINFO [WORKERS [CONNECTIONS]] [--threads]     "host=/run/postgresql user=postgres"
//
// Each worker sleeps for 10 ms in the server and asks for a sum. This uses 8 KiB of a goroutine's
// stack.
#include "workers.hpp"

#include <condition_variable>
#include <mutex>

#include <postgresql/libpq-fe.h>

namespace {

class Pool {
public:
    Pool(std::string conninfo, int most) : conninfo_(std::move(conninfo)), most_(most) {}
    ~Pool() {
        for (PGconn* c : idle_) ::PQfinish(c);
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    PGconn* take() {
        std::unique_lock lock(mutex_);
        free_.wait(lock, [&] { return !idle_.empty() || made_ < most_; });
        if (idle_.empty()) {
            made_++;
            lock.unlock();
            return ::PQconnectdb(conninfo_.c_str());
        }
        PGconn* c = idle_.back();
        idle_.pop_back();
        return c;
    }
    void give(PGconn* c) {
        {
            const std::lock_guard lock(mutex_);
            idle_.push_back(c);
        }
        free_.notify_one();
    }

private:
    std::string conninfo_;
    int most_;
    std::mutex mutex_;
    std::condition_variable free_;
    std::vector<PGconn*> idle_;
    int made_ = 0;
};

std::string ask(PGconn* c, const std::string& query) {
    PGresult* r = ::PQexec(c, query.c_str());
    const bool good = ::PQresultStatus(r) == PGRES_TUPLES_OK;
    std::string value = good ? ::PQgetvalue(r, 0, 0) : ::PQerrorMessage(c);
    ::PQclear(r);
    return value;
}

} // namespace

int main(int argc, char** argv) try {
    bool threads = false;
    const std::vector<std::string> args = workers::arguments(argc, argv, &threads);
    if (args.empty()) {
        std::fprintf(stderr, "usage: pgpool CONNINFO [WORKERS [CONNECTIONS]] [--threads]\n");
        return 2;
    }
    const int count = args.size() > 1 ? std::stoi(args[1]) : 500;
    Pool pool(args[0], args.size() > 2 ? std::stoi(args[2]) : 50);
    workers::run({.workers = count, .threads = threads, .unit = "queries", .each = 2}, [&](int i) {
        PGconn* c = pool.take();
        ask(c, "select pg_sleep(0.01)");
        std::string sum =
            ask(c, "select sum(n) from generate_series(1, " + std::to_string(i + 1) + ") n");
        pool.give(c);
        return sum;
    });
} catch (const std::exception& e) {
    std::fprintf(stderr, "pgpool: %s\n", e.what());
    return 1;
}
