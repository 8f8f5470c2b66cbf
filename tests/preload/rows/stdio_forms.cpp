// SPDX-License-Identifier: Apache-2.0
//
// The forms of stdio's calls: unlocked, wide, fortified, with lists, and of the standard streams.
#include <cstdarg>
#include <cwchar>

#include "preload/rows/named.hpp"

namespace rows {

namespace {

using Size = std::size_t;
using WithList = std::function<int(va_list)>;

int call_with(const WithList* f, ...) {
    va_list list;
    va_start(list, f);
    const int r = (*f)(list);
    va_end(list);
    return r;
}

/// A stream with "12 ab\n" in it, a while later; or standard input, which is that meanwhile.
void add_read(Rows& rows, const std::string& name, std::function<std::string(FILE*)> read) {
    rows.push_back({name + " later", [=] {
                        const Pair p = make(Ends::kPipe);
                        FILE* f = ::fdopen(::dup(p.a), "r");
                        Later write([&] { (void)!::write(p.b, "12 ab\n", 6); });
                        const std::string what = read(f);
                        ::fclose(f);
                        return what;
                    }});
}
void add_stdin(Rows& rows, const std::string& name, std::function<std::string()> read) {
    rows.push_back({name + " later", [=] {
                        const Pair p = make(Ends::kPipe);
                        const Fd before(::dup(0));
                        ::dup2(p.a, 0);
                        ::clearerr(stdin);
                        std::string what;
                        {
                            Later write([&] { (void)!::write(p.b, "34 cd\n", 6); });
                            what = read();
                        }
                        ::dup2(before, 0);
                        return what;
                    }});
}

template <class C>
void add_lines(Rows& rows, const std::vector<const char*>& names, bool fortified) {
    for (const char* name : names) {
        const auto plain = named<C*(C*, int, FILE*)>(name);
        const auto chk = named<C*(C*, Size, int, FILE*)>(name);
        add_read(rows, name, [=](FILE* f) {
            C b[8] = {};
            const C* got = fortified ? chk(b, 8, 8, f) : plain(b, 8, f);
            return std::to_string(got == b) + std::to_string(b[0]) + std::to_string(b[5]);
        });
    }
}

/// vfscanf and its like, of characters C, "%d".
template <class C>
void add_list_scan(Rows& rows, const C* format, const std::string& name) {
    const auto of_list = named<int(FILE*, const C*, va_list)>(name.c_str());
    add_read(rows, name, [=](FILE* f) {
        int i = 0;
        const WithList scan = [=](va_list list) { return of_list(f, format, list); };
        const int n = call_with(&scan, &i);
        return std::to_string(n) + std::to_string(i);
    });
}

/// scanf and its like.
template <class C>
void add_scans(Rows& rows, const C* format, const std::vector<const char*>& names) {
    for (const std::string base : names) {
        const auto of_file = named<int(FILE*, const C*, ...)>(("f" + base).c_str());
        add_read(rows, "f" + base, [=](FILE* f) {
            int i = 0;
            return std::to_string(of_file(f, format, &i)) + std::to_string(i);
        });
        add_list_scan(rows, format, "vf" + base);
        const auto of_stdin = named<int(const C*, ...)>(base.c_str());
        add_stdin(rows, base, [=] {
            int i = 0;
            return std::to_string(of_stdin(format, &i)) + std::to_string(i);
        });
        const auto list_stdin = named<int(const C*, va_list)>(("v" + base).c_str());
        add_stdin(rows, "v" + base, [=] {
            int i = 0;
            const WithList scan = [=](va_list list) { return list_stdin(format, list); };
            const int n = call_with(&scan, &i);
            return std::to_string(n) + std::to_string(i);
        });
    }
}
/// The same of newer compilers: __isoc99_ before the name.
template <class C>
void add_new_scans(Rows& rows, const C* format, const std::string& base) {
    const auto of_file = named<int(FILE*, const C*, ...)>(("__isoc99_f" + base).c_str());
    const auto of_list = named<int(FILE*, const C*, va_list)>(("__isoc99_vf" + base).c_str());
    const auto of_stdin = named<int(const C*, ...)>(("__isoc99_" + base).c_str());
    const auto list_stdin = named<int(const C*, va_list)>(("__isoc99_v" + base).c_str());
    add_read(rows, "__isoc99_f" + base, [=](FILE* f) {
        int i = 0, j = 0;
        std::string what = std::to_string(of_file(f, format, &i));
        const WithList scan = [=](va_list list) { return of_list(f, format, list); };
        what += std::to_string(call_with(&scan, &j));
        return what + std::to_string(i) + std::to_string(j);
    });
    add_stdin(rows, "__isoc99_" + base, [=] {
        int i = 0, j = 0;
        std::string what = std::to_string(of_stdin(format, &i));
        const WithList scan = [=](va_list list) { return list_stdin(format, list); };
        what += std::to_string(call_with(&scan, &j));
        return what + std::to_string(i) + std::to_string(j);
    });
}

void add_reads_of_streams(Rows& rows) {
    for (const char* name : {"_IO_getc", "fgetc_unlocked", "getc_unlocked", "__underflow", "fgetwc",
                             "getwc", "fgetwc_unlocked", "getwc_unlocked"}) {
        const auto get = named<int(FILE*)>(name);
        add_read(rows, name, [=](FILE* f) { return std::to_string(get(f)); });
    }
    for (const char* name : {"getchar", "getchar_unlocked"}) {
        const auto get = named<int()>(name);
        add_stdin(rows, name, [=] {
            std::string what;
            for (int i = 0; i < 6; i++) what += std::to_string(get());
            return what;
        });
    }
    const auto getline = named<ssize_t(char**, Size*, FILE*)>("getline");
    add_read(rows, "getline", [=](FILE* f) {
        char* line = nullptr;
        Size n = 0;
        const std::string what = result(getline(&line, &n, f)) + (line ? line : "");
        ::free(line);
        return what;
    });
    const auto fread = named<Size(void*, Size, Size, FILE*)>("fread_unlocked");
    const auto chk = named<Size(void*, Size, Size, Size, FILE*)>("__fread_unlocked_chk");
    add_read(rows, "fread_unlocked", [=](FILE* f) {
        char b[8] = {};
        std::string what = std::to_string(fread(b, 1, 3, f)) + b;
        return what + std::to_string(chk(b, 8, 1, 3, f)) + b;
    });
    add_lines<char>(rows, {"fgets_unlocked"}, false);
    add_lines<char>(rows, {"__fgets_unlocked_chk"}, true);
    add_lines<wchar_t>(rows, {"fgetws_unlocked"}, false);
    add_lines<wchar_t>(rows, {"__fgetws_chk", "__fgetws_unlocked_chk"}, true);
    add_scans<char>(rows, "%d", {"scanf"});
    add_list_scan<char>(rows, "%d", "__vfscanf");
    add_new_scans<char>(rows, "%d", "scanf");
    // From here on standard input is wide.
    add_scans<wchar_t>(rows, L"%d", {"wscanf"});
    add_new_scans<wchar_t>(rows, L"%d", "wscanf");
    for (const char* name : {"getwchar", "getwchar_unlocked"}) {
        const auto get = named<int()>(name);
        add_stdin(rows, name, [=] { return std::to_string(get()); });
    }
}

/// What has been written to a pipe by a stream.
void add_write(Rows& rows, const std::string& name, std::function<int(FILE*)> write) {
    rows.push_back({name + " to a pipe", [=] {
                        const Pair p = make(Ends::kPipe);
                        FILE* f = ::fdopen(::dup(p.b), "w");
                        std::string what = std::to_string(write(f));
                        what += std::to_string(::fclose(f));
                        nonblocking(p.a);
                        char b[32] = {};
                        return what + result(::read(p.a, b, sizeof b - 1)) + b;
                    }});
}
void add_stdout(Rows& rows, const std::string& name, std::function<int()> write) {
    rows.push_back({name + " to the output", [=] { return std::to_string(write()); }});
}

/// printf and its like, of characters C: "%d\n" of 5.
template <class C>
void add_prints(Rows& rows, const C* format, const std::string& base) {
    const auto of_file = named<int(FILE*, const C*, ...)>(("f" + base).c_str());
    const auto vf = named<int(FILE*, const C*, va_list)>(("vf" + base).c_str());
    const auto of_stdout = named<int(const C*, ...)>(base.c_str());
    const auto v = named<int(const C*, va_list)>(("v" + base).c_str());
    add_write(rows, "f" + base, [=](FILE* f) { return of_file(f, format, 5); });
    add_write(rows, "vf" + base, [=](FILE* f) {
        const WithList print = [=](va_list list) { return vf(f, format, list); };
        return call_with(&print, 5);
    });
    add_stdout(rows, base, [=] { return of_stdout(format, 5); });
    add_stdout(rows, "v" + base, [=] {
        const WithList print = [=](va_list list) { return v(format, list); };
        return call_with(&print, 5);
    });
    const std::string end = base + "_chk";
    const auto file_chk = named<int(FILE*, int, const C*, ...)>(("__f" + end).c_str());
    const auto vf_chk = named<int(FILE*, int, const C*, va_list)>(("__vf" + end).c_str());
    const auto chk = named<int(int, const C*, ...)>(("__" + end).c_str());
    const auto v_chk = named<int(int, const C*, va_list)>(("__v" + end).c_str());
    add_write(rows, "__f" + end, [=](FILE* f) {
        const WithList print = [=](va_list list) { return vf_chk(f, 1, format, list); };
        return file_chk(f, 1, format, 5) + call_with(&print, 6);
    });
    add_stdout(rows, "__" + end, [=] {
        const WithList print = [=](va_list list) { return v_chk(1, format, list); };
        return chk(1, format, 5) + call_with(&print, 6);
    });
}

void add_writes_of_streams(Rows& rows) {
    for (const char* name : {"_IO_putc", "fputc_unlocked", "putc_unlocked", "putw", "fputwc",
                             "putwc", "fputwc_unlocked", "putwc_unlocked"}) {
        const auto put = named<int(int, FILE*)>(name);
        add_write(rows, name, [=](FILE* f) { return put('x', f); });
    }
    for (const char* name : {"putchar", "putchar_unlocked", "putwchar", "putwchar_unlocked"}) {
        const auto put = named<int(int)>(name);
        add_stdout(rows, name, [=] { return put('\n'); });
    }
    const auto fwrite = named<Size(const void*, Size, Size, FILE*)>("fwrite_unlocked");
    add_write(rows, "fwrite_unlocked",
              [=](FILE* f) { return static_cast<int>(fwrite("abc", 1, 3, f)); });
    const auto fputs = named<int(const char*, FILE*)>("fputs_unlocked");
    const auto fflush = named<int(FILE*)>("fflush_unlocked");
    add_write(rows, "fputs, fflush_unlocked", [=](FILE* f) { return fputs("ab", f) + fflush(f); });
    for (const char* name : {"fputws", "fputws_unlocked"}) {
        const auto put = named<int(const wchar_t*, FILE*)>(name);
        add_write(rows, name, [=](FILE* f) { return put(L"wide", f); });
    }
    add_prints<char>(rows, "%d\n", "printf");
    add_prints<wchar_t>(rows, L"%d\n", "wprintf");
    const auto vd = named<int(int, const char*, va_list)>("vdprintf");
    const auto vd_chk = named<int(int, int, const char*, va_list)>("__vdprintf_chk");
    const auto d_chk = named<int(int, int, const char*, ...)>("__dprintf_chk");
    add_write(rows, "vdprintf", [=](FILE* f) {
        const int fd = ::fileno(f);
        const WithList print = [=](va_list list) { return vd(fd, "%d", list); };
        const WithList checked = [=](va_list list) { return vd_chk(fd, 1, "%d", list); };
        return call_with(&print, 5) + call_with(&checked, 6) + d_chk(fd, 1, "%d", 7);
    });
    rows.push_back({"perror", [] {
                        const Pair p = make(Ends::kPipe);
                        const Fd before(::dup(2));
                        ::dup2(p.b, 2);
                        (void)::close(-1);
                        std::perror("close");
                        ::dup2(before, 2);
                        char b[64] = {};
                        return result(::read(p.a, b, sizeof b - 1)) + b;
                    }});
}

} // namespace

void add_stdio_forms(Rows& rows) {
    add_reads_of_streams(rows);
    add_writes_of_streams(rows);
}

} // namespace rows
