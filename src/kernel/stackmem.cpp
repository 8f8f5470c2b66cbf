// SPDX-License-Identifier: Apache-2.0
#include "kernel/stackmem.hpp"

#include <cerrno>

#include <sys/auxv.h>
#include <sys/mman.h>

#include "kernel/fatal.hpp"
#include "kernel/features.hpp"
#include "kernel/syscall.hpp"

namespace baton::kernel {
namespace {

constexpr int kMadvGuardInstall = 102; ///< Linux 6.13

} // namespace

void* reserve(std::size_t bytes, int* error) noexcept {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
    const long r = raw_syscall(__NR_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    const bool refused = r < 0 && r > -4096;
    if (error != nullptr) *error = refused ? static_cast<int>(r) : 0;
    if (refused) return nullptr;
    auto* start = reinterpret_cast<void*>(r);
    // -EINVAL from a kernel without huge pages: then there is nothing to ask.
    (void)raw_syscall(__NR_madvise, start, bytes, MADV_NOHUGEPAGE);
    return start;
}

int install_guard_by(GuardKind kind, void* page, std::size_t bytes) noexcept {
    if (kind == GuardKind::kMadvise) {
        return static_cast<int>(raw_syscall(__NR_madvise, page, bytes, kMadvGuardInstall));
    }
    return static_cast<int>(raw_syscall(__NR_mprotect, page, bytes, PROT_NONE));
}

int install_guard(void* page, std::size_t bytes) noexcept {
    if (features().guard_pages) {
        const int r = install_guard_by(GuardKind::kMadvise, page, bytes);
        // -EINVAL: the mapping is locked in memory (mlockall), or the address is not a page's,
        // which mprotect says again.
        if (r != -EINVAL) return r;
    }
    return install_guard_by(GuardKind::kMprotect, page, bytes);
}

int discard(void* start, std::size_t bytes) noexcept {
    return static_cast<int>(raw_syscall(__NR_madvise, start, bytes, MADV_DONTNEED));
}

void release(void* start, std::size_t bytes) noexcept {
    const long r = raw_syscall(__NR_munmap, start, bytes);
    if (r != 0) [[unlikely]] {
        fatal("munmap refused", "result", r, "address", reinterpret_cast<long>(start));
    }
}

std::size_t page_size() noexcept {
    static const std::size_t size = getauxval(AT_PAGESZ);
    return size;
}

} // namespace baton::kernel
