// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace bench {

namespace {

using Json = nlohmann::ordered_json;

bool is_number(const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

bool more_is_better(const std::string& figure) {
    return figure == "rps" || figure == "kept_percent" || figure.ends_with("_per_s");
}

/// Three significant digits for small values, whole numbers for large ones.
std::string readable(double value) {
    char text[64];
    if (std::abs(value) >= 1000) {
        std::snprintf(text, sizeof text, "%.0f", value);
    } else {
        std::snprintf(text, sizeof text, "%.3g", value);
    }
    return text;
}

/// As many digits as a measurement is worth, or more.
double six_digits(double value) {
    char text[64];
    std::snprintf(text, sizeof text, "%.6g", value);
    return std::strtod(text, nullptr);
}

bool agree(const Params& peer, const Params& ours) {
    return std::all_of(peer.begin(), peer.end(), [&](const auto& p) {
        return std::find(ours.begin(), ours.end(), p) != ours.end();
    });
}

const double* find(const Row& row, const std::string& figure) {
    for (const auto& [name, value] : row.figures)
        if (name == figure) return &value;
    return nullptr;
}

/// "123 (2.4x)"; without a ratio where there is nothing to compare.
std::string cell(const Row& row, const std::string& figure, const Row* baton) {
    const double* value = find(row, figure);
    if (value == nullptr) return "-";
    const double* ours = baton != nullptr ? find(*baton, figure) : nullptr;
    if (ours == nullptr || *ours <= 0 || *value <= 0) return readable(*value);
    char text[96];
    const double ratio = more_is_better(figure) ? *ours / *value : *value / *ours;
    std::snprintf(text, sizeof text, "%s (%.2fx)", readable(*value).c_str(), ratio);
    return text;
}

std::string words(const Params& params) {
    std::string text;
    for (const auto& [key, value] : params) text += (text.empty() ? "" : " ") + key + "=" + value;
    return text;
}

using Line = std::vector<std::string>;

void print_aligned(const std::vector<Line>& lines) {
    std::vector<std::size_t> widths;
    for (const Line& line : lines) {
        widths.resize(std::max(widths.size(), line.size()));
        for (std::size_t c = 0; c < line.size(); ++c)
            widths[c] = std::max(widths[c], line[c].size());
    }
    for (const Line& line : lines) {
        for (std::size_t c = 0; c < line.size(); ++c) {
            const int width = static_cast<int>(widths[c]);
            if (c < 3) {
                std::printf("%-*s  ", width, line[c].c_str());
            } else {
                std::printf("%*s  ", width, line[c].c_str());
            }
        }
        std::printf("\n");
    }
}

/// The rows of one benchmark, all with the same figures.
void print_bench(const std::vector<Row>& rows) {
    Line figures; // of all rows, which need not have the same
    for (const Row& row : rows)
        for (const auto& figure : row.figures)
            if (std::find(figures.begin(), figures.end(), figure.first) == figures.end())
                figures.push_back(figure.first);
    Line head = {rows.front().bench, "impl", "version"};
    head.insert(head.end(), figures.begin(), figures.end());
    std::vector<Line> lines = {head};
    for (const Row& row : rows) {
        const auto ours = std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
            return r.impl == "baton" && agree(row.params, r.params);
        });
        const Row* baton = row.impl == "baton" || ours == rows.end() ? nullptr : &*ours;
        Line line = {words(row.params), row.impl, row.version};
        for (const std::string& figure : figures) line.push_back(cell(row, figure, baton));
        lines.push_back(line);
    }
    print_aligned(lines);
}

} // namespace

void print_json(const Row& row) {
    Json params = Json::object();
    for (const auto& [key, value] : row.params) {
        if (is_number(value)) {
            params[key] = std::stol(value);
        } else {
            params[key] = value;
        }
    }
    Json line = {
        {"bench", row.bench}, {"impl", row.impl}, {"version", row.version}, {"params", params}};
    for (const auto& [name, value] : row.figures) line[name] = six_digits(value);
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
}

Row parse_json(const std::string& text) {
    try {
        const Json line = Json::parse(text);
        Row row{line.at("bench"), line.at("impl"), line.at("version"), {}, {}};
        for (const auto& [key, value] : line.at("params").items())
            row.params.emplace_back(key,
                                    value.is_string() ? value.get<std::string>() : value.dump());
        for (const auto& [key, value] : line.items())
            if (value.is_number()) row.figures.emplace_back(key, value.get<double>());
        return row;
    } catch (const nlohmann::json::exception&) {
        throw Failure("no line of results: " + text);
    }
}

void print_table(const std::vector<Row>& rows) {
    for (std::size_t from = 0; from < rows.size();) {
        std::size_t to = from;
        while (to < rows.size() && rows[to].bench == rows[from].bench) ++to;
        const auto at = [&](std::size_t i) {
            return rows.begin() + static_cast<std::ptrdiff_t>(i);
        };
        print_bench(std::vector<Row>(at(from), at(to)));
        std::printf("\n");
        from = to;
    }
    std::printf("(Nx) behind a peer's figure: baton is N times better; below 1 the peer is.\n");
}

} // namespace bench
