// SPDX-License-Identifier: Apache-2.0
//
// PostgreSQL by libpq: 500 workers, each of which sleeps in the server and asks for something, over
// a pool of 50 connections.
#if !__has_include(<postgresql/libpq-fe.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("PostgreSQL") { std::printf("skip: libpq-dev is not installed\n"); }
#else
#include <condition_variable>
#include <mutex>

#include <postgresql/libpq-fe.h>

#include "preload/components.hpp"

namespace {

using namespace components;

constexpr int kWorkers = 500;
constexpr int kConnections = 50;

PGconn* connect() {
    return ::PQconnectdb(
        ("host=" + std::string(std::getenv("PG")) + " user=postgres dbname=postgres").c_str());
}

/// In the manner of any connection pool.
class Connections {
public:
    PGconn* take() {
        std::unique_lock lock(mutex_);
        free_.wait(lock, [&] { return !idle_.empty() || made_ < kConnections; });
        if (idle_.empty()) {
            made_++;
            lock.unlock();
            return connect();
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
    ~Connections() {
        for (PGconn* c : idle_) ::PQfinish(c);
    }

private:
    std::mutex mutex_;
    std::condition_variable free_;
    std::vector<PGconn*> idle_;
    int made_ = 0;
};

std::string value_of(PGconn* c, const std::string& query) {
    PGresult* r = ::PQexec(c, query.c_str());
    const bool good = ::PQresultStatus(r) == PGRES_TUPLES_OK;
    std::string value = good ? ::PQgetvalue(r, 0, 0) : ::PQerrorMessage(c);
    ::PQclear(r);
    return value;
}

TEST_CASE("child: postgres" * doctest::skip()) {
    Connections connections;
    run_workers(kWorkers, [&](int i) {
        PGconn* c = connections.take();
        value_of(c, "select pg_sleep(0.01)");
        const std::string sum =
            value_of(c, "select sum(n) from generate_series(1, " + std::to_string(i + 1) + ") n");
        connections.give(c);
        return sum;
    });
}

TEST_CASE("libpq: 500 goroutines ask as 500 threads do") {
    std::string bin;
    for (const char* version : {"15", "16", "17", "14"})
        if (const std::string p = "/usr/lib/postgresql/" + std::string(version) + "/bin/";
            ::access((p + "postgres").c_str(), X_OK) == 0)
            bin = p;
    if (bin.empty() || ::geteuid() != 0) {
        std::printf("skip: no PostgreSQL server, or not root, which may change to its user\n");
        return;
    }
    const Folder folder;
    const std::string data = folder / "data", log = folder / "log";
    const std::string init = "runuser -u postgres -- " + bin + "initdb -A trust -N -D " + data +
                             " >" + folder.path() + "/init.log 2>&1";
    REQUIRE(std::system(init.c_str()) == 0);
    const Service server({"setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups",
                          bin + "postgres", "-D", data, "-k", folder.path(), "-c",
                          "listen_addresses=", "-c", "max_connections=100", "-c", "fsync=off"},
                         log);
    ::setenv("PG", folder.path().c_str(), 1);
    REQUIRE(comes_up([] {
        PGconn* c = connect();
        const bool up = ::PQstatus(c) == CONNECTION_OK;
        ::PQfinish(c);
        return up;
    }));
    compare("postgres", {"PG=" + folder.path()}, 80);
}

} // namespace
#endif
