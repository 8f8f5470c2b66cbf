// SPDX-License-Identifier: Apache-2.0
//
// tlsecho: TLS over baton::Conn, by OpenSSL. A server that sends back what it is sent, a goroutine
// per connection; and as many clients of it as wanted.
//
//   tlsecho [--listen 127.0.0.1:0]        serves; "listening on HOST:PORT", then until SIGTERM
//   tlsecho --connect HOST:PORT [--clients N]
//                                         N clients, 10 messages each, checks what comes back
//
// The certificate is made at the start and signed by itself; the clients do not ask who signed it.
//
// OpenSSL never sees a socket. Each connection has two memory BIOs, what came in and what is to go
// out, and the goroutine carries bytes between them and its Conn whenever OpenSSL wants some. So
// none of OpenSSL's frames is on the stack while the goroutine parks, and may come back on another
// thread: its error queue and other things of its own belong to a thread.
#include <baton/baton.hpp>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "certificate.hpp"

namespace {

using namespace std::chrono_literals;

using tls::Context;
using tls::fail;

/// A TLS connection. One goroutine at a time.
class Tls {
public:
    Tls(SSL_CTX* context, baton::Conn conn) : conn_(std::move(conn)), ssl_(::SSL_new(context)) {
        in_ = ::BIO_new(::BIO_s_mem());
        out_ = ::BIO_new(::BIO_s_mem());
        if (!ssl_ || !in_ || !out_) fail("SSL_new");
        ::SSL_set_bio(ssl_.get(), in_, out_); // it frees them
    }

    void accept() {
        carry("handshake", [this] { return ::SSL_accept(ssl_.get()); });
    }
    void connect() {
        carry("handshake", [this] { return ::SSL_connect(ssl_.get()); });
    }
    /// 0 at the end.
    std::size_t read(std::span<char> buf) {
        const int size = static_cast<int>(buf.size());
        return carry("read", [&] { return ::SSL_read(ssl_.get(), buf.data(), size); });
    }
    void write(std::string_view text) {
        const int size = static_cast<int>(text.size());
        carry("write", [&] { return ::SSL_write(ssl_.get(), text.data(), size); });
    }
    /// Tells the peer that this is the end.
    void shutdown() {
        ::ERR_clear_error();
        (void)::SSL_shutdown(ssl_.get());
        flush();
    }
    baton::Conn& conn() { return conn_; }

private:
    /// Calls `step` until it is done, and meanwhile fetches and sends what it wants.
    template <class Step>
    std::size_t carry(const char* what, Step step) {
        for (;;) {
            ::ERR_clear_error(); // this thread's, where others have been since
            const int rc = step();
            const int error = ::SSL_get_error(ssl_.get(), rc);
            flush();
            if (rc > 0) return static_cast<std::size_t>(rc);
            if (error == SSL_ERROR_ZERO_RETURN) return 0;
            if (error != SSL_ERROR_WANT_READ) fail(what);
            char buf[4096];
            const std::size_t n = conn_.read(buf, sizeof buf);
            if (n == 0) throw std::runtime_error("the peer ended without saying so");
            ::BIO_write(in_, buf, static_cast<int>(n));
        }
    }
    void flush() {
        char* data = nullptr;
        const long n = BIO_get_mem_data(out_, &data);
        if (n <= 0) return;
        conn_.write(std::string_view(data, static_cast<std::size_t>(n)));
        (void)BIO_reset(out_);
    }

    baton::Conn conn_;
    tls::Ssl ssl_;
    BIO* in_ = nullptr;
    BIO* out_ = nullptr;
};

void echo(SSL_CTX* context, baton::Conn conn) try {
    Tls tls(context, std::move(conn));
    tls.accept();
    char buf[2048];
    while (const std::size_t n = tls.read(buf)) tls.write(std::string_view(buf, n));
    tls.shutdown();
} catch (const std::exception& e) {
    std::fprintf(stderr, "tlsecho: %s\n", e.what());
}

void serve(const std::string& address) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const Context context = tls::server_context();
    baton::Listener listener = baton::Listener::listen("tcp", address);
    std::printf("listening on %s\n", listener.address().c_str());
    std::fflush(stdout);
    baton::go([&] {
        for (;;) baton::go(echo, context.get(), listener.accept());
    });
    int signal = 0;
    ::sigwait(&signals, &signal);
    std::exit(0); // goroutines still have all of it in use
}

/// How many messages came back as they were.
int converse(SSL_CTX* context, const std::string& address, int number) {
    Tls tls(context, baton::Conn::dial("tcp", address, 10s));
    tls.connect();
    int right = 0;
    for (int i = 0; i < 10; i++) {
        const std::size_t size = 1 + static_cast<std::size_t>(number * 10 + i) * 3571 % 50'000;
        const std::string sent(size, static_cast<char>('a' + (number + i) % 26));
        std::string got;
        tls.write(sent);
        for (char buf[2048]; got.size() < size;) {
            const std::size_t n = tls.read(buf);
            if (n == 0) break;
            got.append(buf, n);
        }
        right += got == sent;
    }
    tls.shutdown();
    return right;
}

int ask(const std::string& address, int clients) {
    const Context context(::SSL_CTX_new(::TLS_client_method()));
    if (!context) fail("SSL_CTX_new");
    std::atomic<int> right{0};
    baton::run([&] {
        baton::WaitGroup wg;
        for (int i = 0; i < clients; i++)
            wg.go([&, i] {
                try {
                    right += converse(context.get(), address, i);
                } catch (const std::exception& e) {
                    std::fprintf(stderr, "tlsecho: client %d: %s\n", i, e.what());
                }
            });
        wg.wait();
    });
    std::printf("%d of %d messages came back as they were\n", right.load(), 10 * clients);
    return right == 10 * clients ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) try {
    std::string listen = "127.0.0.1:0";
    std::string connect;
    int clients = 1;
    for (int i = 1; i < argc; i += 2) {
        const std::string_view arg = argv[i];
        if (arg == "--listen" && i + 1 < argc) {
            listen = argv[i + 1];
        } else if (arg == "--connect" && i + 1 < argc) {
            connect = argv[i + 1];
        } else if (arg == "--clients" && i + 1 < argc) {
            clients = std::atoi(argv[i + 1]);
        } else {
            std::fprintf(stderr, "usage: tlsecho [--listen HOST:PORT]\n"
                                 "       tlsecho --connect HOST:PORT [--clients N]\n");
            return 2;
        }
    }
    if (!connect.empty()) return ask(connect, clients);
    serve(listen);
} catch (const std::exception& e) {
    std::fprintf(stderr, "tlsecho: %s\n", e.what());
    return 1;
}
