// SPDX-License-Identifier: Apache-2.0
//
// Starting the runtime: environment, records and probe, Ps, the first Ms, sysmon, understudies.
//
// Started once, by the first call that needs it, on whatever thread that is. A wrong environment
// value costs one line and its default; only a kernel that refuses the first thread or the
// netpoller is an error, which the caller gets.
#include <csignal>
#include <pthread.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>

#include "assist/asleep.hpp"
#include "baton/run.hpp"
#include "kernel/clock.hpp"
#include "kernel/cpus.hpp"
#include "kernel/features.hpp"
#include "kernel/futex.hpp"
#include "kernel/sched_class.hpp"
#include "kernel/sleeper.hpp"
#include "runtime/crash.hpp"
#include "runtime/debugvars.hpp"
#include "runtime/dump.hpp"
#include "runtime/file_calls.hpp"
#include "runtime/netpoll.hpp"
#include "runtime/preempt.hpp"
#include "runtime/sched.hpp"
#include "runtime/signals.hpp"
#include "runtime/stack.hpp"
#include "runtime/start.hpp"

namespace baton::rt {

constinit Sched sched;

namespace {

constexpr int kReserve = 3; // while they block, the template thread makes more

std::atomic<bool> is_started{false};
std::mutex start_lock; // before all ranks: a start takes locks, and who calls for it holds none
int procs_wanted = 0;  // from set_max_procs before the start
std::atomic<std::uint32_t> helper_gate{0}; // the helpers' threads are made first, and wait here
bool sysmon_made = false;                  // perhaps by a start that failed later
bool template_made = false;                // as above

// Of the first start, too. Not a plain variable: that start may come before its constructor.
std::string& why_no_probe() {
    static std::string why;
    return why;
}

const char* env(const char* name) {
    const char* v = std::getenv(name);
    return v && *v ? v : nullptr;
}

// A whole number with an optional k, m or g; -1 if it is none.
long long parse_number(const char* text) {
    char* end;
    errno = 0;
    const long long n = std::strtoll(text, &end, 10);
    if (errno != 0 || end == text || n < 0) return -1;
    int shift = 0;
    if (*end == 'k' || *end == 'K') shift = 10;
    if (*end == 'm' || *end == 'M') shift = 20;
    if (*end == 'g' || *end == 'G') shift = 30;
    if (shift) end++;
    return *end == '\0' && n < (1LL << 32) ? n << shift : -1;
}

int read_procs(bool& fixed) {
    const int machine = std::min(kernel::default_procs(), static_cast<int>(kMaxP));
    const char* v = env("BATON_MAXPROCS");
    if (!v) return machine;
    const long long n = parse_number(v);
    fixed = n >= 1 && n <= static_cast<long long>(kMaxP);
    if (fixed) return static_cast<int>(n);
    warn("BATON_MAXPROCS=%s: not a number from 1 to %u; using %d", v, kMaxP, machine);
    return machine;
}

std::size_t read_stack() {
    constexpr std::size_t kDefault = 64 << 10;
    const char* v = env("BATON_STACK");
    if (!v) return kDefault;
    const long long n = parse_number(v);
    if (n >= static_cast<long long>(kMinStack) && n <= (1LL << 30))
        return static_cast<std::size_t>(n);
    warn("BATON_STACK=%s: not a size from 16k to 1g; using 64k", v);
    return kDefault;
}

int read_assist() {
    const char* v = env("BATON_ASSIST");
    if (!v) return -1;
    for (Assist a : {Assist::kProbe, Assist::kUnderstudy, Assist::kSysmon}) {
        if (std::strcmp(v, to_string(a)) == 0) return static_cast<int>(a);
    }
    warn("BATON_ASSIST=%s: not one of probe, understudy, sysmon; using the best there is", v);
    return -1;
}

struct ThreadLimit {
    std::uint32_t threads;
    bool crash;
};

// "N" or "N,crash".
ThreadLimit read_threads() {
    constexpr ThreadLimit kDefault{10'000, false}; // the reference's
    const char* v = env("BATON_MAXTHREADS");
    if (!v) return kDefault;
    const std::string text = v;
    const std::size_t comma = text.find(',');
    const long long n = parse_number(text.substr(0, comma).c_str());
    const bool crash = comma != std::string::npos;
    if (n >= 1 && n <= static_cast<long long>(kMaxM) && (!crash || text.substr(comma) == ",crash"))
        return {static_cast<std::uint32_t>(n), crash};
    warn("BATON_MAXTHREADS=%s: not a number from 1 to %u, or one with \",crash\" behind it; using "
         "%u",
         v, kMaxM, kDefault.threads);
    return kDefault;
}

std::uint32_t read_file_threads() {
    constexpr std::uint32_t kDefault = 32;
    const char* v = env("BATON_FILE_THREADS");
    if (!v) return kDefault;
    const long long n = parse_number(v);
    if (n >= 1 && n <= static_cast<long long>(kMaxM)) return static_cast<std::uint32_t>(n);
    warn("BATON_FILE_THREADS=%s: not a number from 1 to %u; using %u", v, kMaxM, kDefault);
    return kDefault;
}

// Why a feature is not there; empty if it is.
std::string why_no(const char* feature) {
    for (const kernel::FeatureInfo& f : kernel::feature_list()) {
        if (std::strcmp(f.name, feature) == 0 && !f.usable) return f.detail;
    }
    return {};
}

Poller read_poller() {
    const char* v = env("BATON_POLL");
    if (!v || std::strcmp(v, "auto") == 0) return Poller::kAuto;
    if (std::strcmp(v, "epoll") == 0) return Poller::kEpoll;
    if (std::strcmp(v, "uring") != 0) {
        warn("BATON_POLL=%s: not one of epoll, uring, auto; using auto", v);
        return Poller::kAuto;
    }
    if (const std::string why = why_no("io_uring"); !why.empty())
        warn("BATON_POLL=uring: no io_uring (%s); using epoll", why.c_str());
    return Poller::kUring;
}

bool read_preempt() {
    const char* v = env("BATON_PREEMPT");
    if (!v || std::strcmp(v, "on") == 0) return true;
    if (std::strcmp(v, "off") == 0) return false;
    warn("BATON_PREEMPT=%s: not one of on, off; using on", v);
    return true;
}

assist::Actor attach_understudy() { return actor(attach_helper(shared::M_UNDERSTUDY)); }

// Records, in BPF maps if the probe can be had and is wanted.
void start_records(int forced) {
    if (forced < 0 || forced == static_cast<int>(Assist::kProbe)) {
        sched.probe = assist::Probe::load(why_no_probe()).release();
        if (sched.probe) {
            sched.records = sched.probe->records();
            assist::probed = true;
            std::string pin_why;
            if (sched.probe->pin(pin_why) < 0) warn("%s", pin_why.c_str());
            return;
        }
    } else {
        why_no_probe() = "BATON_ASSIST asks for " + std::string(to_string(Assist{forced})) +
                         "; unset it for the best there is";
    }
    sched.records = assist::allocate_records();
    assist::sees_sleepers = kernel::features().sleepers && !kernel::why_no_sleepers();
}

std::string why_no_understudies(int error) {
    if (std::string why = why_no("sched_idle"); !why.empty()) {
        return why + (kernel::switched_off("sched_idle") ? ": take sched_idle out of it"
                                                         : ": no seccomp filter may forbid it");
    }
    if (error == EAGAIN)
        return "cannot start a thread (EAGAIN): see ulimit -u and the cgroup's pids.max";
    return "error " + std::to_string(error) +
           ": no seccomp filter may forbid sched_setaffinity and sched_setscheduler";
}

// Why there are none; empty if they are there, or not wanted.
std::string start_understudies(int forced) {
    if (forced == static_cast<int>(Assist::kSysmon)) {
        sched.tier = Assist::kSysmon;
        return {};
    }
    sched.tier = sched.probe ? Assist::kProbe : Assist::kUnderstudy;
    const assist::UnderstudyHooks hooks{attach_understudy, understudy_dispatch, &sched.gomaxprocs};
    const int rc = assist::understudies.start(sched.records, hooks, sched.probe != nullptr);
    if (rc == 0) return {};
    if (!sched.probe) sched.tier = Assist::kSysmon;
    return why_no_understudies(-rc);
}

[[noreturn]] void no_thread(int error) {
    throw std::system_error(error, std::generic_category(),
                            "baton: cannot start the runtime's first threads; see ulimit -u and "
                            "the cgroup's pids.max");
}

void helper_begins(const char* name) {
    kernel::set_thread_name(name);
    while (!started()) (void)kernel::futex_wait(&helper_gate, 0);
}

void* sysmon_main(void*) {
    helper_begins("baton/sysmon");
    (void)kernel::set_timer_slack(1);
    sysmon(attach_helper(shared::M_SYSMON));
    return nullptr;
}

void* template_main(void*) {
    helper_begins("baton/template");
    sched.nhelpers.fetch_add(1, kSeqCst);
    template_thread();
}

void start_helper(bool& made, void* (*body)(void*)) {
    if (made) return;
    sigset_t all, old;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS}) sigdelset(&all, fault); // of walks (unwind.hpp)
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_t thread;
    const int rc = pthread_create(&thread, nullptr, body, nullptr);
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    if (rc != 0) no_thread(rc);
    made = true;
    pthread_detach(thread);
}

// Once: a forked child does not repeat what its parent has said.
void say_tier(const std::string& no_understudies) {
    static std::string said;
    std::string line = std::string("assist tier is ") + to_string(sched.tier);
    if (sched.tier != Assist::kProbe) {
        line += ", not probe: " + why_no_probe();
        if (!no_understudies.empty()) line += "; no understudies: " + no_understudies;
    } else if (!no_understudies.empty()) {
        line += ", without understudies, so processors are passed on some us later: ";
        line += no_understudies;
    } else {
        return;
    }
    if (said != line) warn("%s", line.c_str());
    said = std::move(line);
}

// Once, as well. Whoever has switched it off knows.
void say_no_rseq() {
    static bool said = false;
    for (const char* name : {"rseq", "membarrier_rseq"}) {
        const std::string why = why_no(name);
        if (why.empty() || kernel::switched_off(name) || said) continue;
        warn("no %s (%s), so a blocking call takes 5 ns more, a lock of a Mutex 6 to 10: it takes "
             "Linux 5.10 with CONFIG_RSEQ and CONFIG_MEMBARRIER, and no seccomp filter may forbid "
             "them",
             name, why.c_str());
        said = true;
    }
}

void start_ps(int procs) {
    LockGuard guard(sched.lock);
    procresize(static_cast<std::uint32_t>(procs));
    for (int i = procs; i-- > 0;) pidleput(sched.allp[i]);
}

void make_reserve() {
    for (int i = 0; i < kReserve && thread_allowed(sched.mcount.load(kSeqCst) + 1); i++) {
        if (!newosproc(kOrderReserve)) return;
    }
}

void at_end() {
    wait_for_crash();
    hurry_end();
}

void start() {
    const Config config = read_config();
    set_traceback(config.traceback);
    if (const int rc = watch_forks(); rc != 0)
        throw std::system_error(rc, std::generic_category(), "baton: pthread_atfork");
    tick_coarse_clock(kernel::nanotime());
    if (!sched.idle_ms) {
        pthread_sigmask(SIG_SETMASK, nullptr, &sched.sigmask);
        sched.ncpu = static_cast<std::uint32_t>(kernel::possible_cpus());
        sched.idle_ms = new IdleMs[sched.ncpu];
        sched.cpus.store(new std::vector<int>(kernel::allowed_cpus()), kSeqCst);
        assist::understudies.prepare(sched.ncpu);
    }
    const kernel::Features& f = kernel::features();
    assist::use_rseq = f.rseq && f.membarrier_rseq;
    set_default_stack(config.stack_size);
    sched.maxmcount.store(max_threads(), kSeqCst);
    file_calls_start(config.file_threads);
    sched.crash_at_limit.store(config.crash_at_limit, kSeqCst);
    if (const int rc = netpollinit(config.poller); rc < 0)
        throw std::system_error(-rc, std::generic_category(),
                                "baton: cannot create the netpoller; see ulimit -n");
    start_helper(sysmon_made, sysmon_main);
    start_helper(template_made, template_main);
    if (!sched.records.m) start_records(config.assist);
    unpolled().store(1, kSeqCst);
    // One M at least. It parks.
    if (!newosproc()) no_thread(EAGAIN);
    install_handlers();
    static const bool at_exit = (std::atexit(at_end) | std::at_quick_exit(at_end)) == 0;
    (void)at_exit; // without it, a process that fails may end with another status
    static const bool leaks = read_debug().leak && std::atexit(report_leaks) == 0;
    (void)leaks;
    if (config.preempt) install_preemption();
    start_ps(initial_procs());
    sched.procs_fixed.store(procs_wanted != 0 || config.procs_fixed, kSeqCst);
    const std::string no_understudies = start_understudies(config.assist);
    sched.need_spare.store(sched.tier != Assist::kSysmon, std::memory_order_seq_cst);
    if (sched.tier != Assist::kSysmon) make_reserve();
    say_tier(no_understudies);
    say_no_rseq();
    attach_hooks();
}

} // namespace

Config read_config() {
    static const Config config = [] {
        const ThreadLimit limit = read_threads();
        bool fixed = false;
        const int procs = read_procs(fixed);
        return Config{
            procs,       fixed,          read_stack(),     read_assist(),       limit.threads,
            limit.crash, read_preempt(), read_traceback(), read_file_threads(), read_poller()};
    }();
    return config;
}

void set_initial_procs(int n) { procs_wanted = n; }

int initial_procs() { return procs_wanted ? procs_wanted : read_config().procs; }

bool started() noexcept {
    // acquire: pairs with the release in ensure_started; what start() built is seen.
    return is_started.load(std::memory_order_acquire);
}

void hurry_end() noexcept {
    if (started()) assist::understudies.hurry(); // in a forked child they are the parent's
}

void hold_start() { start_lock.lock(); }
void release_start() { start_lock.unlock(); }

void forget_start() {
    // relaxed: the one thread there is.
    is_started.store(false, std::memory_order_relaxed);
    helper_gate.store(0, std::memory_order_relaxed); // relaxed: as above
    sysmon_made = template_made = false;
}

void ensure_started() {
    if (started()) return;
    std::lock_guard guard(start_lock);
    if (started()) return;
    start();
    is_started.store(true, std::memory_order_release); // release: pairs with started()
    helper_gate.store(1, kSeqCst);
    kernel::futex_wake(&helper_gate, INT_MAX);
}

} // namespace baton::rt

namespace baton::detail {

void check_run_allowed() {
    if (rt::getm_or_null())
        throw std::logic_error("baton::run on a goroutine: call the function, or baton::go it");
}

void Done::set() noexcept {
    auto& word = reinterpret_cast<std::atomic<std::uint32_t>&>(word_);
    rt::sched.plain_wakes.fetch_add(1, rt::kSeqCst);
    word.store(1, std::memory_order_seq_cst); // then the wake
    kernel::futex_wake(&word, 1);
}

void Done::wait() noexcept {
    auto& word = reinterpret_cast<std::atomic<std::uint32_t>&>(word_);
    rt::sched.plain_parks.fetch_add(1, rt::kSeqCst);
    // acquire: pairs with the store in set; what the goroutine wrote is seen.
    while (word.load(std::memory_order_acquire) == 0) (void)kernel::futex_wait(&word, 0);
}

} // namespace baton::detail
