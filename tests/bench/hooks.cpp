// SPDX-License-Identifier: Apache-2.0
//
// hooks: what a call costs more through libbaton_preload.so than by libc alone, for calls that do
// not wait. The program is linked with the library, so a call by name goes through it, and one by
// the address that libc itself gives does not.
//
// on=off        no runtime has started: the hook is a look and a jump
// on=thread     on a plain thread beside goroutines
// on=goroutine  on a goroutine
// extra_ns      the difference; native_ns what libc takes
//
// Both are timed in turns within one process, and each is the fastest of its short runs: the
// difference of a few nanoseconds would else drown.
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"

namespace {

template <class F>
F* native(const char* name) {
    static void* libc = ::dlopen("libc.so.6", RTLD_LAZY);
    return reinterpret_cast<F*>(::dlsym(libc, name));
}

struct Times {
    double native_ns = 1e9;
    double hooked_ns = 1e9;
};

template <class Op>
double ns_each(Op op, int n) {
    const std::int64_t start = bench::now_ns();
    for (int i = 0; i < n; i++) op();
    return static_cast<double>(bench::now_ns() - start) / n;
}

template <class A, class B>
Times in_turns(long ms, A native_op, B hooked_op) {
    constexpr int kOps = 200;
    Times t;
    const std::int64_t end = bench::now_ns() + ms * 1'000'000;
    while (bench::now_ns() < end) {
        t.native_ns = std::min(t.native_ns, ns_each(native_op, kOps));
        t.hooked_ns = std::min(t.hooked_ns, ns_each(hooked_op, kOps));
    }
    return t;
}

// The pointers are volatile, lest the compiler know whom it calls.
Times measure(const std::string& op, long ms) {
    if (op == "mutex") {
        auto* volatile lock = native<decltype(::pthread_mutex_lock)>("pthread_mutex_lock");
        auto* volatile unlock = native<decltype(::pthread_mutex_unlock)>("pthread_mutex_unlock");
        pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
        return in_turns(
            ms, [&] { lock(&m), unlock(&m); },
            [&] { ::pthread_mutex_lock(&m), ::pthread_mutex_unlock(&m); });
    }
    if (op == "sem") {
        auto* volatile post = native<decltype(::sem_post)>("sem_post");
        auto* volatile wait = native<decltype(::sem_wait)>("sem_wait");
        sem_t s;
        ::sem_init(&s, 0, 0);
        return in_turns(
            ms, [&] { post(&s), wait(&s); }, [&] { ::sem_post(&s), ::sem_wait(&s); });
    }
    if (op == "cond_signal") {
        auto* volatile f = native<decltype(::pthread_cond_signal)>("pthread_cond_signal");
        pthread_cond_t c = PTHREAD_COND_INITIALIZER;
        return in_turns(
            ms, [&] { f(&c); }, [&] { ::pthread_cond_signal(&c); });
    }
    if (op == "nanosleep") { // refused before the kernel by neither: a system call
        auto* volatile f = native<decltype(::nanosleep)>("nanosleep");
        const timespec bad{0, -1};
        return in_turns(
            ms, [&] { f(&bad, nullptr); }, [&] { ::nanosleep(&bad, nullptr); });
    }
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) throw bench::Failure("no socketpair");
    const int fd = fds[0];
    char b[8] = {};
    if (op == "read") { // and the write that it needs
        auto* volatile r = native<decltype(::read)>("read");
        auto* volatile w = native<decltype(::write)>("write");
        return in_turns(
            ms, [&] { w(fds[1], b, 8), r(fd, b, 8); },
            [&] { (void)!::write(fds[1], b, 8), (void)!::read(fd, b, 8); });
    }
    if (op == "recv") {
        auto* volatile r = native<decltype(::recv)>("recv");
        return in_turns(
            ms, [&] { r(fd, b, 8, MSG_DONTWAIT); }, [&] { ::recv(fd, b, 8, MSG_DONTWAIT); });
    }
    if (op == "poll") {
        auto* volatile p = native<decltype(::poll)>("poll");
        pollfd pfd{fd, POLLIN, 0};
        return in_turns(
            ms, [&] { p(&pfd, 1, 0); }, [&] { ::poll(&pfd, 1, 0); });
    }
    if (op == "pread") {
        auto* volatile p = native<decltype(::pread)>("pread");
        return in_turns(
            ms, [&] { p(-1, b, 8, 0); }, [&] { (void)!::pread(-1, b, 8, 0); });
    }
    if (op == "connect") { // refused at once
        auto* volatile f = native<decltype(::connect)>("connect");
        return in_turns(
            ms, [&] { f(-1, nullptr, 0); }, [&] { (void)::connect(-1, nullptr, 0); });
    }
    if (op == "waitpid") { // no such child
        auto* volatile f = native<decltype(::waitpid)>("waitpid");
        return in_turns(
            ms, [&] { f(1, nullptr, 0); }, [&] { (void)::waitpid(1, nullptr, 0); });
    }
    if (op == "syscall") {
        auto* volatile f = native<decltype(::syscall)>("syscall");
        return in_turns(
            ms, [&] { f(SYS_getppid); }, [&] { ::syscall(SYS_getppid); });
    }
    if (op == "fsync") {
        auto* volatile f = native<decltype(::fsync)>("fsync");
        return in_turns(
            ms, [&] { f(-1); }, [&] { (void)::fsync(-1); });
    }
    if (op == "stat") {
        auto* volatile f = native<int(const char*, struct stat*)>("stat");
        struct stat st;
        return in_turns(
            ms, [&] { f("/", &st); }, [&] { ::stat("/", &st); });
    }
    if (op == "pthread_once") {
        auto* volatile f = native<decltype(::pthread_once)>("pthread_once");
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        static void (*const volatile init)() = [] {};
        return in_turns(
            ms, [&] { f(&once, init); }, [&] { ::pthread_once(&once, init); });
    }
    if (op == "barrier") {
        auto* volatile f = native<decltype(::pthread_barrier_wait)>("pthread_barrier_wait");
        pthread_barrier_t barrier;
        ::pthread_barrier_init(&barrier, nullptr, 1);
        return in_turns(
            ms, [&] { f(&barrier); }, [&] { ::pthread_barrier_wait(&barrier); });
    }
    if (op == "putc") {
        auto* volatile f = native<decltype(::putc)>("putc");
        FILE* null = std::fopen("/dev/null", "w");
        return in_turns(
            ms, [&] { f('x', null); }, [&] { ::putc('x', null); });
    }
    if (op == "fprintf") {
        auto* volatile f = native<int(FILE*, const char*, ...)>("fprintf");
        FILE* null = std::fopen("/dev/null", "w");
        return in_turns(
            ms, [&] { f(null, "%d\n", 5); }, [&] { std::fprintf(null, "%d\n", 5); });
    }
    throw bench::Failure("no such op: " + op);
}

void side(const bench::KeyValues& args) {
    const std::string on = args.text("on"), op = args.text("op");
    Times t;
    const auto work = [&] { t = measure(op, args.number("ms")); };
    if (on == "goroutine") {
        baton::run(work);
    } else {
        if (on == "thread") baton::run([] {});
        std::thread(work).join();
    }
    if (on != "off" && !baton::hooks_active()) throw bench::Failure("there are no hooks");
    bench::print_figure("extra_ns", t.hooked_ns - t.native_ns);
    bench::print_figure("native_ns", t.native_ns);
}

void plan(bench::Plan& plan) {
    const std::string ms = plan.options().quick ? "ms=50" : "ms=300";
    for (const char* op :
         {"mutex", "sem", "cond_signal", "nanosleep", "read", "recv", "poll", "pread", "connect",
          "waitpid", "fsync", "stat", "pthread_once", "barrier", "putc", "fprintf", "syscall"})
        for (const char* on : {"off", "thread", "goroutine"})
            plan.add("baton", {{"op", op}, {"on", on}}, {ms});
}

} // namespace

int main(int argc, char** argv) { return bench::run({"hooks", 5, 3, plan, side}, argc, argv); }
