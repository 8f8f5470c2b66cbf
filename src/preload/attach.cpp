// SPDX-License-Identifier: Apache-2.0
//
// The runtime announces itself; who calls, and from where, is told apart.
#include <cstdlib>
#include <cstring>

#include <gnu/libc-version.h>
#include <link.h>
#include <malloc.h>
#include <unistd.h>

#include "preload/fd.hpp"
#include "preload/locks.hpp"
#include "preload/preload.hpp"
#include "preload/turns.hpp"

namespace baton::preload {

constinit const baton_hooks_v1* rt = nullptr;
constinit unsigned groups = 0;
constinit long m_offset = 0;

namespace {

// The object that malloc is in, unless that is libc, whose own calls pass no hook.
std::uintptr_t allocator_begin = 0;
std::uintptr_t allocator_end = 0;

int note_allocator(dl_phdr_info* info, std::size_t, void*) {
    const auto at = reinterpret_cast<std::uintptr_t>(&::malloc);
    const auto libc = reinterpret_cast<std::uintptr_t>(&::gnu_get_libc_version);
    std::uintptr_t begin = UINTPTR_MAX, end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr)& p = info->dlpi_phdr[i];
        if (p.p_type != PT_LOAD) continue;
        const std::uintptr_t from = info->dlpi_addr + p.p_vaddr;
        if (from < begin) begin = from;
        if (from + p.p_memsz > end) end = from + p.p_memsz;
    }
    if (at < begin || at >= end) return 0;
    // Of a program that has its own the whole would be taken for the allocator.
    if ((libc < begin || libc >= end) && info->dlpi_name && *info->dlpi_name) {
        allocator_begin = begin;
        allocator_end = end;
    }
    return 1;
}

bool from_allocator(const void* caller) {
    const auto at = reinterpret_cast<std::uintptr_t>(caller);
    return at >= allocator_begin && at < allocator_end;
}

// Its address must be found anew after a park: not inlined, and opaque.
[[gnu::noinline]] int* errno_address() {
    int* e = &errno;
    asm volatile("" : "+r"(e));
    return e;
}

void in_child() {
    forget_descriptors();
    forget_turns();
    note_fork_generation();
    forget_tid();
    inherit_locks();
}

} // namespace

void set_errno(int err) { *errno_address() = err; }
int get_errno() { return *errno_address(); }

bool may_park(unsigned group, const void* caller) {
    return (groups & group) && !from_allocator(caller) && rt->place() == BATON_MAY_PARK;
}

bool on_goroutine(unsigned group, const void* caller) {
    return (groups & group) && !from_allocator(caller) && rt->place() != BATON_ELSEWHERE;
}

std::int64_t now_ns(clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return to_ns(t);
}

} // namespace baton::preload

extern "C" [[gnu::visibility("default")]] int
baton_preload_attach_v1(const baton_hooks_v1* runtime) {
    using namespace baton::preload;
    if (rt && rt != runtime) return EBUSY; // one runtime in a process
    const unsigned chosen = chosen_groups();
    if (runtime->size < sizeof(baton_hooks_v1)) return EPROTO;
    if (chosen == 0) return ENOSYS;
    if (!rt) {
        ::dl_iterate_phdr(note_allocator, nullptr);
        note_process();
        note_fork_generation();
        note_barriers();
        (void)::pthread_atfork(note_forker, nullptr, in_child);
    }
    rt = runtime;
    groups = chosen;
    // release: who finds it set finds the rest. On x86 each of those stores is one.
    std::atomic_ref(m_offset).store(runtime->m_offset, std::memory_order_release);
    return 0;
}
