// SPDX-License-Identifier: Apache-2.0
//
// Streams over what may have to be waited for.
#include <cwchar>
#include <memory>

#include "preload/rows/rows.hpp"

extern "C" {
std::size_t __fread_chk(void* buf, std::size_t room, std::size_t size, std::size_t n, FILE* f);
char* __fgets_chk(char* buf, std::size_t room, int n, FILE* f);
int __fprintf_chk(FILE* f, int flag, const char* format, ...);
int __uflow(FILE* f);
}

namespace rows {

namespace {

struct Close {
    void operator()(FILE* f) const { ::fclose(f); }
};
using Stream = std::unique_ptr<FILE, Close>;

Stream over(Fd& fd, const char* mode) { return Stream(::fdopen(::dup(fd), mode)); }

std::string flags(FILE* f) {
    return std::string(::feof(f) ? " eof" : "") + (::ferror(f) ? " error" : "");
}

struct Reader {
    const char* name;
    std::string (*read)(FILE* f);
};

constexpr Reader kReaders[] = {
    {"fgets",
     [](FILE* f) {
         char b[32];
         return std::string(::fgets(b, sizeof b, f) ? b : "nothing");
     }},
    {"__fgets_chk",
     [](FILE* f) {
         char b[32];
         return std::string(__fgets_chk(b, sizeof b, sizeof b, f) ? b : "nothing");
     }},
    {"fread",
     [](FILE* f) {
         char b[32] = {};
         return std::to_string(::fread(b, 1, 6, f)) + b;
     }},
    {"__fread_chk",
     [](FILE* f) {
         char b[32] = {};
         return std::to_string(__fread_chk(b, sizeof b, 2, 3, f)) + b;
     }},
    {"getline",
     [](FILE* f) {
         char* line = nullptr;
         std::size_t n = 0;
         const ssize_t got = ::getline(&line, &n, f);
         const std::string what = result(got) + (got >= 0 ? line : "");
         ::free(line);
         return what;
     }},
    {"getdelim",
     [](FILE* f) {
         char* line = nullptr;
         std::size_t n = 0;
         const std::string what = result(::getdelim(&line, &n, 'n', f));
         ::free(line);
         return what;
     }},
    {"getc", [](FILE* f) { return std::to_string(::getc(f)) + std::to_string(::fgetc(f)); }},
    {"getc_unlocked", [](FILE* f) { return std::to_string(::getc_unlocked(f)); }},
    {"__uflow", [](FILE* f) { return std::to_string(__uflow(f)); }},
    {"getw", [](FILE* f) { return std::to_string(::getw(f)); }},
    {"fscanf",
     [](FILE* f) {
         char b[32] = {};
         return std::to_string(::fscanf(f, "%30s", b)) + b;
     }},
};

void add_readers(Rows& rows, const Reader& q) {
    const auto row = [&](const std::string& what, Ends ends,
                         std::function<std::string(Pair&, FILE*)> body) {
        rows.push_back({std::string(q.name) + " " + what, [=] {
                            Pair p = make(ends);
                            const Stream f = over(p.a, "r");
                            return body(p, f.get()) + flags(f.get());
                        }});
    };
    for (const Ends ends : {Ends::kUnix, Ends::kPipe, Ends::kPty}) {
        const std::string on = name_of(ends);
        row(on + " later", ends, [&q](Pair& p, FILE* f) {
            Later write([&] { (void)!::write(p.b, "one on\ntwo\n", 11); });
            return q.read(f);
        });
        row(on + " there", ends, [&q](Pair& p, FILE* f) {
            (void)!::write(p.b, "one on\ntwo\n", 11);
            p.b.reset();
            const std::string what = q.read(f);
            return what + q.read(f);
        });
    }
    row("in parts", Ends::kPipe, [&q](Pair& p, FILE* f) {
        Later rest(
            [&] {
                (void)!::write(p.b, "on", 2);
                std::this_thread::sleep_for(5ms);
                (void)!::write(p.b, "e on\n", 5);
            },
            5ms);
        return q.read(f);
    });
    row("end later", Ends::kPipe, [&q](Pair& p, FILE* f) {
        Later close([&] { p.b.reset(); });
        std::string what = q.read(f);
        what += flags(f);
        return what + q.read(f);
    });
    row("put back", Ends::kPipe, [&q](Pair& p, FILE* f) {
        (void)!::write(p.b, "one on\n", 7);
        ::ungetc('x', f);
        return q.read(f);
    });
    row("nonblocking", Ends::kUnix, [&q](Pair& p, FILE* f) {
        nonblocking(p.a);
        return q.read(f);
    });
    row("timed out", Ends::kUnix, [&q](Pair& p, FILE* f) {
        timeout(p.a, SO_RCVTIMEO, 20ms);
        const auto start = Clock::now();
        const std::string what = q.read(f);
        return what + timing(start, 20ms) + (Clock::now() - start < 1s ? "" : " more than once");
    });
    rows.push_back({std::string(q.name) + " of a stream to write to", [&q] {
                        Pair p = make(Ends::kPipe);
                        const Stream f = over(p.b, "w");
                        return q.read(f.get()) + flags(f.get());
                    }});
}

struct Writer {
    const char* name;
    int (*write)(FILE* f);
};

constexpr Writer kWriters[] = {
    {"fputs", [](FILE* f) { return ::fputs("one\n", f) >= 0 ? 4 : -1; }},
    {"fputc", [](FILE* f) { return ::fputc('x', f) >= 0 ? 1 : -1; }},
    {"putc", [](FILE* f) { return ::putc('x', f) >= 0 ? 1 : -1; }},
    {"putc_unlocked", [](FILE* f) { return ::putc_unlocked('x', f) >= 0 ? 1 : -1; }},
    {"fprintf", [](FILE* f) { return ::fprintf(f, "%d %s\n", 12, "ab"); }},
    {"__fprintf_chk", [](FILE* f) { return __fprintf_chk(f, 1, "%d %s\n", 12, "ab"); }},
    {"fwrite", [](FILE* f) { return static_cast<int>(::fwrite("one\n", 1, 4, f)); }},
};

/// What is in the pipe, and how much of it.
std::string drain(int fd) {
    char b[4096];
    long sum = 0;
    for (ssize_t n; (n = ::read(fd, b, sizeof b)) > 0;) sum += n;
    return " " + std::to_string(sum);
}
void fill(int fd) {
    const int old = ::fcntl(fd, F_GETFL);
    nonblocking(fd);
    const std::string much(4096, 'f');
    while (::write(fd, much.data(), much.size()) > 0) {
    }
    ::fcntl(fd, F_SETFL, old);
}

void add_writers(Rows& rows, const Writer& q) {
    const auto row = [&](const std::string& what, std::function<std::string(Pair&, Stream&)> body) {
        rows.push_back({std::string(q.name) + " " + what, [=] {
                            Pair p = make(Ends::kPipe);
                            Stream f = over(p.b, "w");
                            return body(p, f);
                        }});
    };
    row("buffered", [&q](Pair& p, Stream& f) {
        std::string what = std::to_string(q.write(f.get()));
        nonblocking(p.a);
        what += drain(p.a) + std::to_string(::fflush(f.get()));
        return what + drain(p.a);
    });
    for (const int mode : {_IONBF, _IOLBF})
        row(mode == _IONBF ? "unbuffered" : "by lines", [&q, mode](Pair& p, Stream& f) {
            ::setvbuf(f.get(), nullptr, mode, 0);
            const std::string what = std::to_string(q.write(f.get()));
            nonblocking(p.a);
            return what + drain(p.a);
        });
    row("full", [&q](Pair& p, Stream& f) {
        ::setvbuf(f.get(), nullptr, _IONBF, 0);
        fill(p.b);
        std::string drained;
        std::string what;
        {
            Later read([&] {
                char b[8192];
                (void)!::read(p.a, b, sizeof b);
            });
            what = std::to_string(q.write(f.get()));
        }
        f.reset();
        p.b.reset();
        return what + drain(p.a);
    });
    row("full, nonblocking", [&q](Pair& p, Stream& f) {
        ::setvbuf(f.get(), nullptr, _IONBF, 0);
        fill(p.b);
        nonblocking(p.b);
        const std::string what = std::to_string(q.write(f.get()));
        return what + flags(f.get());
    });
    row("nobody reads", [&q](Pair& p, Stream& f) {
        ::setvbuf(f.get(), nullptr, _IONBF, 0);
        p.a.reset();
        const std::string what = std::to_string(q.write(f.get()));
        return what + flags(f.get());
    });
    row("of a stream to read from", [&q](Pair& p, Stream&) {
        const Stream f = over(p.a, "r");
        return std::to_string(q.write(f.get())) + flags(f.get());
    });
}

void add_others(Rows& rows) {
    rows.push_back({"fwrite much", [] {
                        Pair p = make(Ends::kUnix);
                        Stream f = over(p.b, "w");
                        p.b.reset();
                        std::string drained;
                        std::thread reader([&] { drained = drain(p.a); });
                        const std::string much(400'000, 'x');
                        std::string what =
                            std::to_string(::fwrite(much.data(), 1, much.size(), f.get()));
                        what += std::to_string(::fclose(f.release()));
                        reader.join();
                        return what + drained;
                    }});
    rows.push_back({"fread much", [] {
                        Pair p = make(Ends::kPipe);
                        const Stream f = over(p.a, "r");
                        std::thread writer([&] {
                            const std::string much(300'000, 'x');
                            (void)!::write(p.b, much.data(), much.size());
                            p.b.reset();
                        });
                        std::vector<char> b(400'000);
                        const std::string what =
                            std::to_string(::fread(b.data(), 1, b.size(), f.get()));
                        writer.join();
                        return what + flags(f.get());
                    }});
    rows.push_back({"fflush full, fclose", [] {
                        Pair p = make(Ends::kPipe);
                        Stream f = over(p.b, "w");
                        fill(p.b);
                        p.b.reset();
                        ::fputs("last", f.get());
                        std::string drained;
                        std::thread reader([&] {
                            std::this_thread::sleep_for(10ms);
                            drained = drain(p.a);
                        });
                        const std::string what = std::to_string(::fclose(f.release()));
                        reader.join();
                        return what + drained;
                    }});
    rows.push_back({"fflush all", [] { return std::to_string(::fflush(nullptr)); }});
    rows.push_back({"dprintf", [] {
                        Pair p = make(Ends::kPipe);
                        char b[16] = {};
                        const std::string what = result(::dprintf(p.b, "%s %d", "a", 5));
                        return what + result(::read(p.a, b, 16)) + b + result(::dprintf(4000, "x"));
                    }});
    rows.push_back({"streams in memory", [] {
                        char b[] = "12 34";
                        const Stream f(::fmemopen(b, sizeof b, "r"));
                        int i = 0, j = 0;
                        const int n = ::fscanf(f.get(), "%d %d", &i, &j);
                        return std::to_string(n) + " " + std::to_string(i + j);
                    }});
    rows.push_back({"flockfile", [] {
                        Pair p = make(Ends::kPipe);
                        const Stream f = over(p.b, "w");
                        ::flockfile(f.get());
                        std::string what;
                        {
                            Later other([&] { ::fputs("later", f.get()); }, 1ms);
                            std::this_thread::sleep_for(10ms);
                            ::usleep(5000);
                            ::fputs("first ", f.get());
                            what = std::to_string(::ftrylockfile(f.get()));
                            ::funlockfile(f.get());
                            ::funlockfile(f.get());
                        }
                        ::fflush(f.get());
                        char b[32] = {};
                        what += result(::read(p.a, b, sizeof b));
                        return what + b;
                    }});
    rows.push_back({"ftrylockfile, another's", [] {
                        Pair p = make(Ends::kPipe);
                        const Stream f = over(p.b, "w");
                        ::flockfile(f.get());
                        int rc = 0;
                        std::thread([&] { rc = ::ftrylockfile(f.get()); }).join();
                        ::funlockfile(f.get());
                        return std::to_string(rc != 0);
                    }});
    rows.push_back({"fgetws", [] {
                        Pair p = make(Ends::kPipe);
                        const Stream f = over(p.a, "r");
                        Later write([&] { (void)!::write(p.b, "wide\n", 5); });
                        wchar_t b[16] = {};
                        return std::to_string(::fgetws(b, 16, f.get()) ? std::wcslen(b) : 0);
                    }});
}

} // namespace

void add_streams(Rows& rows) {
    for (const Reader& q : kReaders) add_readers(rows, q);
    for (const Writer& q : kWriters) add_writers(rows, q);
    add_others(rows);
}

} // namespace rows
