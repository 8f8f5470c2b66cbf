// SPDX-License-Identifier: Apache-2.0
//
// Calls that no other row makes: signals, queues, names, children, locks by their other names, and
// the wide and unlocked streams.
#include <atomic>
#include <csignal>
#include <ctime>
#include <cwchar>

#include <grp.h>
#include <mqueue.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <pwd.h>
#include <resolv.h>
#include <shadow.h>
#include <spawn.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <threads.h>

#include "preload/rows/named.hpp"

namespace rows {

namespace {

using Size = std::size_t;
constexpr timespec kSoon{0, 10'000'000};

timespec soon() {
    timespec t;
    ::clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += t.tv_nsec >= 980'000'000;
    t.tv_nsec = (t.tv_nsec + 20'000'000) % 1'000'000'000;
    return t;
}

// ---- signals ----

/// Sends this thread a signal, again and again until the end of the scope.
class Signals {
public:
    explicit Signals(int sig)
        : thread_([this, sig, to = ::pthread_self()] {
              while (!done_) {
                  std::this_thread::sleep_for(5ms);
                  ::pthread_kill(to, sig);
              }
          }) {}
    ~Signals() {
        done_ = true;
        thread_.join();
    }
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;

private:
    std::atomic<bool> done_{false};
    std::thread thread_;
};

void add_signals(Rows& rows) {
    // The handler stays: one more may be on its way.
    const auto row = [&](const char* name, std::function<std::string()> wait) {
        rows.push_back({name, [=] {
                            std::signal(SIGUSR1, [](int) {});
                            const Signals signals(SIGUSR1);
                            return wait();
                        }});
    };
    row("pause", [] { return result(::pause()); });
    for (const char* name : {"sigsuspend", "__sigsuspend"}) {
        const auto f = named<int(const sigset_t*)>(name);
        row(name, [=] {
            sigset_t none;
            ::sigemptyset(&none);
            return result(f(&none));
        });
    }
    const auto by_mask = named<int(int)>("sigpause"), by_number = named<int(int)>("__xpg_sigpause");
    row("sigpause", [=] { return result(by_mask(0)); });
    row("__xpg_sigpause", [=] { return result(by_number(SIGUSR1)) + result(by_number(99)); });
    const auto blocked = [&](const char* name, std::function<std::string(const sigset_t&)> wait) {
        rows.push_back({name, [=] {
                            sigset_t set, old;
                            ::sigemptyset(&set);
                            ::sigaddset(&set, SIGUSR2);
                            std::signal(SIGUSR2, [](int) {});
                            ::pthread_sigmask(SIG_BLOCK, &set, &old);
                            std::string what;
                            {
                                const Signals signals(SIGUSR2);
                                what = wait(set);
                            }
                            ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
                            return what;
                        }});
    };
    blocked("sigwait", [](const sigset_t& set) {
        int sig = 0;
        return std::to_string(::sigwait(&set, &sig)) + std::to_string(sig);
    });
    blocked("sigwaitinfo", [](const sigset_t& set) {
        siginfo_t info{};
        return result(::sigwaitinfo(&set, &info)) + std::to_string(info.si_code);
    });
}

// ---- queues ----

void add_queues(Rows& rows) {
    rows.push_back({"mq_*", [] {
                        const std::string name = "/baton-rows-" + std::to_string(::getpid());
                        mq_attr attr{};
                        attr.mq_maxmsg = 1;
                        attr.mq_msgsize = 8;
                        const mqd_t q = ::mq_open(name.c_str(), O_CREAT | O_RDWR, 0600, &attr);
                        ::mq_unlink(name.c_str());
                        char b[8] = {};
                        unsigned priority = 0;
                        timespec t = soon();
                        std::string what = result(::mq_timedreceive(q, b, 8, &priority, &t));
                        {
                            Later send([q] { ::mq_send(q, "abc", 3, 7); });
                            what += result(::mq_receive(q, b, 8, &priority)) + b;
                        }
                        what += std::to_string(priority) + result(::mq_send(q, "d", 1, 0));
                        t = soon();
                        what += result(::mq_timedsend(q, "e", 1, 0, &t));
                        what += result(::mq_receive(q, b, 2, nullptr));
                        ::mq_close(q);
                        return what + result(::mq_send(q, "d", 1, 0));
                    }});
    struct Message {
        long type = 3;
        char text[4] = "abc";
    };
    rows.push_back({"msgsnd, msgrcv", [] {
                        const int q = ::msgget(IPC_PRIVATE, 0600);
                        Message got;
                        std::string what = result(::msgrcv(q, &got, 4, 3, IPC_NOWAIT));
                        {
                            Later send([q] {
                                const Message m;
                                ::msgsnd(q, &m, 4, 0);
                            });
                            what += result(::msgrcv(q, &got, 4, 3, 0)) + got.text;
                        }
                        ::msgctl(q, IPC_RMID, nullptr);
                        return what + result(::msgsnd(q, &got, 4, 0));
                    }});
    rows.push_back({"semop, semtimedop", [] {
                        const int set = ::semget(IPC_PRIVATE, 1, 0600);
                        sembuf down{0, -1, 0};
                        std::string what = result(::semtimedop(set, &down, 1, &kSoon));
                        {
                            Later post([set] {
                                sembuf up{0, 1, 0};
                                ::semop(set, &up, 1);
                            });
                            what += result(::semop(set, &down, 1));
                        }
                        ::semctl(set, 0, IPC_RMID);
                        return what + result(::semop(set, &down, 1));
                    }});
}

// ---- children ----

void add_children(Rows& rows) {
    const auto row = [&](const char* name, std::function<pid_t(pid_t, int*)> wait) {
        rows.push_back({name, [=] {
                            const pid_t pid = ::fork();
                            if (pid == 0) ::_exit(3);
                            int status = 0;
                            const bool it = wait(pid, &status) == pid;
                            return std::to_string(it) + std::to_string(status) +
                                   result(wait(pid, &status));
                        }});
    };
    const auto wait = named<pid_t(int*)>("__wait");
    const auto waitpid = named<pid_t(pid_t, int*, int)>("__waitpid");
    row("__wait", [=](pid_t, int* status) { return wait(status); });
    row("__waitpid", [=](pid_t pid, int* status) { return waitpid(pid, status, 0); });
    row("wait3", [](pid_t, int* status) { return ::wait3(status, 0, nullptr); });
    for (const bool by_name : {true, false}) {
        const auto spawn = by_name ? ::posix_spawnp : ::posix_spawn;
        rows.push_back({by_name ? "posix_spawnp" : "posix_spawn", [=] {
                            const std::string no = "/nonexistent";
                            char* args[] = {const_cast<char*>("sh"), const_cast<char*>("-c"),
                                            const_cast<char*>("exit 7"), nullptr};
                            pid_t pid = -1;
                            int status = 0;
                            std::string what = std::to_string(
                                spawn(&pid, no.c_str(), nullptr, nullptr, args, environ));
                            what += std::to_string(spawn(&pid, by_name ? "sh" : "/bin/sh", nullptr,
                                                         nullptr, args, environ));
                            what += std::to_string(::waitpid(pid, &status, 0) == pid);
                            return what + std::to_string(WEXITSTATUS(status));
                        }});
    }
    const auto nanosleep = named<int(const timespec*, timespec*)>("__nanosleep");
    rows.push_back({"__nanosleep", [=] {
                        const auto start = Clock::now();
                        return result(nanosleep(&kSoon, nullptr)) + timing(start, 10ms);
                    }});
}

// ---- names ----

/// `name`, and `name`_r, for what is there and for what is not.
template <class T, class... Key>
void add_lookup(Rows& rows, const char* name, std::string (*show)(const T&), Key... key) {
    const auto by = named<T*(Key...)>(name);
    const std::string reentrant = std::string(name) + "_r";
    const auto by_r = named<int(Key..., T*, char*, Size, T**)>(reentrant.c_str());
    rows.push_back({reentrant, [=] {
                        T one{};
                        T* found = nullptr;
                        std::vector<char> buf(1 << 16);
                        std::string what =
                            std::to_string(by_r(key..., &one, buf.data(), 1, &found));
                        what += std::to_string(by_r(key..., &one, buf.data(), buf.size(), &found));
                        what += found ? show(*found) : " none";
                        const T* again = by(key...);
                        return what + (again ? show(*again) : " none");
                    }});
}

void add_databases(Rows& rows) {
    const auto user = [](const passwd& p) { return p.pw_name + std::to_string(p.pw_uid); };
    const auto crowd = [](const struct group& g) { return g.gr_name + std::to_string(g.gr_gid); };
    const auto service = [](const servent& s) { return s.s_name + std::to_string(s.s_port); };
    const auto protocol = [](const protoent& p) { return p.p_name + std::to_string(p.p_proto); };
    for (const char* name : {"root", "no-such-name"}) {
        add_lookup<passwd, const char*>(rows, "getpwnam", user, name);
        add_lookup<struct group, const char*>(rows, "getgrnam", crowd, name);
    }
    add_lookup<passwd, uid_t>(rows, "getpwuid", user, 0);
    add_lookup<struct group, gid_t>(rows, "getgrgid", crowd, 0);
    add_lookup<servent, const char*, const char*>(rows, "getservbyname", service, "http", "tcp");
    add_lookup<servent, int, const char*>(rows, "getservbyport", service, htons(80), "tcp");
    add_lookup<protoent, const char*>(rows, "getprotobyname", protocol, "tcp");
    add_lookup<protoent, int>(rows, "getprotobynumber", protocol, 17);
    const auto shadow = [](const spwd& s) { return std::string(s.sp_namp); };
    add_lookup<spwd, const char*>(rows, "getspnam", shadow, "root");
    rows.push_back({"getpwent", [] {
                        std::string what;
                        ::setpwent();
                        while (const passwd* p = ::getpwent()) what += p->pw_name;
                        passwd one{};
                        passwd* found = nullptr;
                        char b[4096];
                        ::setpwent();
                        const int rc = ::getpwent_r(&one, b, sizeof b, &found);
                        ::endpwent();
                        return what + std::to_string(rc) + (found ? found->pw_dir : "none");
                    }});
    rows.push_back({"getgrent", [] {
                        std::string what;
                        ::setgrent();
                        while (const group* g = ::getgrent()) what += g->gr_name;
                        group one{};
                        group* found = nullptr;
                        char b[4096];
                        ::setgrent();
                        const int rc = ::getgrent_r(&one, b, sizeof b, &found);
                        ::endgrent();
                        return what + std::to_string(rc) + (found ? found->gr_name : "none");
                    }});
    rows.push_back({"getnetby*", [] {
                        netent one{};
                        netent* found = nullptr;
                        int err = 0;
                        char b[4096];
                        std::string what = std::to_string(
                            ::getnetbyname_r("no-such", &one, b, sizeof b, &found, &err) != 0);
                        what += std::to_string(::getnetbyaddr_r(0x7f0000fe, AF_INET, &one, b,
                                                                sizeof b, &found, &err) != 0);
                        what += ::getnetbyname("no-such") ? "one" : "none";
                        return what + (::getnetbyaddr(0x7f0000fe, AF_INET) ? "one" : "none");
                    }});
    rows.push_back({"initgroups", [] { // that change nothing, or may not
                        gid_t before[64];
                        const int n = ::getgroups(64, before);
                        const std::string what = result(::initgroups("root", 0));
                        ::setgroups(static_cast<Size>(n), before);
                        return what;
                    }});
    rows.push_back({"getgrouplist", [] {
                        gid_t some[32];
                        int n = 32, none = 0;
                        std::string what = std::to_string(::getgrouplist("root", 0, some, &n));
                        what += std::to_string(::getgrouplist("root", 0, some, &none));
                        return what + std::to_string(n) + std::to_string(none);
                    }});
}

void add_hosts(Rows& rows) {
    static constexpr in_addr kLoopback{0x0100007f};
    rows.push_back({"getnameinfo", [] {
                        sockaddr_in at{};
                        at.sin_family = AF_INET;
                        at.sin_addr = kLoopback;
                        at.sin_port = htons(80);
                        char host[64] = {}, service[64] = {};
                        const auto* to = reinterpret_cast<const sockaddr*>(&at);
                        const int rc = ::getnameinfo(to, sizeof at, host, 64, service, 64,
                                                     NI_NUMERICHOST | NI_NUMERICSERV);
                        return std::to_string(rc) + host + service +
                               std::to_string(::getnameinfo(to, 1, host, 64, service, 64, 0));
                    }});
    rows.push_back(
        {"gethostby*_r", [] {
             hostent one{};
             hostent* found = nullptr;
             int err = 0;
             char b[4096];
             std::string what;
             const auto note = [&](int rc) {
                 what += std::to_string(rc) + (found ? found->h_name : "none");
             };
             note(::gethostbyname_r("127.0.0.1", &one, b, sizeof b, &found, &err));
             note(::gethostbyname2_r("::1", AF_INET6, &one, b, sizeof b, &found, &err));
             note(::gethostbyaddr_r(&kLoopback, 4, AF_INET, &one, b, sizeof b, &found, &err));
             const hostent* h = ::gethostbyname2("::1", AF_INET6);
             what += h ? h->h_name : "none";
             h = ::gethostbyaddr(&kLoopback, 4, AF_INET);
             return what + (h ? h->h_name : "none");
         }});
}

/// No query goes out: the name is too long to be asked for, a query too short to be one.
void add_queries(Rows& rows) {
    using Bytes = unsigned char;
    const std::string name(400, 'x');
    for (const char* f : {"res_query", "res_search", "__res_query", "__res_search"}) {
        const auto query = named<int(const char*, int, int, Bytes*, int)>(f);
        rows.push_back({f, [=] {
                            Bytes b[64];
                            return std::to_string(query(name.c_str(), 1, 1, b, 64));
                        }});
    }
    for (const char* f : {"res_nquery", "res_nsearch"}) {
        const auto query = named<int(res_state, const char*, int, int, Bytes*, int)>(f);
        rows.push_back({f, [=] {
                            Bytes b[64];
                            (void)::res_init();
                            return std::to_string(query(&_res, name.c_str(), 1, 1, b, 64));
                        }});
    }
    for (const char* f : {"res_querydomain", "__res_querydomain"}) {
        const auto query = named<int(const char*, const char*, int, int, Bytes*, int)>(f);
        rows.push_back({f, [=] {
                            Bytes b[64];
                            return std::to_string(query(name.c_str(), "y", 1, 1, b, 64));
                        }});
    }
    const auto ndomain =
        named<int(res_state, const char*, const char*, int, int, Bytes*, int)>("res_nquerydomain");
    rows.push_back({"res_nquerydomain", [=] {
                        Bytes b[64];
                        (void)::res_init();
                        return std::to_string(ndomain(&_res, name.c_str(), "y", 1, 1, b, 64));
                    }});
    const auto nsend = named<int(res_state, const Bytes*, int, Bytes*, int)>("res_nsend");
    for (const char* f : {"res_send", "__res_send"}) {
        const auto send = named<int(const Bytes*, int, Bytes*, int)>(f);
        rows.push_back({f, [=] {
                            const Bytes q[8] = {};
                            Bytes b[64];
                            (void)::res_init();
                            return result(send(q, 8, b, 4)) + result(nsend(&_res, q, 8, b, 4));
                        }});
    }
    rows.push_back({"getaddrinfo_a, gai_suspend", [] {
                        gaicb one{};
                        addrinfo hints{};
                        hints.ai_flags = AI_NUMERICHOST;
                        one.ar_name = "127.0.0.1";
                        one.ar_request = &hints;
                        gaicb* list[] = {&one};
                        std::string what =
                            std::to_string(::getaddrinfo_a(GAI_WAIT, list, 1, nullptr));
                        what += std::to_string(::gai_error(&one));
                        const gaicb* const waits[] = {&one};
                        return what + std::to_string(::gai_suspend(waits, 1, nullptr));
                    }});
}

// ---- locks ----

template <class Lock>
std::string held_in(Lock& lock, int (*take)(Lock*), int (*give)(Lock*), int (*attempt)(Lock*)) {
    std::string what = std::to_string(take(&lock));
    std::thread([&] { what += std::to_string(attempt(&lock)); }).join();
    what += std::to_string(give(&lock)) + std::to_string(attempt(&lock));
    return what + std::to_string(give(&lock));
}

void add_lock_forms(Rows& rows) {
    using M = pthread_mutex_t;
    using L = pthread_rwlock_t;
    const auto lock = named<int(M*)>("__pthread_mutex_lock"),
               trylock = named<int(M*)>("__pthread_mutex_trylock"),
               unlock = named<int(M*)>("__pthread_mutex_unlock");
    rows.push_back({"__pthread_mutex_*", [=] {
                        M m = PTHREAD_MUTEX_INITIALIZER;
                        return held_in<M>(m, lock, unlock, trylock);
                    }});
    const auto read = named<int(L*)>("__pthread_rwlock_rdlock"),
               write = named<int(L*)>("__pthread_rwlock_wrlock"),
               trywrite = named<int(L*)>("__pthread_rwlock_trywrlock"),
               give = named<int(L*)>("__pthread_rwlock_unlock");
    for (const bool reads : {true, false})
        rows.push_back({reads ? "__pthread_rwlock_rdlock" : "__pthread_rwlock_wrlock", [=] {
                            L l = PTHREAD_RWLOCK_INITIALIZER;
                            return held_in<L>(l, reads ? read : write, give, trywrite);
                        }});
    const auto clocklock = named<int(M*, clockid_t, const timespec*)>("pthread_mutex_clocklock");
    const auto clockread = named<int(L*, clockid_t, const timespec*)>("pthread_rwlock_clockrdlock");
    rows.push_back({"clocklock, clockrdlock", [=] {
                        M m = PTHREAD_MUTEX_INITIALIZER;
                        L l = PTHREAD_RWLOCK_INITIALIZER;
                        ::pthread_mutex_lock(&m);
                        ::pthread_rwlock_wrlock(&l);
                        std::string what;
                        std::thread([&] {
                            const timespec t = soon();
                            what = std::to_string(clocklock(&m, CLOCK_REALTIME, &t)) +
                                   std::to_string(clockread(&l, CLOCK_REALTIME, &t)) +
                                   std::to_string(clockread(&l, 99, &t));
                        }).join();
                        ::pthread_mutex_unlock(&m);
                        ::pthread_rwlock_unlock(&l);
                        const timespec t = soon();
                        what += std::to_string(clocklock(&m, CLOCK_REALTIME, &t));
                        return what + std::to_string(clockread(&l, CLOCK_REALTIME, &t));
                    }});
    const auto once = named<int(pthread_once_t*, void (*)())>("__pthread_once");
    rows.push_back({"__pthread_once", [=] {
                        static int n;
                        n = 0;
                        pthread_once_t o = PTHREAD_ONCE_INIT;
                        const auto init = [] { n++; };
                        return std::to_string(once(&o, init) + once(&o, init)) + std::to_string(n);
                    }});
    rows.push_back({"cnd_signal", [] {
                        mtx_t m;
                        cnd_t c;
                        ::mtx_init(&m, mtx_plain);
                        ::cnd_init(&c);
                        bool set = false;
                        Later signal([&] {
                            ::mtx_lock(&m);
                            set = true;
                            ::mtx_unlock(&m);
                            ::cnd_signal(&c);
                        });
                        ::mtx_lock(&m);
                        int rc = 0;
                        while (!set) rc = ::cnd_wait(&c, &m);
                        ::mtx_unlock(&m);
                        return std::to_string(rc);
                    }});
}

} // namespace

void add_rest(Rows& rows) {
    add_signals(rows);
    add_queues(rows);
    add_children(rows);
    add_databases(rows);
    add_hosts(rows);
    add_queries(rows);
    add_lock_forms(rows);
}

} // namespace rows
