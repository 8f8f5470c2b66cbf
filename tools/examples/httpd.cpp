// SPDX-License-Identifier: Apache-2.0
//
// httpd: an HTTP/1.1 server with a goroutine per connection, whose handlers may block.
//
//   httpd [--listen 127.0.0.1:0] [--file PATH] [--stats-json]
//
//   /             "Hello, World!"
//   /block?us=N   sleeps N us in the kernel, and has told the runtime that it may
//   /nap?us=N     the same, as a driver or a library would that knows no goroutines: untold
//   /file         reads 64 KiB at a random place of PATH past the page cache, so it really waits
//   /stats        the runtime's counters
//
// The first line on stdout is "listening on HOST:PORT". SIGTERM and SIGINT end it.
//
// Requests are parsed by libhttp-parser. llhttp, which came after it, and picohttpparser are not in
// Debian 12.
#include <baton/baton.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include <fcntl.h>
#include <http_parser.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr std::size_t kFileSize = 16 << 20; // of the file we make when none is given
constexpr std::size_t kReadSize = 64 << 10;
constexpr std::size_t kAlign = 4096; // what O_DIRECT may ask of buffer and offset
constexpr long kSleepMaxUs = 10'000'000;

struct {
    baton::File file;
    std::size_t blocks = 0; // places to read from
} g_file;

// A connection's state lies on its goroutine's stack, and with these sizes a parked connection has
// touched one page of it, or two once it has formatted an answer: that is all the memory the stack
// then costs. A request of more than 1 KiB simply takes several reads.
struct Connection {
    baton::Conn conn;
    http_parser parser{};
    std::uint64_t rng = 0;
    std::uint8_t url_len = 0;
    bool url_too_long = false;
    bool failed = false;
    std::uint16_t out_len = 0;
    char url[64];
    char out[512]; // answers to the requests of one read, sent with one write
    char in[1024];

    void serve();
    void answer();
    void answer_sleep(std::string_view query, bool announced);
    void answer_file();
    void answer_stats();
    void put(const char* status, std::string_view body, std::string_view header = {});
    void flush();
    void send(std::string_view bytes);
};

// The answer to "/" whole, as it goes out.
constexpr std::string_view kHello = "HTTP/1.1 200 OK\r\n"
                                    "Content-Type: text/plain\r\n"
                                    "Content-Length: 13\r\n\r\n"
                                    "Hello, World!";

void Connection::send(std::string_view bytes) {
    std::error_code ec;
    conn.write(std::as_bytes(std::span(bytes)), ec);
    failed = failed || ec;
}

void Connection::flush() {
    if (out_len > 0) send({out, out_len});
    out_len = 0;
}

void Connection::put(const char* status, std::string_view body, std::string_view header) {
    char head[192];
    const int n = std::snprintf(
        head, sizeof head,
        "HTTP/1.1 %s\r\nContent-Type: text/plain\r\n%.*s%sContent-Length: %zu\r\n\r\n", status,
        static_cast<int>(header.size()), header.data(),
        http_should_keep_alive(&parser) ? "" : "Connection: close\r\n", body.size());
    const std::string_view text = parser.method == HTTP_HEAD ? std::string_view{} : body;
    const auto head_len = static_cast<std::size_t>(n);
    if (head_len + text.size() > sizeof out - out_len) flush();
    if (head_len + text.size() > sizeof out) {
        send(std::string(head, head_len).append(text));
        return;
    }
    std::memcpy(out + out_len, head, head_len);
    std::memcpy(out + out_len + head_len, text.data(), text.size());
    out_len = static_cast<std::uint16_t>(out_len + head_len + text.size());
}

void Connection::answer_sleep(std::string_view query, bool announced) {
    long us = -1;
    if (query.starts_with("us=")) {
        query.remove_prefix(3);
        const char* end = query.data() + query.size();
        if (std::from_chars(query.data(), end, us).ptr != end) us = -1;
    }
    if (us < 0 || us > kSleepMaxUs) {
        put("400 Bad Request", "us: 0 to 10000000\n");
        return;
    }
    const auto sleep = [us] {
        timespec ts{us / 1'000'000, us % 1'000'000 * 1000};
        while (::syscall(SYS_nanosleep, &ts, &ts) != 0 && errno == EINTR) {
        }
    };
    if (announced) {
        baton::blocking(sleep);
    } else {
        sleep();
    }
    put("200 OK", "slept\n");
}

void Connection::answer_file() {
    // xorshift64
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    const auto offset = static_cast<std::int64_t>(rng % g_file.blocks * kAlign);
    // Allocated while it is needed: a parked connection keeps none.
    void* buf = std::aligned_alloc(kAlign, kReadSize);
    auto ec = std::make_error_code(std::errc::not_enough_memory);
    const std::size_t n =
        buf ? g_file.file.pread({static_cast<std::byte*>(buf), kReadSize}, offset, ec)
            : std::size_t{0};
    std::free(buf);
    if (ec) {
        put("500 Internal Server Error", "the file could not be read\n");
        return;
    }
    char header[48];
    const int len = std::snprintf(header, sizeof header, "X-Bytes: %zu\r\n", n);
    put("200 OK", "read\n", {header, static_cast<std::size_t>(len)});
}

std::string stats_text() {
    const baton::Stats s = baton::stats();
    std::string text = "assist " + std::string(baton::to_string(baton::assist_tier())) + '\n';
    const auto line = [&text](const char* name, std::uint64_t value) {
        text.append(name).append(" ").append(std::to_string(value)).append("\n");
    };
    line("goroutines", s.goroutines);
    line("threads", s.threads);
    line("threads_idle", s.threads_idle);
    line("threads_peak", s.threads_peak);
    line("handoffs", s.handoffs);
    line("handoffs_understudy", s.handoffs_understudy);
    line("handoffs_scan", s.handoffs_scan);
    line("handoffs_ringbuf", s.handoffs_ringbuf);
    line("handoffs_sysmon", s.handoffs_sysmon);
    line("understudy_arms", s.understudy_arms);
    line("understudy_dozes", s.understudy_dozes);
    line("handoff_samples", s.handoff_samples);
    line("handoff_p50_ns", s.handoff_p50_ns);
    line("handoff_p99_ns", s.handoff_p99_ns);
    return text;
}

// The same as one JSON object: each line is a name, a space and a value.
std::string stats_json() {
    std::string json = "{";
    const std::string text = stats_text();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t space = text.find(' ', at);
        const std::size_t end = text.find('\n', at);
        const std::string value = text.substr(space + 1, end - space - 1);
        const bool number = value.find_first_not_of("0123456789") == std::string::npos;
        json += (json.size() > 1 ? ", \"" : "\"") + text.substr(at, space - at) + "\": ";
        json += number ? value : '"' + value + '"';
        at = end + 1;
    }
    return json + '}';
}

void Connection::answer_stats() {
    std::string text = stats_text();
    for (const baton::KernelFeature& f : baton::kernel_features()) {
        text += "feature " + f.name + (f.usable ? " yes" : " no");
        if (!f.detail.empty()) text += ' ' + f.detail;
        text += '\n';
    }
    put("200 OK", text);
}

void Connection::answer() {
    const std::string_view target(url, url_len);
    const std::size_t mark = target.find('?');
    const std::string_view path = target.substr(0, mark);
    const std::string_view query =
        mark == std::string_view::npos ? std::string_view{} : target.substr(mark + 1);
    if (url_too_long) {
        put("414 URI Too Long", "too long\n");
    } else if (path == "/") {
        // The common case, without formatting anything.
        if (sizeof out - out_len < kHello.size() || parser.method == HTTP_HEAD ||
            !http_should_keep_alive(&parser)) {
            put("200 OK", "Hello, World!");
        } else {
            std::memcpy(out + out_len, kHello.data(), kHello.size());
            out_len = static_cast<std::uint16_t>(out_len + kHello.size());
        }
    } else if (path == "/block") {
        answer_sleep(query, true);
    } else if (path == "/nap") {
        answer_sleep(query, false);
    } else if (path == "/file") {
        answer_file();
    } else if (path == "/stats") {
        answer_stats();
    } else {
        put("404 Not Found", "not found\n");
    }
}

Connection* of(http_parser* parser) { return static_cast<Connection*>(parser->data); }

int on_message_begin(http_parser* parser) {
    of(parser)->url_len = 0;
    of(parser)->url_too_long = false;
    return 0;
}

int on_url(http_parser* parser, const char* at, std::size_t n) {
    Connection* c = of(parser);
    if (n > sizeof c->url - c->url_len) {
        c->url_too_long = true;
        return 0;
    }
    std::memcpy(c->url + c->url_len, at, n);
    c->url_len = static_cast<std::uint8_t>(c->url_len + n);
    return 0;
}

int on_message_complete(http_parser* parser) {
    Connection* c = of(parser);
    c->answer();
    // Stops the parser, if nothing after this is to be answered.
    return c->failed || !http_should_keep_alive(parser);
}

void Connection::serve() {
    static const http_parser_settings settings = [] {
        http_parser_settings s;
        http_parser_settings_init(&s);
        s.on_message_begin = on_message_begin;
        s.on_url = on_url;
        s.on_message_complete = on_message_complete;
        return s;
    }();
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = this;
    rng = baton::goid() * 0x9e3779b97f4a7c15;
    for (;;) {
        std::error_code ec;
        const std::size_t n = conn.read(std::as_writable_bytes(std::span(in)), ec);
        if (ec || n == 0) return;
        const std::size_t parsed = http_parser_execute(&parser, &settings, in, n);
        const http_errno error = HTTP_PARSER_ERRNO(&parser);
        if (error != HPE_OK && error != HPE_CB_message_complete) {
            flush();
            send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        flush();
        if (failed || error != HPE_OK || parsed != n || parser.upgrade) return;
    }
}

void serve(baton::Conn conn) {
    Connection c;
    c.conn = std::move(conn);
    c.serve();
}

void accept_all(baton::Listener& listener) {
    using namespace std::chrono_literals;
    for (;;) {
        std::error_code ec;
        baton::Conn conn = listener.accept(ec);
        if (ec == std::errc::bad_file_descriptor) return; // closed: we are asked to end
        if (ec) {
            // Not that there are no descriptors left: accept waits for some.
            std::fprintf(stderr, "httpd: accept: %s\n", ec.message().c_str());
            baton::sleep_for(10ms);
            continue;
        }
        baton::go(serve, std::move(conn));
    }
}

[[noreturn]] void die(const char* what) {
    std::fprintf(stderr, "httpd: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

// A file of our own. It loses its name at once, so it goes when we go, however we go.
std::string make_file() {
    const char* dir = std::getenv("TMPDIR");
    std::string path = std::string(dir ? dir : "/var/tmp") + "/baton-httpd-XXXXXX";
    const int fd = ::mkostemp(path.data(), O_CLOEXEC);
    if (fd < 0) die(path.c_str());
    std::string chunk(1 << 20, 'b');
    for (std::size_t done = 0; done < kFileSize; done += chunk.size())
        if (::write(fd, chunk.data(), chunk.size()) != static_cast<ssize_t>(chunk.size()))
            die(path.c_str());
    ::fsync(fd);
    ::close(fd);
    return path;
}

void open_file(std::string path) {
    const bool ours = path.empty();
    if (ours) path = make_file();
    std::error_code ec;
    g_file.file = baton::File::open(path, O_RDONLY | O_DIRECT, 0, ec);
    if (ec == std::errc::invalid_argument) {
        std::fprintf(stderr,
                     "httpd: the file system of %s has no O_DIRECT; /file may be answered "
                     "from the page cache, without blocking\n",
                     path.c_str());
        g_file.file = baton::File::open(path, O_RDONLY, 0, ec);
    }
    if (ec) throw std::system_error(ec, path);
    if (ours) ::unlink(path.c_str());
    const std::uint64_t size = g_file.file.stat().stx_size;
    if (size < kReadSize) {
        std::fprintf(stderr, "httpd: %s is shorter than 64 KiB\n", path.c_str());
        std::exit(1);
    }
    g_file.blocks = (size - kReadSize) / kAlign + 1;
}

struct Options {
    std::string listen = "127.0.0.1:0";
    std::string file;
    bool stats_json = false;
};

Options parse_options(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; i++) {
        const std::string_view arg = argv[i];
        if (arg == "--stats-json") {
            o.stats_json = true;
        } else if (arg == "--listen" && i + 1 < argc) {
            o.listen = argv[++i];
        } else if (arg == "--file" && i + 1 < argc) {
            o.file = argv[++i];
        } else {
            std::fprintf(stderr,
                         "usage: httpd [--listen HOST:PORT] [--file PATH] [--stats-json]\n");
            std::exit(2);
        }
    }
    return o;
}

} // namespace

int main(int argc, char** argv) try {
    const Options options = parse_options(argc, argv);
    open_file(options.file);
    // Blocked before the runtime starts, so in all its threads: only sigwait below gets them.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);

    baton::Listener listener;
    baton::run([&] {
        listener = baton::Listener::listen("tcp", options.listen);
        baton::go(accept_all, std::ref(listener));
    });
    std::printf("listening on %s\n", listener.address().c_str());
    std::fflush(stdout);

    int signal = 0;
    ::sigwait(&signals, &signal);
    if (options.stats_json) std::printf("%s\n", stats_json().c_str());
    // Goroutines still have the connections and the listener in use. Unlike a return from main this
    // destroys neither.
    std::exit(0);
} catch (const std::exception& e) {
    std::fprintf(stderr, "httpd: %s\n", e.what());
    return 1;
}
