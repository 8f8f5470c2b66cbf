// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL's blocking calls at both ends, and libcurl's easy interface, whose resolver has threads
// of its own. The server is the example httpd; the example tlsproxy puts TLS before it, a goroutine
// or a thread for each connection.
#if !__has_include(<openssl/ssl.h>) || !__has_include(<curl/curl.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("TLS") { std::printf("skip: libssl-dev or libcurl4-openssl-dev is not installed\n"); }
#else
#include <netinet/in.h>
#include <sys/syscall.h>

#include "examples/certificate.hpp"
#include "preload/components.hpp"
#include "support/busy.hpp"

namespace {

using namespace components;

/// An example that serves: it says where when it does.
class Server {
public:
    Server(const std::string& name, std::vector<std::string> arguments)
        : service_(command(name, std::move(arguments)), folder_ / "log") {
        REQUIRE(comes_up([&] {
            std::ifstream log(folder_ / "log");
            for (std::string line; std::getline(log, line);)
                if (line.starts_with("listening on ")) port_ = line.substr(line.rfind(':') + 1);
            return !port_.empty();
        }));
    }
    const std::string& port() const { return port_; }
    /// How many it has.
    int threads() const {
        return static_cast<int>(
            std::distance(std::filesystem::directory_iterator(
                              "/proc/" + std::to_string(service_.pid()) + "/task"),
                          {}));
    }

private:
    static std::vector<std::string> command(const std::string& name,
                                            std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), build_dir() + "/examples/" + name);
        return arguments;
    }

    Folder folder_;
    std::string port_;
    Service service_;
};

/// Asks httpd for "/" some times over one connection.
std::string ask_by_openssl(SSL_CTX* context, std::uint16_t port) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(port);
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    std::string got;
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0) {
        const tls::Ssl ssl(::SSL_new(context));
        ::SSL_set_fd(ssl.get(), fd);
        const std::string request = "GET / HTTP/1.1\r\n\r\n";
        const int size = static_cast<int>(request.size());
        for (int i = 0; i < 5; i++) {
            char buf[1024];
            if ((i == 0 && ::SSL_connect(ssl.get()) != 1) ||
                ::SSL_write(ssl.get(), request.data(), size) != size)
                break;
            const int n = ::SSL_read(ssl.get(), buf, sizeof buf);
            if (n > 0) got += std::string(buf, static_cast<std::size_t>(n)).substr(0, 15);
        }
        (void)::SSL_shutdown(ssl.get());
    }
    ::close(fd);
    return got;
}

TEST_CASE("child: openssl" * doctest::skip()) {
    const tls::Context context(::SSL_CTX_new(::TLS_client_method()));
    const auto port = static_cast<std::uint16_t>(std::stoi(std::getenv("PORT")));
    run_workers({.workers = 100, .unit = "requests", .each = 5},
                [&](int) { return ask_by_openssl(context.get(), port); });
}

TEST_CASE("OpenSSL: both ends on goroutines do as both on threads") {
    const Server httpd("httpd", {});
    const Server by_threads("tlsproxy", {httpd.port(), "--threads"});
    const Server by_goroutines("tlsproxy", {httpd.port()});
    const std::string plain = run_child_by("openssl", false, {"PORT=" + by_threads.port()});
    const std::string ours = run_child_by("openssl", true, {"PORT=" + by_goroutines.port()});
    CHECK(Outcome(plain).answers.find("HTTP/1.1 200 OK") != std::string::npos);
    compare_outcomes("OpenSSL", plain, ours, 30);
    CHECK(by_goroutines.threads() <= 30);
}

// What it keeps with a thread it uses again after it has waited for a lock.
TEST_CASE("child: openssl's locks" * doctest::skip()) {
    static std::atomic<int> moved;
    baton::run([] {}); // starting takes long beside those
    const busy::Processes others(std::getenv("BUSY") ? 8 : 0);
    const auto start = std::chrono::steady_clock::now();
    baton::run([] {
        baton::set_max_procs(4);
        CRYPTO_RWLOCK* lock = ::CRYPTO_THREAD_lock_new();
        for (int round = 0; round < 10; round++) {
            baton::WaitGroup wg;
            ::CRYPTO_THREAD_write_lock(lock);
            for (int i = 0; i < 16; i++) {
                wg.go([lock, i] {
                    const long before = ::syscall(SYS_gettid);
                    i % 2 == 0 ? ::CRYPTO_THREAD_read_lock(lock) : ::CRYPTO_THREAD_write_lock(lock);
                    moved += ::syscall(SYS_gettid) != before;
                    ::CRYPTO_THREAD_unlock(lock);
                });
            }
            ::usleep(5000); // it may be held across a park, all the same
            ::CRYPTO_THREAD_unlock(lock);
            wg.wait();
        }
        ::CRYPTO_THREAD_lock_free(lock);
    });
    const auto took = std::chrono::steady_clock::now() - start;
    std::printf("%d moved, %.1f s\n", moved.load(), std::chrono::duration<double>(took).count());
    if (moved == 0 && took < 3s) child_process::reached();
}

TEST_CASE("OpenSSL: a goroutine stays on its thread where it waits for a lock") {
    child_process::check_works(child_process::run_child("openssl's locks", {hooked::preload()}));
}

// Each yield there lasts for all the others' turns, and keeps the P that who would unlock it may
// need: with a hundred of them this takes 6 s, as it is 0.8.
TEST_CASE("OpenSSL: who waits for a lock beside other processes keeps nobody from unlocking it") {
    child_process::check_works(
        child_process::run_child("openssl's locks", {hooked::preload(), "BUSY=1"}));
}

TEST_CASE("libcurl: 200 goroutines fetch as 200 threads do") {
    const Server httpd("httpd", {});
    // The resolver makes a thread for each name it looks up.
    compare_example("curl", "curlfetch http://localhost:" + httpd.port() + "/ 200", 230);
}

TEST_CASE("libcurl: by https, too") {
    const Server httpd("httpd", {});
    const Server by_threads("tlsproxy", {httpd.port(), "--threads"});
    const Server by_goroutines("tlsproxy", {httpd.port()});
    const auto fetch = [](const Server& from) {
        return "curlfetch https://localhost:" + from.port() + "/ 200";
    };
    compare_outcomes("curl, https", run_example(fetch(by_threads) + " --threads"),
                     run_example(fetch(by_goroutines)), 230);
    CHECK(by_goroutines.threads() <= 30);
}

// Each goroutine has a few milliseconds of work there, under locks of the libraries' in part, and
// gets a CPU for as long only after all the others' turns.
TEST_CASE("libcurl: by https, beside other processes, no more threads") {
    const Server httpd("httpd", {});
    const Server proxy("tlsproxy", {httpd.port()});
    const busy::Processes others(4);
    // No name, as the resolver's threads wait for a CPU, too.
    const Outcome ours(run_example("curlfetch https://127.0.0.1:" + proxy.port() + "/ 100 1"));
    CHECK(ours.threads > 0);
    CHECK(ours.threads <= 30);
    CHECK(proxy.threads() <= 30);
}

} // namespace
#endif
