// SPDX-License-Identifier: Apache-2.0
#include "process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sstream>

#include "clock.hpp"
#include "key_values.hpp"
#include "memory.hpp"

namespace bench {

namespace {

double now_s() { return static_cast<double>(now_ns()) / 1e9; }

[[noreturn]] void become(const Command& command, int out, int err, pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127); // the parent died before the line above
    if (command.exact_sleeps) ::prctl(PR_SET_TIMERSLACK, 1UL);
    const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::dup2(null, 0);
    ::dup2(out, 1);
    ::dup2(err, 2);
    for (const int fd : command.keep_fds) ::fcntl(fd, F_SETFD, 0);
    for (const auto& assignment : command.env) ::putenv(const_cast<char*>(assignment.c_str()));
    std::vector<char*> argv;
    for (const auto& arg : command.argv) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::dprintf(2, "%s: %s\n", argv[0], std::strerror(errno));
    ::_exit(127);
}

std::string describe(int status) {
    if (WIFSIGNALED(status)) return std::string("was ended by ") + ::strsignal(WTERMSIG(status));
    return "exited with " + std::to_string(WEXITSTATUS(status));
}

std::string last_line(std::string text) {
    while (text.ends_with('\n')) text.pop_back();
    const auto before = text.rfind('\n');
    return before == std::string::npos ? text : text.substr(before + 1);
}

/// Says what a child said, unless one said it before.
void relay(const std::string& text) {
    static std::set<std::string> said;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
        if (said.insert(line).second) std::fprintf(stderr, "%s\n", line.c_str());
}

} // namespace

Process::Process(const Command& command) {
    for (const auto& arg : command.argv) name_ += (name_.empty() ? "" : " ") + arg;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw Failure(std::string("pipe: ") + std::strerror(errno));
    err_ = ::memfd_create("stderr", MFD_CLOEXEC);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) become(command, ends[1], err_, parent);
    ::close(ends[1]);
    out_ = ends[0];
    if (pid_ < 0) {
        const int error = errno;
        ::close(out_);
        ::close(err_);
        throw Failure(std::string("fork: ") + std::strerror(error));
    }
}

Process::~Process() {
    if (pid_ > 0) {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        relay(complaints());
    }
    ::close(out_);
    ::close(err_);
}

std::string Process::complaints() const {
    std::string text;
    char buf[4096];
    for (off_t at = 0;; at = static_cast<off_t>(text.size())) {
        const ssize_t n = ::pread(err_, buf, sizeof buf, at);
        if (n <= 0) return text;
        text.append(buf, static_cast<std::size_t>(n));
    }
}

bool Process::read_more(double until_s) {
    pollfd wait{out_, POLLIN, 0};
    const double left_s = until_s - now_s();
    if (left_s <= 0 || ::poll(&wait, 1, static_cast<int>(left_s * 1000) + 1) == 0)
        throw Failure("'" + name_ + "' did not answer in time");
    char buf[4096];
    const ssize_t n = ::read(out_, buf, sizeof buf);
    if (n < 0 && errno == EINTR) return true;
    if (n > 0) text_.append(buf, static_cast<std::size_t>(n));
    return n > 0;
}

std::string Process::first_line(double limit_s) {
    const double until = now_s() + limit_s;
    while (text_.find('\n') == std::string::npos)
        if (!read_more(until))
            throw Failure("'" + name_ + "' ended at once: " + last_line(complaints()));
    return text_.substr(0, text_.find('\n'));
}

std::string Process::finish(double limit_s) {
    const double until = now_s() + limit_s;
    while (read_more(until)) {
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    if (status != 0)
        throw Failure("'" + name_ + "' " + describe(status) + ": " + last_line(complaints()));
    relay(complaints());
    return text_;
}

double Process::cpu_us() const {
    clockid_t clock;
    timespec t{};
    if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &t) != 0)
        throw Failure("'" + name_ + "' is gone");
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
}

double Process::resident_bytes() const {
    const double bytes = bench::resident_bytes(std::to_string(pid_));
    if (bytes == 0) throw Failure("'" + name_ + "' is gone");
    return bytes;
}

Figures figures_of(const Command& command, double limit_s) {
    std::istringstream lines(Process(command).finish(limit_s));
    Figures figures;
    for (std::string line; std::getline(lines, line);) {
        const auto equals = line.find('=');
        if (equals == std::string::npos) continue;
        const std::string key = line.substr(0, equals), value = line.substr(equals + 1);
        if (key == "skip") throw Skipped{value};
        char* end = nullptr;
        const double number = std::strtod(value.c_str(), &end);
        if (end == value.c_str() || *end != '\0')
            throw Failure("'" + command.argv[0] + "' printed '" + line + "'");
        figures.emplace_back(key, number);
    }
    if (figures.empty()) throw Failure("'" + command.argv[0] + "' printed no figure");
    return figures;
}

} // namespace bench
