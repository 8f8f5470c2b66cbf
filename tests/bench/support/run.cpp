// SPDX-License-Identifier: Apache-2.0
//
// The command line, the rounds and their medians.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "baton/baton.hpp"
#include "bench.hpp"
#include "report.hpp"
#include "samples.hpp"

namespace bench {

namespace {

std::pair<std::string, std::string> split(const std::string& pair) {
    const auto equals = pair.find('=');
    if (equals == std::string::npos)
        throw Failure("--only takes key=value,value, got '" + pair + "'");
    return {pair.substr(0, equals), pair.substr(equals + 1)};
}

Options parse(const Benchmark& benchmark, int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        const auto value = [&]() -> std::string {
            if (++i == argc) throw Failure(arg + " needs a value");
            return argv[i];
        };
        if (arg == "--json") {
            options.json = true;
        } else if (arg == "--quick") {
            options.quick = true;
        } else if (arg == "--only") {
            options.only.push_back(split(value()));
        } else if (arg == "--rounds" && benchmark.takes_rounds) {
            options.rounds = std::atol(value().c_str());
            if (options.rounds <= 0) throw Failure("--rounds takes a number above 0");
        } else {
            throw Failure("unknown option '" + arg +
                          "' (known: --json, --quick, --only key=value,value" +
                          (benchmark.takes_rounds ? ", --rounds N)" : ")"));
        }
    }
    return options;
}

std::string name_of(const Series& s) {
    std::string name = s.impl;
    for (const auto& [key, value] : s.params) name += " " + key + "=" + value;
    return name;
}

/// The median of each figure over the rounds.
Figures medians(const std::vector<Figures>& rounds) {
    Figures result;
    for (std::size_t f = 0; f < rounds.front().size(); ++f) {
        std::vector<double> values;
        for (const Figures& round : rounds) values.push_back(round.at(f).second);
        result.emplace_back(rounds.front()[f].first, median(std::span(values)));
    }
    return result;
}

std::vector<Row> measure(const Benchmark& benchmark, const Plan& plan) {
    const auto& series = plan.series();
    const std::size_t n = series.size();
    const int rounds = plan.options().quick ? benchmark.quick_rounds : benchmark.rounds;
    std::vector<std::vector<Figures>> taken(n);
    std::vector<bool> skipped(n, false);
    for (int r = 0; r < (plan.options().rounds > 0 ? 1 : rounds); ++r) {
        for (std::size_t k = 0; k < n; ++k) {
            const std::size_t i = (k + static_cast<std::size_t>(r)) % n;
            if (skipped[i]) continue;
            try {
                taken[i].push_back(series[i].measure());
            } catch (const Skipped& skip) {
                skipped[i] = true;
                std::fprintf(stderr, "%s: %s is left out: %s\n", benchmark.name,
                             name_of(series[i]).c_str(), skip.reason.c_str());
            } catch (const Failure& failure) {
                throw Failure(name_of(series[i]) + ": " + failure.what());
            }
        }
    }
    std::vector<Row> rows;
    for (std::size_t i = 0; i < n; ++i) {
        if (taken[i].empty()) continue;
        const Series& s = series[i];
        rows.push_back({benchmark.name, s.impl, s.version, s.params, medians(taken[i])});
    }
    return rows;
}

/// Baton's side of a benchmark, in the child.
void side(const Benchmark& benchmark, int argc, char** argv) {
    const KeyValues args(std::span(argv + 3, static_cast<std::size_t>(argc - 3)));
    const std::string wanted = args.text("tier", "");
    if (!wanted.empty()) {
        const std::string in_force = baton::to_string(baton::assist_tier());
        if (in_force != wanted) {
            std::printf("skip=tier %s is in force here\n", in_force.c_str());
            return;
        }
    }
    if (benchmark.side == nullptr) throw Failure("baton's side is no child of this program");
    benchmark.side(args);
}

} // namespace

int run(const Benchmark& benchmark, int argc, char** argv) {
    try {
        if (argc >= 3 && std::strcmp(argv[1], "--side") == 0) {
            side(benchmark, argc, argv);
            std::exit(0); // with goroutines still running, as any program may
        }
        Plan plan(benchmark.name, parse(benchmark, argc, argv));
        benchmark.plan(plan);
        if (plan.series().empty())
            throw Failure("nothing to measure: --only excludes every series");
        const std::vector<Row> rows = measure(benchmark, plan);
        if (plan.options().json) {
            for (const Row& row : rows) print_json(row);
        } else {
            print_table(rows);
        }
    } catch (const std::exception& error) {
        std::fflush(stdout);
        std::fprintf(stderr, "%s: %s\n", benchmark.name, error.what());
        std::_Exit(1);
    }
    return 0;
}

void print_figure(const char* name, double value) { std::printf("%s=%.10g\n", name, value); }

} // namespace bench
