// SPDX-License-Identifier: Apache-2.0
//
// SQLite in WAL mode: workers that write into one database, each with a connection of its own, and
// wait for one another in SQLite's busy handler.
#if !__has_include(<sqlite3.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("SQLite") { std::printf("skip: libsqlite3-dev is not installed\n"); }
#else
#include <sqlite3.h>

#include "preload/components.hpp"

namespace {

using namespace components;

constexpr int kWorkers = 40;
constexpr int kWrites = 20;

std::string text_of(sqlite3* db, const std::string& sql) {
    sqlite3_stmt* s = nullptr;
    if (::sqlite3_prepare_v2(db, sql.c_str(), -1, &s, nullptr) != SQLITE_OK)
        return ::sqlite3_errmsg(db);
    std::string value;
    const int rc = ::sqlite3_step(s);
    if (rc == SQLITE_ROW) value = reinterpret_cast<const char*>(::sqlite3_column_text(s, 0));
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) value = ::sqlite3_errmsg(db);
    ::sqlite3_finalize(s);
    return value;
}

std::string write_some(int i, const std::string& path) {
    sqlite3* db = nullptr;
    ::sqlite3_open(path.c_str(), &db);
    ::sqlite3_busy_timeout(db, 30'000);
    std::string errors;
    for (int j = 0; j < kWrites; j++)
        errors += text_of(db, "insert into t values (" + std::to_string(i) + "," +
                                  std::to_string(j) + ")");
    const std::string mine = text_of(db, "select count(*) from t where i = " + std::to_string(i));
    ::sqlite3_close(db);
    return errors + mine;
}

TEST_CASE("child: sqlite" * doctest::skip()) {
    const Folder folder;
    const std::string path = folder / "db";
    sqlite3* db = nullptr;
    ::sqlite3_open(path.c_str(), &db);
    text_of(db, "pragma journal_mode=wal");
    text_of(db, "create table t (i, j)");
    run_workers({.workers = kWorkers, .unit = "writes", .each = kWrites},
                [&](int i) { return write_some(i, path); });
    std::printf("answer sum: %s\n", text_of(db, "select count(*) + sum(j) from t").c_str());
    ::sqlite3_close(db);
}

TEST_CASE("SQLite: goroutines write as threads do") { compare("sqlite", 60); }

} // namespace
#endif
