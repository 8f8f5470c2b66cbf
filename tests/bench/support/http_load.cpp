// SPDX-License-Identifier: Apache-2.0
#include "http_load.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace bench {

namespace {

/// An anonymous file wrk can open by name, so that no script has to be found on disk.
int script_file(const std::string& script) {
    if (script.empty()) return -1;
    const int fd = ::memfd_create("wrk.lua", MFD_CLOEXEC);
    if (fd < 0 || ::write(fd, script.data(), script.size()) != static_cast<ssize_t>(script.size()))
        throw Failure(std::string("memfd: ") + std::strerror(errno));
    return fd;
}

Command wrk_command(const std::string& url, int connections, int seconds, int script_fd) {
    Command command{{"wrk", "-t1", "-c" + std::to_string(connections),
                     "-d" + std::to_string(seconds) + "s", "--latency"},
                    {},
                    false,
                    {}};
    if (script_fd >= 0) {
        command.argv.insert(command.argv.end(),
                            {"-s", "/proc/self/fd/" + std::to_string(script_fd)});
        command.keep_fds.push_back(script_fd);
    }
    command.argv.push_back(url);
    return command;
}

/// "437.00us", "1.23ms" or "1.02s" in microseconds.
double in_us(const std::string& text) {
    char* unit = nullptr;
    const double value = std::strtod(text.c_str(), &unit);
    if (std::strcmp(unit, "us") == 0) return value;
    if (std::strcmp(unit, "ms") == 0) return value * 1e3;
    if (std::strcmp(unit, "s") == 0) return value * 1e6;
    if (std::strcmp(unit, "m") == 0) return value * 60e6;
    throw Failure("wrk printed the latency '" + text + "'");
}

WrkReport parse(const std::string& text) {
    WrkReport report{-1, -1, -1, -1};
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string first, second;
        words >> first >> second;
        if (first == "50%") report.p50_us = in_us(second);
        if (first == "99%") report.p99_us = in_us(second);
        if (first == "Requests/sec:") report.requests_per_s = std::atof(second.c_str());
        if (second == "requests") report.requests = std::atof(first.c_str());
        if (first == "Non-2xx" || first == "Socket") throw Failure("wrk: " + line);
    }
    if (report.requests <= 0 || report.requests_per_s < 0 || report.p50_us < 0 || report.p99_us < 0)
        throw Failure("wrk made no requests");
    return report;
}

const Command& built(const Command& command) {
    if (::access(command.argv[0].c_str(), X_OK) != 0)
        throw Failure(command.argv[0] + " is not built");
    return command;
}

} // namespace

Wrk::Wrk(const std::string& url, int connections, int seconds, const std::string& script)
    : script_fd_(script_file(script)), seconds_(seconds),
      process_(wrk_command(url, connections, seconds, script_fd_)) {}

Wrk::~Wrk() {
    if (script_fd_ >= 0) ::close(script_fd_);
}

WrkReport Wrk::report() { return parse(process_.finish(seconds_ + 30)); }

Server::Server(const Command& command) : process_(built(command)) {
    const std::string line = process_.first_line(20);
    const std::string prefix = "listening on ";
    if (!line.starts_with(prefix)) throw Failure("the server said '" + line + "'");
    url_ = "http://" + line.substr(prefix.size());
}

Figures measure_hello(const Command& command, int connections, int seconds) {
    const Server server(command);
    const double cpu_before_us = server.cpu_us();
    const WrkReport wrk = Wrk(server.url() + "/", connections, seconds).report();
    return {{"rps", wrk.requests_per_s},
            {"p50_us", wrk.p50_us},
            {"p99_us", wrk.p99_us},
            {"cpu_us_each", (server.cpu_us() - cpu_before_us) / wrk.requests}};
}

Command server_command(Plan& plan, const std::string& impl) {
    if (impl != "baton") return {plan.program(impl), {}, false, {}};
    return {{build_dir() + "/examples/httpd", "--listen", "127.0.0.1:0"}, {}, false, {}};
}

void require_wrk() {
    std::istringstream path(std::getenv("PATH") != nullptr ? std::getenv("PATH") : "");
    for (std::string folder; std::getline(path, folder, ':');)
        if (::access((folder + "/wrk").c_str(), X_OK) == 0) return;
    throw Failure("wrk is not installed (Debian package wrk)");
}

} // namespace bench
