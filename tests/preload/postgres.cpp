// SPDX-License-Identifier: Apache-2.0
//
// PostgreSQL by libpq: the example pgpool, 500 workers, each of which sleeps in the server and asks
// for something, over a pool of 50 connections.
#if !__has_include(<postgresql/libpq-fe.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("PostgreSQL") { std::printf("skip: libpq-dev is not installed\n"); }
#else
#include <postgresql/libpq-fe.h>

#include "preload/components.hpp"

namespace {

using namespace components;

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
    const std::string conninfo = "host=" + folder.path() + " user=postgres dbname=postgres";
    REQUIRE(comes_up([&] {
        PGconn* c = ::PQconnectdb(conninfo.c_str());
        const bool up = ::PQstatus(c) == CONNECTION_OK;
        ::PQfinish(c);
        return up;
    }));
    compare_example("PostgreSQL", "pgpool '" + conninfo + "' 500 50", 40);
}

} // namespace
#endif
