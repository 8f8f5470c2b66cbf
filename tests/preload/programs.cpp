// SPDX-License-Identifier: Apache-2.0
//
// The library's symbols, and programs that know nothing of it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include <dlfcn.h>

#include "preload/hooked.hpp"

namespace {

constexpr const char* kSymbols[] = {
#define PARK(group, type, name, params, args) #name,
#define SAME(group, type, name, params, target, args) #name,
#define FORMATS(group, type, name, vname, params, last, args) #name,
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

/// The same output and status with hooks as without.
void check_alike(const std::string& command) {
    INFO(command);
    const std::string plain = output_of(command);
    CHECK(output_of("export LD_PRELOAD=" + hooked::library() + "; " + command) == plain);
}

// What a program can be linked with: but for the names that stdio's own macros had until 2018.
TEST_CASE("what libc calls by two names is hooked by both") {
    Dl_info libc{};
    REQUIRE(::dladdr(::dlsym(RTLD_NEXT, "getppid"), &libc) != 0);
    std::istringstream all(output_of(std::string("nm -D --defined-only ") + libc.dli_fname));
    std::map<std::string, std::set<std::string>> names; // by address
    for (std::string at, type, name; all >> at >> type >> name;) {
        const std::size_t version = name.find("@@");
        if (version != name.npos && name.find("@@GLIBC_PRIVATE") == name.npos &&
            !name.starts_with("_IO_"))
            names[at].insert(name.substr(0, version));
    }
    const std::set<std::string> hooked(std::begin(kSymbols), std::end(kSymbols));
    int functions = 0;
    for (const auto& [at, same] : names) {
        if (std::none_of(same.begin(), same.end(), [&](auto& n) { return hooked.contains(n); }))
            continue;
        functions++;
        for (const std::string& name : same) {
            INFO(name);
            CHECK(hooked.contains(name));
        }
    }
    CHECK(functions > 200);
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
         })
        check_alike(command);
}

// Reads past its buffer if it is given an argument.
constexpr const char* kSanitized = R"(
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int fds[2];
static void* work(void* arg) { usleep(1000); return write(fds[1], "x", 1) == 1 ? arg : NULL; }
int main(int argc, char** argv) {
    pthread_t t;
    char* b = malloc(4);
    if (pipe(fds) != 0 || pthread_create(&t, NULL, work, b) != 0) return 3;
    struct pollfd p = {fds[0], POLLIN, 0};
    int n = poll(&p, 1, -1);
    n += read(fds[0], b + (argc - 1) * 4, 1);
    pthread_join(t, NULL);
    printf("%d %c %s\n", n, *b, argv[0] ? "end" : "");
    free(b);
    return n;
}
)";

TEST_CASE("AddressSanitizer finds the same with hooks, preloaded and linked in") {
    char dir[] = "/tmp/baton-asan-XXXXXX";
    REQUIRE(::mkdtemp(dir) != nullptr);
    const std::string d = dir, library = hooked::library();
    FILE* source = std::fopen((d + "/p.c").c_str(), "w");
    REQUIRE(source != nullptr);
    std::fputs(kSanitized, source);
    std::fclose(source);
    const std::string cc = "cd " + d + " && cc -fsanitize=address -pthread p.c ";
    CHECK(output_of(cc + "-o plain && " + cc + "-o linked -Wl,--no-as-needed " + library +
                    " -Wl,-rpath,$(dirname " + library + ") 2>&1") == " status 0");
    const std::string asan = "$(cc -print-file-name=libasan.so)";
    for (const std::string& run :
         {"LD_PRELOAD=" + asan + " ./plain", "LD_PRELOAD=" + asan + ":" + library + " ./plain",
          std::string("./linked")}) {
        INFO(run);
        const std::string in = "cd " + d + " && ";
        CHECK(output_of(in + run) == "2 x end\n status 512");
        const std::string found = output_of(in + run + " bad 2>&1");
        CHECK(found.find("heap-buffer-overflow") != std::string::npos);
    }
    (void)output_of("rm -rf " + d);
}

/// Of packages that are not everywhere.
constexpr struct {
    const char* program;
    const char* command;
} kOthers[] = {
    {"sqlite3", "sqlite3 :memory: 'create table t(i); with recursive n(i) as (select 1 union all "
                "select i + 1 from n where i < 100000) insert into t select i from n; "
                "select count(*), sum(i) from t'"},
    {"git", "d=$(mktemp -d); cd $d; export HOME=$d GIT_AUTHOR_DATE='1000000000 +0000'; "
            "export GIT_COMMITTER_DATE=\"$GIT_AUTHOR_DATE\"; "
            "git config --global user.email a@b; git config --global user.name a; git init -q .; "
            "seq 1000 >f; git add f; git commit -qm one; seq 500 >f; git commit -qam two; "
            "git gc -q; git log --stat --format=%H; git fsck 2>&1; rm -rf $d"},
    {"curl", "seq 100000 >/tmp/baton-curl-$PPID; curl -s file:///tmp/baton-curl-$PPID | md5sum; "
             "rm /tmp/baton-curl-$PPID; curl -s http://127.0.0.1:1/"},
    {"perl",
     "perl -e 'pipe R, W; if (!fork) { select undef, undef, undef, 0.01; "
     "print W \"x\" x 100000; exit 3 } close W; local $/; print length <R>; wait; print $? >> 8; "
     "print select undef, undef, undef, 0.01'"},
    {"openssl", "seq 100000 | openssl enc -aes-256-ctr -pass pass:x -nosalt -pbkdf2 | "
                "openssl dgst -sha256"},
    {"node", "node -e 'const n = require(\"net\"); const s = n.createServer(c => c.pipe(c)); "
             "s.listen(0, () => { const c = n.connect(s.address().port); c.write(\"hello\"); "
             "c.on(\"data\", d => { console.log(String(d)); c.end(); s.close() }) })'"},
    {"redis-server",
     "d=$(mktemp -d); redis-server --port 0 --unixsocket $d/s --save '' >$d/log & "
     "for i in $(seq 100); do [ -S $d/s ] && break; sleep 0.05; done; "
     "redis-cli -s $d/s set a 1; for i in 1 2 3; do redis-cli -s $d/s incr a; done; "
     "redis-benchmark -s $d/s -q -t set,get -n 2000 -c 20 | grep -c requests; "
     "redis-cli -s $d/s shutdown; wait; rm -rf $d"},
};

TEST_CASE("programs of others do as without hooks") {
    for (const auto& [program, command] : kOthers) {
        if (std::system(("command -v " + std::string(program) + " >/dev/null").c_str()) != 0)
            std::printf("skip: %s is not installed\n", program);
        else
            check_alike(command);
    }
}

} // namespace
