// SPDX-License-Identifier: Apache-2.0
//
// FileFd: what a File is made of: a descriptor, who uses it, and which way its reads and writes go.
//
// Threads: any.
// Invariants: I1 the descriptor is closed once, and no call is made on it then (FdMutex I1).
// Results are numbers of bytes, or -errno.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include <sys/uio.h>

#include "baton/until.hpp"
#include "io/fdmutex.hpp"

namespace baton::detail {

class FileFd {
public:
    /// Takes over `fd`.
    explicit FileFd(int fd) noexcept;
    FileFd(const FileFd&) = delete;
    FileFd& operator=(const FileFd&) = delete;
    ~FileFd();

    enum class Way : std::uint8_t { kRead, kWrite };
    /// One read or write, at `offset`, -1: at the file's position.
    long transfer(Way way, std::span<const iovec> bufs, std::int64_t offset, const Until& until);
    /// As much of `size` as there is, or all of it: how much; *error is 0 or an errno.
    std::size_t read_all(std::byte* buf, std::size_t size, std::int64_t offset, const Until& until,
                         int* error);
    std::size_t write_all(const std::byte* buf, std::size_t size, std::int64_t offset,
                          const Until& until, int* error);

    /// f(descriptor), while nobody closes it; -EBADF once it is closed.
    template <class F>
    long with(F f) {
        // Counted before the reference is asked for: a close that comes after who was given one
        // sees the call, and gives up what it waits for.
        calls_.fetch_add(1, std::memory_order_seq_cst);
        const bool open = mu_.ref();
        const long result = open ? f(fd_) : -EBADF;
        calls_.fetch_sub(1, std::memory_order_seq_cst);
        if (open) leave();
        return result;
    }
    void close() noexcept;
    int release() noexcept;
    int fd() const noexcept { return mu_.closed() ? -1 : fd_; }

private:
    enum class Kind : std::uint8_t {
        kCached, // a regular file by way of the page cache
        kDirect, // one past it
        kStream, // a pipe, a terminal or whatever else may never be ready
    };
    void leave() noexcept;
    long once(Way way, std::span<const iovec> bufs, std::int64_t offset, const Until& until);
    long by_call(Way way, std::span<const iovec> bufs, std::int64_t offset, const Until& until);
    long from_cache(std::span<const iovec> bufs, std::int64_t offset);
    long await_stream(Way way, const Until& until);

    FdMutex mu_;
    std::atomic<std::uint32_t> calls_{0}; // under way
    std::atomic<int> wary_;               // so many reads may find nothing in the cache
    int fd_;
    Kind kind_;
};

} // namespace baton::detail
