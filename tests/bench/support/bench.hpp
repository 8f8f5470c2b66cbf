// SPDX-License-Identifier: Apache-2.0
//
// What every benchmark is made of. A benchmark is a plan: series, each one implementation with one
// set of parameters. The harness takes them round about: every round measures each series once, in
// a fresh process, beginning with another one each time, so that a slow minute of the machine meets
// all alike; the figure is the median over the rounds.
//
// The program is both sides: called by a user it measures; called by itself as
// `NAME --side baton key=value...` it is baton's side and prints `figure=value` lines, as the peers
// do.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "key_values.hpp"
#include "neighbours.hpp"
#include "process.hpp"

namespace bench {

using Params = std::vector<std::pair<std::string, std::string>>;

struct Options {
    bool json = false;
    bool quick = false;
    long rounds = 0; ///< --rounds, where a benchmark takes it; 0 if not given
    Params only;     ///< --only key=value,value: series with another value of the key are left out
};

/// One implementation with one set of parameters.
struct Series {
    std::string impl;
    std::string version;
    Params params;
    std::function<Figures()> measure; ///< one round of it
};

/// Surroundings of a measured process.
struct Around {
    std::vector<std::string> env = {};
    Neighbours neighbours = Neighbours::kNone;
    bool exact_sleeps = false;
};

/// Collects the series of a benchmark. Peers that are not built are left out, and stderr says so.
class Plan {
public:
    Plan(std::string bench, Options options);

    /// Adds a series whose child is told `params` and `more` as key=value arguments. `program` is
    /// the peer that holds it, where that is not `impl` itself.
    void add(const std::string& impl, const Params& params, const std::vector<std::string>& more,
             const Around& around = {}, const std::string& program = {});
    /// Adds a series that measures in its own way.
    void add_own(const std::string& impl, const Params& params, std::function<Figures()> measure,
                 const std::string& program = {});

    /// The command line of an implementation's program; empty if it is not built.
    [[nodiscard]] std::vector<std::string> program(const std::string& impl);
    [[nodiscard]] const Options& options() const { return options_; }
    [[nodiscard]] const std::vector<Series>& series() const { return series_; }

private:
    [[nodiscard]] bool wanted(const std::string& impl, const Params& params) const;
    [[nodiscard]] std::string version(const std::string& impl);

    std::string bench_;
    Options options_;
    std::vector<Series> series_;
    std::vector<std::pair<std::string, std::string>> versions_; ///< asked once each
    std::vector<std::string> missing_;                          ///< complained about once each
};

struct Benchmark {
    const char* name;
    int rounds;          ///< of a whole run
    int quick_rounds;    ///< with --quick
    void (*plan)(Plan&); ///< adds the series
    void (*side)(const KeyValues&) =
        nullptr;               ///< baton's side, where it is not a program of its own
    bool takes_rounds = false; ///< knows --rounds N
};

int run(const Benchmark& benchmark, int argc, char** argv);

/// Prints one figure of baton's side.
void print_figure(const char* name, double value);

/// The folder of the build: that of our executable's folder.
std::string build_dir();

/// The handoff tiers, best first: what BATON_ASSIST takes and baton::to_string(Assist) gives.
inline const std::vector<std::string> kTiers = {"probe", "understudy", "sysmon"};

} // namespace bench
