// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "baton/baton.hpp"
#include "bench.hpp"

namespace bench {

namespace {

constexpr double kChildLimitS = 120;
constexpr double kCountedLimitS = 3600; // with --rounds, which may ask for a million

#ifdef BATON_VERSION
constexpr const char* kBatonVersion = BATON_VERSION;
#else
constexpr const char* kBatonVersion = "dev";
#endif

std::string own_path() {
    char path[4096];
    const ssize_t n = ::readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0) throw Failure("cannot read /proc/self/exe");
    return std::string(path, static_cast<std::size_t>(n));
}

/// Whether `value` is one of a list with commas.
bool among(const std::string& value, const std::string& list) {
    return ("," + list + ",").find("," + value + ",") != std::string::npos;
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

} // namespace

std::string build_dir() { return folder_of(folder_of(own_path())); }

Plan::Plan(std::string bench, Options options)
    : bench_(std::move(bench)), options_(std::move(options)) {}

bool Plan::wanted(const std::string& impl, const Params& params) const {
    return std::all_of(options_.only.begin(), options_.only.end(), [&](const auto& only) {
        if (only.first == "impl") return among(impl, only.second);
        const auto has = std::find_if(params.begin(), params.end(),
                                      [&](const auto& param) { return param.first == only.first; });
        return has == params.end() || among(has->second, only.second);
    });
}

std::vector<std::string> Plan::program(const std::string& impl) {
    if (impl == "baton") return {own_path(), "--side", "baton"};
    const std::string path = build_dir() + "/peers/" + impl;
    if (::access(path.c_str(), X_OK) == 0) return {path, bench_};
    if (std::find(missing_.begin(), missing_.end(), impl) == missing_.end()) {
        missing_.push_back(impl);
        std::fprintf(stderr, "%s: %s is left out: %s is not built\n", bench_.c_str(), impl.c_str(),
                     path.c_str());
    }
    return {};
}

std::string Plan::version(const std::string& impl) {
    if (impl == "baton") return kBatonVersion;
    for (const auto& known : versions_)
        if (known.first == impl) return known.second;
    Command ask{{build_dir() + "/peers/" + impl, "version"}, {}, false, {}};
    const std::string answer = Process(ask).first_line(10);
    versions_.emplace_back(impl, answer.substr(answer.find('=') + 1));
    return versions_.back().second;
}

void Plan::add(const std::string& impl, const Params& params, const std::vector<std::string>& more,
               const Around& around, const std::string& program_name) {
    if (!wanted(impl, params)) return;
    const std::string where = program_name.empty() ? impl : program_name;
    Command command{program(where), around.env, around.exact_sleeps, {}};
    if (command.argv.empty()) return;
    for (const auto& [key, value] : params) command.argv.push_back(key + "=" + value);
    command.argv.insert(command.argv.end(), more.begin(), more.end());
    const double limit_s = options_.rounds > 0 ? kCountedLimitS : kChildLimitS;
    const auto measure = [command, limit_s, neighbours = around.neighbours] {
        const BusyNeighbours busy(neighbours);
        return figures_of(command, limit_s);
    };
    series_.push_back({impl, version(where), params, measure});
}

void Plan::add_own(const std::string& impl, const Params& params, std::function<Figures()> measure,
                   const std::string& program_name) {
    if (!wanted(impl, params)) return;
    const std::string where = program_name.empty() ? impl : program_name;
    if (program(where).empty()) return;
    series_.push_back({impl, version(where), params, std::move(measure)});
}

} // namespace bench
