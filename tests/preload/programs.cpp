// SPDX-License-Identifier: Apache-2.0
//
// The library's symbols, and programs that know nothing of it.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include <dlfcn.h>

#include "preload/hooked.hpp"

namespace {

constexpr const char* kSymbols[] = {
#define GROUP(...)
#define PARK(group, type, name, params, args) #name,
#define SAME(group, type, name, params, target, args) #name,
#define CALL PARK
#define LAST PARK
#define OWNER PARK
#define OWNER_SAME SAME
#include "preload/symbols.def"
};

TEST_CASE("each symbol of the table is exported, and there is one of libc's behind it") {
    void* ours = ::dlopen(hooked::library().c_str(), RTLD_LAZY | RTLD_LOCAL);
    REQUIRE(ours != nullptr);
    void* libc = ::dlopen("libc.so.6", RTLD_LAZY);
    for (const char* name : kSymbols) {
        void* hook = ::dlsym(ours, name);
        if (!hook) std::fprintf(stderr, "not exported: %s\n", name);
        CHECK(hook != nullptr);
        // dlsym does not find what is there in a hidden version only.
        void* real = ::dlsym(libc, name);
        if (!real) real = ::dlvsym(libc, name, "GLIBC_2.2.5");
        if (!real) std::fprintf(stderr, "not in libc: %s\n", name);
        CHECK(real != nullptr);
        CHECK(hook != real);
    }
}

TEST_CASE("the condition variables of 2003 stay libc's") {
    void* ours = ::dlopen(hooked::library().c_str(), RTLD_LAZY | RTLD_LOCAL);
    for (const char* name : {"pthread_cond_wait", "pthread_cond_timedwait", "pthread_cond_signal",
                             "pthread_cond_broadcast"}) {
        Dl_info info{};
        REQUIRE(::dladdr(::dlvsym(ours, name, "GLIBC_2.2.5"), &info) != 0);
        CHECK(std::string(info.dli_fname).find("libbaton") == std::string::npos);
        REQUIRE(::dladdr(::dlvsym(ours, name, "GLIBC_2.3.2"), &info) != 0);
        CHECK(std::string(info.dli_fname).find("libbaton") != std::string::npos);
    }
}

std::string output_of(const std::string& command) {
    FILE* f = ::popen(command.c_str(), "r");
    REQUIRE(f != nullptr);
    std::string all;
    char buf[4096];
    for (std::size_t n; (n = std::fread(buf, 1, sizeof buf, f)) > 0;) all.append(buf, n);
    return all + " status " + std::to_string(::pclose(f));
}

TEST_CASE("programs without goroutines do as without hooks") {
    for (const char* command : {
             "echo hello | tr a-z A-Z | wc -c",
             "sh -c 'sleep 0.01 & wait; exec 3</etc/passwd; read x <&3; echo $x; exec 3>&-; exit "
             "5'",
             "ls /etc | sort | md5sum",
             "grep -r root /etc/passwd /etc/group",
             "tar -cf - /etc/passwd 2>/dev/null | tar -tf -",
             "python3 -c 'import threading, subprocess, socket, time\n"
             "a, b = socket.socketpair()\n"
             "t = threading.Thread(target=lambda: (time.sleep(0.01), a.send(b\"x\")))\n"
             "t.start(); print(b.recv(1)); t.join()\n"
             "print(subprocess.run([\"echo\", \"hi\"], capture_output=True).stdout)\n"
             "c = threading.Condition()\n"
             "print(c.acquire(), c.wait(0.01))'",
             "find /usr/lib/python3 -name '*.py' | head -3 | xargs cat | sha1sum",
         }) {
        const std::string hooked =
            output_of("export LD_PRELOAD=" + hooked::library() + "; " + command);
        CHECK(hooked == output_of(command));
    }
}

} // namespace
