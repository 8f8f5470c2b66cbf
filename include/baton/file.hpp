// SPDX-License-Identifier: Apache-2.0
//
// Files and directories, for goroutines: who waits for a disk keeps no thread waiting.
//
// Reads at an offset go to the kernel's io_uring where it has one, as do direct writes and all that
// waits for a pipe; what is in the page cache is read at once. All else is a call that may block
// its thread: the processor passes to another one meanwhile, and BATON_FILE_THREADS says how many
// may wait for a disk at once, so that a slow one does not make threads without end; who comes then
// waits for its turn. Who waits for another's doing takes none: for a pipe, or in sendfile to a
// socket that blocks.
//
// Each call has a throwing form (std::system_error) and one that fills a std::error_code. Any
// thread may make any call; a plain thread, or a goroutine inside baton::blocking, simply makes the
// system call. They park, unless they say otherwise.
//
// Reads and writes take an Until. A disk's own answer is waited for all the same, a read or write
// of a regular file is as a rule not given up once begun; those of a pipe or a terminal are. What a
// call that was given up leaves: a read has taken nothing, of a write so many bytes are written as
// it returns. In either case the kernel is done with the buffer when the call returns. On a kernel
// without io_uring such waits are seen to every few milliseconds, and keep a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "baton/until.hpp"

#pragma GCC visibility push(default)
namespace baton {

namespace detail {
class FileFd;
class DirFd;
} // namespace detail

/// An open file. Movable; closes on destruction. Any number of goroutines may use one at the same
/// time; those that use its position (read, write) share it as they would with threads.
class File {
public:
    File() noexcept;
    /// Takes over an open descriptor, blocking or not: a pipe's or a terminal's as well.
    explicit File(int fd);
    File(File&&) noexcept;
    File& operator=(File&&) noexcept;
    ~File();

    /// Opens `path` as open(2) does, with O_CLOEXEC.
    static File open(const std::string& path, int flags = O_RDONLY, mode_t mode = 0666);
    static File open(const std::string& path, int flags, mode_t mode, std::error_code& ec);

    /// Reads at most buf.size() bytes: fewer only at the end of a regular file, or as many as a
    /// pipe has; 0 is the end.
    std::size_t read(std::span<std::byte> buf, const Until& until = {});
    std::size_t read(std::span<std::byte> buf, std::error_code& ec);
    std::size_t read(std::span<std::byte> buf, const Until& until, std::error_code& ec);
    /// The same at `offset`; the file's position stays.
    std::size_t pread(std::span<std::byte> buf, std::int64_t offset, const Until& until = {});
    std::size_t pread(std::span<std::byte> buf, std::int64_t offset, std::error_code& ec);
    std::size_t pread(std::span<std::byte> buf, std::int64_t offset, const Until& until,
                      std::error_code& ec);
    /// The same into several buffers, 1024 at most. It may stop short at the end of one.
    std::size_t readv(std::span<const iovec> bufs, const Until& until = {});
    std::size_t readv(std::span<const iovec> bufs, std::error_code& ec);
    std::size_t readv(std::span<const iovec> bufs, const Until& until, std::error_code& ec);

    /// Writes all of `buf`; with an error, as much as it returns.
    std::size_t write(std::span<const std::byte> buf, const Until& until = {});
    std::size_t write(std::span<const std::byte> buf, std::error_code& ec);
    std::size_t write(std::span<const std::byte> buf, const Until& until, std::error_code& ec);
    /// The same at `offset`; the file's position stays.
    std::size_t pwrite(std::span<const std::byte> buf, std::int64_t offset,
                       const Until& until = {});
    std::size_t pwrite(std::span<const std::byte> buf, std::int64_t offset, std::error_code& ec);
    std::size_t pwrite(std::span<const std::byte> buf, std::int64_t offset, const Until& until,
                       std::error_code& ec);
    /// Several buffers, 1024 at most, with one call: how many bytes were written, perhaps not all.
    std::size_t writev(std::span<const iovec> bufs, const Until& until = {});
    std::size_t writev(std::span<const iovec> bufs, std::error_code& ec);
    std::size_t writev(std::span<const iovec> bufs, const Until& until, std::error_code& ec);

    void fsync();
    void fsync(std::error_code& ec);
    void fdatasync();
    void fdatasync(std::error_code& ec);
    void ftruncate(std::int64_t size);
    void ftruncate(std::int64_t size, std::error_code& ec);
    /// `mode` as fallocate(2) has it; 0 makes room.
    void fallocate(int mode, std::int64_t offset, std::int64_t size);
    void fallocate(int mode, std::int64_t offset, std::int64_t size, std::error_code& ec);
    struct statx stat() const;
    struct statx stat(std::error_code& ec) const;

    /// Closes it, and gives up what others wait for there (a pipe's data): they fail with EBADF, as
    /// does all that is called later. The descriptor itself goes when the last of them has
    /// returned. A second close does nothing.
    void close() noexcept;
    /// Gives the descriptor away; nobody may be in a call. -1 if there is none.
    [[nodiscard]] int release() noexcept;
    /// -1 once closed.
    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept { return fd() >= 0; }

private:
    explicit File(std::unique_ptr<detail::FileFd> fd) noexcept;
    std::unique_ptr<detail::FileFd> fd_;
};

/// Moves bytes between files within the kernel, `size` at most: how many; 0 at the end. At the
/// files' positions where an offset is null, else at *offset, which moves on. As
/// copy_file_range(2), sendfile(2) (from a file to any descriptor) and splice(2) (one of the two a
/// pipe). A non-blocking descriptor may have them fail with EAGAIN; to a connection of ours it is
/// Conn::send_file that waits.
std::size_t copy_file_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                            std::size_t size);
std::size_t copy_file_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                            std::size_t size, std::error_code& ec);
std::size_t sendfile(int to, int from, std::int64_t* from_at, std::size_t size);
std::size_t sendfile(int to, int from, std::int64_t* from_at, std::size_t size,
                     std::error_code& ec);
std::size_t splice(int from, std::int64_t* from_at, int to, std::int64_t* to_at, std::size_t size,
                   unsigned flags = 0);
std::size_t splice(int from, std::int64_t* from_at, int to, std::int64_t* to_at, std::size_t size,
                   unsigned flags, std::error_code& ec);

/// What is at `path`: of the file a symbolic link leads to, unless `flags` has AT_SYMLINK_NOFOLLOW.
struct statx stat(const std::string& path, int flags = 0);
struct statx stat(const std::string& path, int flags, std::error_code& ec);
/// Takes the place of what is at `to`. `flags` as renameat2(2) has them.
void rename(const std::string& from, const std::string& to, unsigned flags = 0);
void rename(const std::string& from, const std::string& to, unsigned flags, std::error_code& ec);
void unlink(const std::string& path);
void unlink(const std::string& path, std::error_code& ec);
void mkdir(const std::string& path, mode_t mode = 0777);
void mkdir(const std::string& path, mode_t mode, std::error_code& ec);
void rmdir(const std::string& path);
void rmdir(const std::string& path, std::error_code& ec);

/// What a directory names.
struct DirEntry {
    std::string name;
    std::uint64_t inode;
    unsigned char type; ///< DT_REG, DT_DIR and so on of <dirent.h>; DT_UNKNOWN on some file systems
};

/// A directory being read. Movable; closes on destruction. One goroutine at a time.
class Directory {
public:
    Directory() noexcept;
    Directory(Directory&&) noexcept;
    Directory& operator=(Directory&&) noexcept;
    ~Directory();

    static Directory open(const std::string& path);
    static Directory open(const std::string& path, std::error_code& ec);

    /// The next entry, in no order, without "." and ".."; none at the end, or with an error.
    std::optional<DirEntry> readdir();
    std::optional<DirEntry> readdir(std::error_code& ec);

private:
    explicit Directory(std::unique_ptr<detail::DirFd> fd) noexcept;
    std::unique_ptr<detail::DirFd> fd_;
};

} // namespace baton
#pragma GCC visibility pop
