// SPDX-License-Identifier: Apache-2.0
//
// Results as JSON lines and as a table with baton's ratio to each peer.
#pragma once

#include <string>
#include <vector>

#include "bench.hpp"

namespace bench {

/// One line of results: the medians of one series.
struct Row {
    std::string bench;
    std::string impl;
    std::string version;
    Params params;
    Figures figures;
};

/// {"bench":..., "impl":..., "version":..., "params":{...}, "<figure>":...}
void print_json(const Row& row);
/// The inverse; throws Failure for a line that is none.
Row parse_json(const std::string& line);

/// One block for each set of shared parameters. Behind each figure of a peer stands how many times
/// better baton's is: above 1 baton wins, below 1 the peer does. The baton row compared with is the
/// first whose parameters agree with the peer's: with several tiers, the best one.
void print_table(const std::vector<Row>& rows);

} // namespace bench
