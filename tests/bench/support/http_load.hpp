// SPDX-License-Identifier: Apache-2.0
//
// HTTP servers under wrk, all on loopback and ports of the kernel's choosing.
#pragma once

#include <string>

#include "bench.hpp"

namespace bench {

/// What one run of wrk reports.
struct WrkReport {
    double requests;
    double requests_per_s;
    double p50_us;
    double p99_us;
};

/// A wrk process, one thread, from construction to report(). With a script, every request comes
/// from its request() function.
class Wrk {
public:
    Wrk(const std::string& url, int connections, int seconds, const std::string& script = {});
    ~Wrk();
    /// Waits for it. Throws Failure if requests failed.
    WrkReport report();

private:
    int script_fd_;
    int seconds_;
    Process process_;
};

/// A server program that prints `listening on HOST:PORT`, started with the default number of
/// processors.
class Server {
public:
    explicit Server(const Command& command);
    [[nodiscard]] const std::string& url() const { return url_; }
    [[nodiscard]] double cpu_us() const { return process_.cpu_us(); }
    [[nodiscard]] double resident_bytes() const { return process_.resident_bytes(); }

private:
    Process process_;
    std::string url_;
};

/// What `http` and its kin measure: a fresh server under a wrk that asks for "/". rps, p50_us,
/// p99_us, cpu_us_each.
Figures measure_hello(const Command& command, int connections, int seconds);

/// The command that starts an implementation's server; empty if it is not built.
Command server_command(Plan& plan, const std::string& impl);

/// Throws Failure if wrk is not installed.
void require_wrk();

} // namespace bench
