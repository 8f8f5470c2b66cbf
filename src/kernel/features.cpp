// SPDX-License-Identifier: Apache-2.0
#include "kernel/features.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "kernel/futex_abi.hpp"
#include "kernel/rseq.hpp"
#include "kernel/sleeper.hpp"
#include "kernel/stackmem.hpp"
#include "kernel/syscall.hpp"
#include "kernel/uring.hpp"

namespace baton::kernel {
namespace {

/// What one probe found.
struct Verdict {
    bool usable;
    std::string detail;
};

/// "call: ENOSYS", for the errors people meet here; others by number.
Verdict refused(const char* call, long error) {
    const char* name = nullptr;
    switch (-error) {
    case ENOSYS:
        name = "ENOSYS (not in this kernel)";
        break;
    case EPERM:
        name = "EPERM (not permitted)";
        break;
    case EACCES:
        name = "EACCES (not permitted)";
        break;
    case EINVAL:
        name = "EINVAL (not known to this kernel)";
        break;
    case ENOENT:
        name = "ENOENT (not there)";
        break;
    case ENOMEM:
        name = "ENOMEM (limit reached)";
        break;
    default:
        break;
    }
    const std::string why = name != nullptr ? name : "error " + std::to_string(-error);
    return {false, std::string(call) + ": " + why};
}

Verdict probe_fsgsbase() {
    constexpr unsigned long kHwcap2Fsgsbase = 1UL << 1;
    if ((getauxval(AT_HWCAP2) & kHwcap2Fsgsbase) != 0) return {true, "wrgsbase from user space"};
    return {false, "AT_HWCAP2 bit 1 is clear: arch_prctl instead"};
}

Verdict probe_rseq() {
    if (rseq_libc_area() != nullptr) return {true, "registered by the C library"};
    RseqArea scratch;
    if (const int r = rseq_register(&scratch); r != 0) {
        if (r == -EINVAL) return {false, "rseq: this thread has an area of unknown origin"};
        return refused("rseq", r);
    }
    if (const int r = rseq_unregister(&scratch); r != 0) {
        // The kernel now writes to this frame for ever: no going on from here.
        std::abort();
    }
    return {true, "registered by baton, not by the C library"};
}

Verdict probe_membarrier_rseq() {
    const long known = raw_syscall(__NR_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    if (known < 0) return refused("membarrier", known);
    if ((known & MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ) == 0) {
        return {false, "membarrier: no PRIVATE_EXPEDITED_RSEQ in this kernel"};
    }
    long r = raw_syscall(__NR_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0);
    if (r != 0) return refused("membarrier, register", r);
    // The CPU argument is younger (5.10) than the command, and the query does not tell.
    r = raw_syscall(__NR_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU,
                    0);
    if (r != 0) return refused("membarrier, one CPU", r);
    return {true, "private expedited, one CPU"};
}

Verdict probe_futex2() {
    const std::uint32_t word = 0;
    const long woken = raw_syscall(kNrFutexWake, &word, kFutexAnyBits, 1, kFutex2Private32);
    if (woken != 0) return refused("futex_wake", woken);
    const long r = raw_syscall(kNrFutexWait, &word, 1, kFutexAnyBits, kFutex2Private32, nullptr, 1);
    if (r != -EAGAIN) return refused("futex_wait", r);
    return {true, "futex_wait, futex_wake"};
}

Verdict probe_futex_waitv() {
    const std::uint32_t word = 0;
    const FutexWaitvEntry entry{1, reinterpret_cast<std::uintptr_t>(&word), kFutex2Private32, 0};
    const long r = raw_syscall(kNrFutexWaitv, &entry, 1, 0, nullptr, 1);
    if (r != -EAGAIN) return refused("futex_waitv", r);
    return {true, ""};
}

Verdict probe_guard_pages() {
    int error = 0;
    void* page = reserve(page_size(), &error);
    if (page == nullptr) return refused("mmap", error);
    const int r = install_guard_by(GuardKind::kMadvise, page, page_size());
    release(page, page_size());
    if (r != 0) return refused("madvise, guard", r);
    return {true, "MADV_GUARD_INSTALL"};
}

Verdict probe_epoll_pwait2() {
    char event[16];
    const long r = raw_syscall(__NR_epoll_pwait2, -1, event, 1, nullptr, nullptr, 0);
    if (r != -EBADF) return refused("epoll_pwait2", r);
    return {true, ""};
}

Verdict probe_io_uring() {
    long error = 0;
    if (const char* what = why_no_uring(&error)) return refused(what, error);
    return {true, "poll, files, cancelling"};
}

/// Loads "return 0" as a raw tracepoint program: that takes CAP_BPF and CAP_PERFMON, as ours do.
long load_empty_tracing_program() {
    const bpf_insn program[] = {
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    bpf_attr attr{};
    attr.prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT;
    attr.insns = reinterpret_cast<std::uintptr_t>(program);
    attr.insn_cnt = 2;
    attr.license = reinterpret_cast<std::uintptr_t>("Dual BSD/GPL");
    return raw_syscall(__NR_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
}

Verdict probe_bpf() {
    const long btf =
        raw_syscall(__NR_openat, AT_FDCWD, "/sys/kernel/btf/vmlinux", O_RDONLY | O_CLOEXEC, 0);
    if (btf < 0) return refused("/sys/kernel/btf/vmlinux", btf);
    std::uint16_t magic = 0;
    const long got = raw_syscall(__NR_read, btf, &magic, sizeof magic);
    raw_syscall(__NR_close, btf);
    if (got != sizeof magic || magic != 0xeb9f) {
        return {false, "/sys/kernel/btf/vmlinux: not BTF"};
    }
    const long fd = load_empty_tracing_program();
    if (fd == -EPERM) return {false, "bpf: EPERM (needs CAP_BPF and CAP_PERFMON)"};
    if (fd < 0) return refused("bpf", fd);
    raw_syscall(__NR_close, fd);
    return {true, "tracing programs may be loaded"};
}

Verdict probe_sched_idle() {
    // The real thing cannot be undone by an ordinary user. A priority which SCHED_IDLE does not
    // have must be what is wrong: a filter would answer first, with something else.
    const sched_param impossible{.sched_priority = 1};
    const long r = raw_syscall(__NR_sched_setscheduler, 0, SCHED_IDLE, &impossible);
    if (r != -EINVAL) return refused("sched_setscheduler", r);
    return {true, ""};
}

Verdict probe_sleepers() {
    if (const char* why = why_no_sleepers()) return {false, why};
    return {true, "/proc/self/task/TID/syscall"};
}

struct Probe {
    const char* name;
    bool Features::*field;
    Verdict (*run)();
};

constexpr std::array kProbes = {
    Probe{"fsgsbase", &Features::fsgsbase, probe_fsgsbase},
    Probe{"rseq", &Features::rseq, probe_rseq},
    Probe{"membarrier_rseq", &Features::membarrier_rseq, probe_membarrier_rseq},
    Probe{"futex2", &Features::futex2, probe_futex2},
    Probe{"futex_waitv", &Features::futex_waitv, probe_futex_waitv},
    Probe{"guard_pages", &Features::guard_pages, probe_guard_pages},
    Probe{"epoll_pwait2", &Features::epoll_pwait2, probe_epoll_pwait2},
    Probe{"io_uring", &Features::io_uring, probe_io_uring},
    Probe{"bpf", &Features::bpf, probe_bpf},
    Probe{"sched_idle", &Features::sched_idle, probe_sched_idle},
    Probe{"sleepers", &Features::sleepers, probe_sleepers},
};

using Disabled = std::array<bool, kProbes.size()>;

void complain(std::string_view list, std::string_view name) {
    std::string line = "baton: BATON_DISABLE=";
    line.append(list).append(": unknown feature '").append(name).append("'; known: ");
    for (std::size_t i = 0; i < kProbes.size(); ++i) {
        if (i != 0) line += ',';
        line += kProbes[i].name;
    }
    line += '\n';
    // One write: a whole line, whatever other threads print.
    raw_syscall(__NR_write, 2, line.data(), line.size());
}

std::string_view trim(std::string_view s) {
    while (!s.empty() && s.front() == ' ') s.remove_prefix(1);
    while (!s.empty() && s.back() == ' ') s.remove_suffix(1);
    return s;
}

/// Calls f(list, name) for each name in BATON_DISABLE.
template <class F>
void each_disabled(F f) {
    const char* env = std::getenv("BATON_DISABLE");
    const std::string_view list = env != nullptr ? env : "";
    for (std::size_t from = 0; from <= list.size();) {
        const std::size_t comma = std::min(list.find(',', from), list.size());
        f(list, trim(list.substr(from, comma - from)));
        from = comma + 1;
    }
}

Disabled read_environment() {
    Disabled off{};
    each_disabled([&off](std::string_view list, std::string_view name) {
        bool known = name.empty();
        for (std::size_t i = 0; i < kProbes.size(); ++i) {
            if (name != kProbes[i].name) continue;
            off[i] = true;
            known = true;
        }
        if (!known) complain(list, name);
    });
    return off;
}

struct Found {
    Features features{};
    std::array<std::string, kProbes.size()> details;
};

/// Never destroyed: threads of the runtime may still ask while the process exits.
const Found& found() {
    static const Found* const result = [] {
        auto* found = new Found;
        const Disabled off = read_environment();
        for (std::size_t i = 0; i < kProbes.size(); ++i) {
            Verdict verdict =
                off[i] ? Verdict{false, "switched off by BATON_DISABLE"} : kProbes[i].run();
            found->features.*kProbes[i].field = verdict.usable;
            found->details[i] = std::move(verdict.detail);
        }
        return found;
    }();
    return *result;
}

} // namespace

const Features& features() noexcept { return found().features; }

std::vector<FeatureInfo> feature_list() {
    std::vector<FeatureInfo> list;
    list.reserve(kProbes.size());
    for (std::size_t i = 0; i < kProbes.size(); ++i) {
        list.push_back({kProbes[i].name, found().features.*kProbes[i].field, found().details[i]});
    }
    return list;
}

bool switched_off(std::string_view name) {
    bool off = false;
    each_disabled([&](std::string_view, std::string_view each) { off = off || each == name; });
    return off;
}

} // namespace baton::kernel
