// SPDX-License-Identifier: Apache-2.0
//
// The CPU bandwidth our cgroups leave us (cpus.hpp). /proc/self/cgroup says in which cgroup we
// are, /proc/self/mountinfo where its hierarchy is mounted; the limit is the least one on the way
// from there up to the mount's root, since each level limits all below it.
//
// Version 1 (a "cpu" hierarchy) and version 2 are both looked at: with both mounted only one has
// the cpu controller, and the other has no limit files.
#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "kernel/cpus.hpp"
#include "kernel/textfile.hpp"

namespace baton::kernel {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

/// The next piece of `rest` up to `separator`, which is dropped; `rest` is what follows.
std::string_view next_field(std::string_view& rest, char separator) {
    const std::size_t end = std::min(rest.find(separator), rest.size());
    const std::string_view field = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return field;
}

bool lists(std::string_view commas, std::string_view name) {
    while (!commas.empty()) {
        if (next_field(commas, ',') == name) return true;
    }
    return false;
}

/// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        int octal = 0;
        if (text[i] == '\\' && i + 3 < text.size() &&
            std::from_chars(&text[i + 1], &text[i + 1] + 3, octal, 8).ptr == &text[i + 1] + 3) {
            plain += static_cast<char>(octal);
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

/// A mounted hierarchy that may have our limit.
struct Mount {
    bool found = false;
    std::string root;  ///< the cgroup that is mounted
    std::string point; ///< where
};

/// `path` below `root`, with its leading slash, or empty for `root` itself. False when it is not
/// below: a cgroup namespace shows paths outside its root as "/..", a container may have only
/// its own part mounted.
bool path_below(std::string_view path, std::string_view root, std::string_view& below) {
    if (root == "/") root = "";
    if (path.substr(0, root.size()) != root) return false;
    below = path.substr(root.size());
    if (below == "/") below = "";
    return (below.empty() || below.front() == '/') && below.substr(0, 3) != "/..";
}

/// Of the mounts of our hierarchy the first that shows `path`; without one, the first of all.
Mount find_mount(std::string_view mountinfo, bool v2, std::string_view path) {
    Mount best;
    while (!mountinfo.empty()) {
        // id parent major:minor root point options [tag...] - type source super-options
        std::string_view line = next_field(mountinfo, '\n');
        for (int skipped = 0; skipped < 3; ++skipped) next_field(line, ' ');
        Mount mount{true, unescape(next_field(line, ' ')), unescape(next_field(line, ' '))};
        while (!line.empty() && next_field(line, ' ') != "-") {
        }
        const std::string_view type = next_field(line, ' ');
        next_field(line, ' ');
        const bool ours = v2 ? type == "cgroup2" : type == "cgroup" && lists(line, "cpu");
        if (!ours) continue;
        std::string_view below;
        if (path_below(path, mount.root, below)) return mount;
        if (!best.found) best = std::move(mount);
    }
    return best;
}

/// A number at the front of `text`; false when there is none.
bool number(std::string_view text, double& value) {
    long long whole = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), whole);
    value = static_cast<double>(whole);
    return error == std::errc() && end != text.data();
}

double ratio(std::string_view quota, std::string_view period) {
    double q = 0, p = 0;
    // Version 1 has -1, version 2 "max" for no limit.
    if (!number(quota, q) || !number(period, p) || q <= 0 || p <= 0) return kNoLimit;
    return q / p;
}

double limit_v2(const std::string& directory) {
    const std::string text = read_text_file(directory + "/cpu.max");
    std::string_view rest = text;
    const std::string_view quota = next_field(rest, ' ');
    return ratio(quota, rest);
}

double limit_v1(const std::string& directory) {
    return ratio(read_text_file(directory + "/cpu.cfs_quota_us"),
                 read_text_file(directory + "/cpu.cfs_period_us"));
}

} // namespace

void CpuQuota::find_levels() {
    levels_.clear();
    const std::string mountinfo = read_text_file(root_ + "/proc/self/mountinfo");
    std::string_view rest = memberships_;
    while (!rest.empty()) {
        // number:controllers:path, the path being free to have colons
        std::string_view path = next_field(rest, '\n');
        const std::string_view id = next_field(path, ':');
        const std::string_view controllers = next_field(path, ':');
        const bool v2 = id == "0" && controllers.empty();
        if (!v2 && !lists(controllers, "cpu")) continue;
        const Mount mount = find_mount(mountinfo, v2, path);
        if (!mount.found) continue;
        std::string_view below;
        // Not to be seen from here: what is mounted is all we have.
        if (!path_below(path, mount.root, below)) below = "";
        for (;;) {
            levels_.push_back({root_ + mount.point + std::string(below), v2});
            if (below.empty()) break;
            below = below.substr(0, below.rfind('/'));
        }
    }
}

double CpuQuota::read() {
    std::string memberships = read_text_file(root_ + "/proc/self/cgroup");
    if (memberships != memberships_) {
        memberships_ = std::move(memberships);
        find_levels();
    }
    double least = kNoLimit;
    for (const Level& level : levels_)
        least = std::min(least, level.v2 ? limit_v2(level.directory) : limit_v1(level.directory));
    return least;
}

double cgroup_cpu_quota_under(const std::string& root) { return CpuQuota(root).read(); }

double cgroup_cpu_quota() { return cgroup_cpu_quota_under(""); }

} // namespace baton::kernel
