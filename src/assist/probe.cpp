// SPDX-License-Identifier: Apache-2.0
#include "assist/probe.hpp"

#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <unistd.h>

#include "assist/pins.hpp"
#include "handoff.skel.h"
#include "kernel/build.hpp"
#include "kernel/features.hpp"
#include "kernel/syscall.hpp"
#include "table.skel.h"

#if defined(BATON_ASAN)
#include <sanitizer/lsan_interface.h>
#endif

namespace baton::assist {
namespace {

constexpr long kPidfdThread = O_EXCL; // PIDFD_THREAD, Linux 6.9

// --- what libbpf says: nothing on stderr, and its first warning kept, which names the cause ---

char first_warning[256];

int keep_first_warning(libbpf_print_level level, const char* format, va_list args) {
    if (level == LIBBPF_WARN && first_warning[0] == 0) {
        std::vsnprintf(first_warning, sizeof first_warning, format, args);
        first_warning[std::strcspn(first_warning, "\n")] = 0;
    }
    return 0;
}

/// While it lives, no signal reaches this thread, but those of its own faults. The kernel gives up
/// checking a program when one is pending; libbpf begins anew, but not for ever, and so a profiler,
/// or whoever sends signals that often, could keep a process from the probe.
class NoSignals {
public:
    NoSignals() {
        sigset_t most;
        ::sigfillset(&most);
        for (const int fault : {SIGSEGV, SIGBUS}) ::sigdelset(&most, fault);
        ::pthread_sigmask(SIG_SETMASK, &most, &before_);
    }
    ~NoSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    NoSignals(const NoSignals&) = delete;
    NoSignals& operator=(const NoSignals&) = delete;

private:
    sigset_t before_;
};

/// While it lives, libbpf is quiet; then the program's own print function is back.
class QuietLibbpf {
public:
    QuietLibbpf() : lock_(mutex()), before_(::libbpf_set_print(keep_first_warning)) {
        first_warning[0] = 0;
    }
    ~QuietLibbpf() { ::libbpf_set_print(before_); }
    QuietLibbpf(const QuietLibbpf&) = delete;
    QuietLibbpf& operator=(const QuietLibbpf&) = delete;

private:
    static std::mutex& mutex() {
        static std::mutex m; // after the one of a start; nothing is locked under it
        return m;
    }
    std::lock_guard<std::mutex> lock_;
    libbpf_print_fn_t before_;
};

// --- reasons, one line each ---

std::string with_warning(const std::string& what, int error) {
    std::string why = what + ": " + std::strerror(error);
    if (first_warning[0] != 0) why.append(" (").append(first_warning).append(")");
    return why;
}

bool has_capability(const __user_cap_data_struct (&sets)[2], int cap) {
    return (sets[cap / 32].effective >> (cap % 32) & 1) != 0;
}

/// Names the capabilities that lack, and how to give them; empty when all are there.
std::string missing_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2] = {};
    if (kernel::raw_syscall(__NR_capget, &header, &sets[0]) != 0) return {};
    if (has_capability(sets, CAP_SYS_ADMIN)) return {}; // stands for both
    const bool bpf = has_capability(sets, CAP_BPF);
    const bool perfmon = has_capability(sets, CAP_PERFMON);
    if (bpf && perfmon) return {};
    char program[256];
    const ssize_t n = ::readlink("/proc/self/exe", program, sizeof program);
    std::string why = "no ";
    why += bpf ? "CAP_PERFMON" : perfmon ? "CAP_BPF" : "CAP_BPF and CAP_PERFMON";
    why += ": run as root or grant them with setcap cap_bpf,cap_perfmon+ep ";
    why += n > 0 ? std::string(program, static_cast<std::size_t>(n)) : "PROG";
    return why;
}

/// Empty when loading may be tried.
std::string obstacle() {
    if (kernel::switched_off("bpf")) return "switched off by BATON_DISABLE: take bpf out of it";
    if (::access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
        return "no kernel types in /sys/kernel/btf/vmlinux: needs a kernel with "
               "CONFIG_DEBUG_INFO_BTF=y, and sysfs mounted";
    }
    return missing_capabilities();
}

std::string load_failure(const char* what, int error) {
    switch (error) {
    case EPERM:
        return "the kernel refuses (EPERM) though the capabilities are there: they must be held in "
               "the initial user namespace, outside of a container, and no lockdown or seccomp "
               "filter may forbid bpf";
    case EMFILE:
    case ENFILE:
        return with_warning(what, error) + ": see ulimit -n";
    case ENOMEM:
        return with_warning(what, error) + ": see ulimit -v and the cgroup's memory.max";
    default:
        return with_warning(what, error) + ": it takes Linux 6.1 or later";
    }
}

/// An array map's values. Null with errno.
void* map_values(bpf_map* map, std::size_t bytes) {
    // The kernel checks the length against the map's, so the two cannot disagree unseen.
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ::bpf_map__fd(map), 0);
    return at == MAP_FAILED ? nullptr : at;
}

void unmap(void* at, std::size_t bytes) {
    if (at != nullptr) ::munmap(at, bytes);
}

/// Puts empty private memory where a shared mapping is. 0 or -errno.
int make_private(void* at, std::size_t bytes) noexcept {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    const long r = kernel::raw_syscall(__NR_mmap, at, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    return r < 0 ? static_cast<int>(r) : 0;
}

void close_fd(int fd) noexcept {
    if (fd >= 0) (void)kernel::raw_syscall(__NR_close, fd);
}

} // namespace

std::unique_ptr<Probe> Probe::load(std::string& why) {
    const NoSignals none;
    const QuietLibbpf quiet;
    why = obstacle();
    if (!why.empty()) return nullptr;

    std::unique_ptr<Probe> probe(new Probe);
    probe->skel_ = handoff_bpf::open();
    if (probe->skel_ == nullptr) {
        why = load_failure("libbpf does not open the probe", errno);
        return nullptr;
    }
    if (const int r = handoff_bpf::load(probe->skel_); r != 0) {
        why = load_failure("the kernel does not take the probe", -r);
        return nullptr;
    }
    // Records before the program runs: what it writes to is there for whoever looks.
    if (!probe->map_records(why)) return nullptr;
    if (const int r = handoff_bpf::attach(probe->skel_); r != 0) {
        why = load_failure("the probe cannot be attached to sched_switch", -r);
        return nullptr;
    }
    return probe;
}

bool Probe::map_records(std::string& why) {
    records_.m = static_cast<shared::m_rec*>(map_values(skel_->maps.m, kMBytes));
    records_.p = static_cast<shared::p_rec*>(map_values(skel_->maps.p, kPBytes));
    records_.sched = static_cast<shared::sched_rec*>(map_values(skel_->maps.sched, kSchedBytes));
    if (records_.m == nullptr || records_.p == nullptr || records_.sched == nullptr) {
        why = load_failure("the probe's maps cannot be mapped", errno);
        return false;
    }
    auto on_event = [](void* self, void* data, std::size_t bytes) {
        auto* probe = static_cast<Probe*>(self);
        shared::wake_event event;
        if (bytes < sizeof event) return 0;
        std::memcpy(&event, data, sizeof event);
        probe->fn_(probe->ctx_, event);
        return 0;
    };
    events_ = ::ring_buffer__new(::bpf_map__fd(skel_->maps.events), on_event, this, nullptr);
    if (events_ == nullptr) {
        why = load_failure("the probe's ring buffer cannot be mapped", errno);
        return false;
    }
    return true;
}

Probe::~Probe() {
    if (pinned_) remove_pins(); // does nothing in a forked child
    if (!forked_) {             // there the descriptors are closed, and perhaps others' by now
        ::ring_buffer__free(events_);
        table_bpf::destroy(table_);
        handoff_bpf::destroy(skel_);
    }
#if defined(BATON_ASAN)
    if (forked_) {
        __lsan_ignore_object(events_);
        __lsan_ignore_object(table_);
        __lsan_ignore_object(skel_);
    }
#endif
    unmap(records_.m, kMBytes);
    unmap(records_.p, kPBytes);
    unmap(records_.sched, kSchedBytes);
}

int Probe::register_thread(shared::u32 m_slot) noexcept {
    const int r = register_thread_via(Via::kPidfd, m_slot);
    return r == 0 ? 0 : register_thread_via(Via::kProgram, m_slot);
}

int Probe::register_thread_via(Via via, shared::u32 m_slot) noexcept {
    if (forked_) return -ENODEV;
    if (m_slot == 0 || m_slot >= BATON_MAX_M) return -EINVAL;
    return note_thread(via, m_slot);
}

int Probe::unregister_thread() noexcept {
    if (forked_) return 0;
    return note_thread(Via::kPidfd, 0) == 0 ? 0 : note_thread(Via::kProgram, 0);
}

// Slot 0 is nobody.
int Probe::note_thread(Via via, shared::u32 m_slot) noexcept {
    if (via == Via::kProgram) {
        bpf_test_run_opts run{};
        run.sz = sizeof run;
        run.ctx_in = &m_slot; // a task_rec
        run.ctx_size_in = sizeof m_slot;
        const int r = ::bpf_prog_test_run_opts(::bpf_program__fd(skel_->progs.enlist), &run);
        if (r != 0) return r;
        return run.retval == 0 ? 0 : -ENOMEM;
    }
    const long tid = kernel::raw_syscall(__NR_gettid);
    const long pidfd = kernel::raw_syscall(__NR_pidfd_open, tid, kPidfdThread);
    if (pidfd < 0) return static_cast<int>(pidfd);
    const int fd = static_cast<int>(pidfd);
    const int r = ::bpf_map_update_elem(::bpf_map__fd(skel_->maps.tasks), &fd, &m_slot, BPF_ANY);
    close_fd(fd);
    return r;
}

int Probe::events_fd() const noexcept { return forked_ ? -1 : ::bpf_map__fd(skel_->maps.events); }

int Probe::consume(void (*fn)(void* ctx, const shared::wake_event&), void* ctx) noexcept {
    if (forked_) return 0;
    fn_ = fn;
    ctx_ = ctx;
    return ::ring_buffer__consume(events_);
}

int Probe::pin(std::string& why) {
    if (forked_) {
        why = "the probe stayed with the parent process";
        return -ENODEV;
    }
    const NoSignals none;
    const QuietLibbpf quiet;
    if (table_ == nullptr) table_ = table_bpf::open_and_load();
    if (table_ == nullptr) {
        const int error = errno;
        why = with_warning("the table of Ms cannot be loaded", error);
        return -error;
    }
    if (table_->links.ms == nullptr) {
        bpf_iter_link_info info{};
        info.map.map_fd = static_cast<__u32>(::bpf_map__fd(skel_->maps.m));
        bpf_iter_attach_opts attach{};
        attach.sz = sizeof attach;
        attach.link_info = &info;
        attach.link_info_len = sizeof info;
        table_->links.ms = ::bpf_program__attach_iter(table_->progs.ms, &attach);
        if (table_->links.ms == nullptr) {
            const int error = errno;
            why = with_warning("the table of Ms cannot be attached", error);
            return -error;
        }
    }
    const PinObject objects[] = {
        {"m", ::bpf_map__fd(skel_->maps.m)},
        {"p", ::bpf_map__fd(skel_->maps.p)},
        {"sched", ::bpf_map__fd(skel_->maps.sched)},
        {"ms", ::bpf_link__fd(table_->links.ms)},
    };
    const int r = pin_objects(objects, why);
    pinned_ = pinned_ || r == 0;
    return r;
}

int Probe::after_fork_in_child() noexcept {
    if (forked_) return 0;
    int r = make_private(records_.m, kMBytes);
    if (r == 0) r = make_private(records_.p, kPBytes);
    if (r == 0) r = make_private(records_.sched, kSchedBytes);
    if (r != 0) return r;
    // While the child had the link open, the probe would outlive its parent.
    const int fds[] = {
        ::bpf_link__fd(skel_->links.handoff),
        ::bpf_link__fd(skel_->links.deliver),
        ::bpf_program__fd(skel_->progs.handoff),
        ::bpf_program__fd(skel_->progs.deliver),
        ::bpf_program__fd(skel_->progs.enlist),
        ::bpf_map__fd(skel_->maps.m),
        ::bpf_map__fd(skel_->maps.p),
        ::bpf_map__fd(skel_->maps.sched),
        ::bpf_map__fd(skel_->maps.tasks),
        ::bpf_map__fd(skel_->maps.events),
        ::ring_buffer__epoll_fd(events_),
        table_ != nullptr ? ::bpf_link__fd(table_->links.ms) : -1,
        table_ != nullptr ? ::bpf_program__fd(table_->progs.ms) : -1,
    };
    for (const int fd : fds) close_fd(fd);
    forked_ = true;
    return 0;
}

} // namespace baton::assist
