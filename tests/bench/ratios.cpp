// SPDX-License-Identifier: Apache-2.0
//
// No benchmark: reads results (JSON lines) from the files named, or standard input, and prints the
// table of ratios. run.sh ends with it.
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>

#include "support/report.hpp"

namespace {

void read(std::istream& from, std::vector<bench::Row>& rows) {
    for (std::string line; std::getline(from, line);)
        if (!line.empty()) rows.push_back(bench::parse_json(line));
}

} // namespace

int main(int argc, char** argv) {
    try {
        std::vector<bench::Row> rows;
        if (argc == 1) read(std::cin, rows);
        for (int i = 1; i < argc; ++i) {
            std::ifstream file(argv[i]);
            if (!file) throw bench::Failure(std::string("cannot open ") + argv[i]);
            read(file, rows);
        }
        if (rows.empty()) throw bench::Failure("no results");
        bench::print_table(rows);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "ratios: %s\n", error.what());
        return 1;
    }
    return 0;
}
