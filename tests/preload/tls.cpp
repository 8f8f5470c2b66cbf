// SPDX-License-Identifier: Apache-2.0
//
// OpenSSL's blocking calls at both ends: a server that takes each connection on a worker of its
// own, asked by OpenSSL, and by libcurl's easy interface, whose resolver has threads of its own.
#if !__has_include(<openssl/ssl.h>) || !__has_include(<curl/curl.h>)
#include <doctest/doctest.h>

#include <cstdio>
TEST_CASE("TLS") { std::printf("skip: libssl-dev or libcurl4-openssl-dev is not installed\n"); }
#else
#include <curl/curl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "preload/components.hpp"

namespace {

using namespace components;

/// A certificate for localhost, signed by itself.
SSL_CTX* server_context() {
    SSL_CTX* ctx = ::SSL_CTX_new(::TLS_server_method());
    EVP_PKEY* key = ::EVP_EC_gen("P-256");
    X509* cert = ::X509_new();
    ::ASN1_INTEGER_set(::X509_get_serialNumber(cert), 1);
    ::X509_gmtime_adj(::X509_getm_notBefore(cert), 0);
    ::X509_gmtime_adj(::X509_getm_notAfter(cert), 3600);
    ::X509_set_pubkey(cert, key);
    X509_NAME* name = ::X509_get_subject_name(cert);
    ::X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
    ::X509_set_issuer_name(cert, name);
    ::X509_sign(cert, key, ::EVP_sha256());
    ::SSL_CTX_use_certificate(ctx, cert);
    ::SSL_CTX_use_PrivateKey(ctx, key);
    return ctx;
}

struct Endpoint {
    int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    socklen_t len = sizeof at;
    Endpoint() {
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::bind(fd, reinterpret_cast<sockaddr*>(&at), len);
        ::listen(fd, 1024);
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &len);
    }
    int port() const { return ntohs(at.sin_port); }
};

/// Answers one request; TLS if `ctx`.
void answer(int fd, SSL_CTX* ctx) {
    SSL* ssl = ctx ? ::SSL_new(ctx) : nullptr;
    char buf[4096];
    long n = -1;
    if (ssl) {
        ::SSL_set_fd(ssl, fd);
        if (::SSL_accept(ssl) == 1) n = ::SSL_read(ssl, buf, sizeof buf);
    } else {
        n = ::read(fd, buf, sizeof buf);
    }
    if (n > 0) {
        ::usleep(2000);
        const std::string first(buf, std::string(buf, static_cast<std::size_t>(n)).find('\r'));
        const std::string reply =
            "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(first.size()) +
            "\r\nConnection: close\r\n\r\n" + first;
        if (ssl) {
            ::SSL_write(ssl, reply.data(), static_cast<int>(reply.size()));
            ::SSL_shutdown(ssl);
        } else {
            (void)!::write(fd, reply.data(), reply.size());
        }
    }
    ::SSL_free(ssl);
    ::close(fd);
}

/// Takes `n` connections, each on a goroutine or a thread; never ends before they do.
void serve(int listener, int n, SSL_CTX* ctx) {
    if (by_goroutines()) {
        for (int i = 0; i < n; i++) {
            const int fd = ::accept(listener, nullptr, nullptr);
            baton::go([fd, ctx] { answer(fd, ctx); });
        }
    } else {
        std::vector<std::thread> all;
        for (int i = 0; i < n; i++) {
            const int fd = ::accept(listener, nullptr, nullptr);
            all.emplace_back(answer, fd, ctx);
        }
        for (std::thread& t : all) t.join();
    }
}

std::string ask_by_openssl(int i, const Endpoint& e) {
    static SSL_CTX* ctx = ::SSL_CTX_new(::TLS_client_method());
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    std::string got;
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&e.at), e.len) == 0) {
        SSL* ssl = ::SSL_new(ctx);
        ::SSL_set_fd(ssl, fd);
        if (::SSL_connect(ssl) == 1) {
            const std::string request = "GET /" + std::to_string(i) + " HTTP/1.1\r\n\r\n";
            ::SSL_write(ssl, request.data(), static_cast<int>(request.size()));
            char buf[1024];
            for (int n = 0; (n = ::SSL_read(ssl, buf, sizeof buf)) > 0;)
                got.append(buf, static_cast<std::size_t>(n));
        }
        ::SSL_free(ssl);
    }
    ::close(fd);
    return got.substr(std::min(got.size(), got.rfind('\n')));
}

std::size_t collect(char* data, std::size_t, std::size_t n, void* to) {
    static_cast<std::string*>(to)->append(data, n);
    return n;
}

std::string ask_by_curl(int i, const Endpoint& e, bool tls) {
    CURL* curl = ::curl_easy_init();
    std::string got;
    const std::string url = std::string(tls ? "https" : "http") +
                            "://localhost:" + std::to_string(e.port()) + "/" + std::to_string(i);
    ::curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    ::curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    ::curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    ::curl_easy_setopt(curl, CURLOPT_WRITEDATA, &got);
    ::curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(curl, CURLOPT_IPRESOLVE, CURL_IPRESOLVE_V4);
    const CURLcode rc = ::curl_easy_perform(curl);
    ::curl_easy_cleanup(curl);
    return rc == CURLE_OK ? got : ::curl_easy_strerror(rc);
}

/// Worker 0 serves, the others ask.
template <class Ask>
void run_all(int asking, bool tls, Ask ask) {
    std::signal(SIGPIPE, SIG_IGN);
    SSL_CTX* ctx = tls ? server_context() : nullptr;
    const Endpoint e;
    run_workers(asking + 1, [&](int i) {
        if (i != 0) return ask(i, e);
        serve(e.fd, asking, ctx);
        return std::string("served");
    });
}

TEST_CASE("child: openssl" * doctest::skip()) { run_all(100, true, ask_by_openssl); }
TEST_CASE("child: curl" * doctest::skip()) {
    ::curl_global_init(CURL_GLOBAL_ALL);
    run_all(200, false, [](int i, const Endpoint& e) { return ask_by_curl(i, e, false); });
}
TEST_CASE("child: curl https" * doctest::skip()) {
    ::curl_global_init(CURL_GLOBAL_ALL);
    run_all(200, true, [](int i, const Endpoint& e) { return ask_by_curl(i, e, true); });
}

TEST_CASE("OpenSSL: both ends on goroutines") { compare("openssl", {}, 40); }
// The resolver makes a thread for each name it looks up.
TEST_CASE("libcurl: 200 goroutines fetch as 200 threads do") { compare("curl", {}, 260); }
TEST_CASE("libcurl: by https, too") { compare("curl https", {}, 260); }

} // namespace
#endif
