// SPDX-License-Identifier: Apache-2.0
//
// File: its calls, throwing and not.
#include "baton/file.hpp"

#include "file/call.hpp"
#include "file/filefd.hpp"

namespace baton {

using detail::error_of_result;
using detail::file_call;
using detail::FileFd;
using detail::throw_if;
using Way = FileFd::Way;

namespace {

std::error_code error_of(int err) { return {err, std::generic_category()}; }

/// What `count` is after a transfer that ended with `result`.
std::size_t told(long result, std::error_code& ec) {
    ec = error_of_result(result);
    return result < 0 ? 0 : static_cast<std::size_t>(result);
}

std::size_t read_at(FileFd* fd, std::span<std::byte> buf, std::int64_t offset, const Until& until,
                    std::error_code& ec) {
    int error = EBADF;
    const std::size_t n =
        fd ? fd->read_all(buf.data(), buf.size(), offset, until, &error) : std::size_t{0};
    ec = error_of(error);
    return n;
}

std::size_t write_at(FileFd* fd, std::span<const std::byte> buf, std::int64_t offset,
                     const Until& until, std::error_code& ec) {
    int error = EBADF;
    const std::size_t n =
        fd ? fd->write_all(buf.data(), buf.size(), offset, until, &error) : std::size_t{0};
    ec = error_of(error);
    return n;
}

std::size_t vector_io(FileFd* fd, Way way, std::span<const iovec> bufs, const Until& until,
                      std::error_code& ec) {
    return told(fd ? fd->transfer(way, bufs, -1, until) : -EBADF, ec);
}

/// A call that says no more than whether it worked.
template <class... Args>
void plain_call(FileFd* fd, std::error_code& ec, long nr, Args... args) {
    ec = error_of_result(fd ? fd->with([&](int n) { return file_call(nr, n, args...); }) : -EBADF);
}

} // namespace

File::File() noexcept = default;
File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;
File::~File() = default;
File::File(std::unique_ptr<FileFd> fd) noexcept : fd_(std::move(fd)) {}
File::File(int fd) : fd_(std::make_unique<FileFd>(fd)) {}

File File::open(const std::string& path, int flags, mode_t mode, std::error_code& ec) {
    const long fd =
        file_call(__NR_openat, AT_FDCWD, path.c_str(), flags | O_CLOEXEC | O_LARGEFILE, mode);
    ec = error_of_result(fd);
    return fd < 0 ? File() : File(static_cast<int>(fd));
}

File File::open(const std::string& path, int flags, mode_t mode) {
    std::error_code ec;
    File file = open(path, flags, mode, ec);
    throw_if(ec, "File::open", path);
    return file;
}

std::size_t File::read(std::span<std::byte> buf, const Until& until, std::error_code& ec) {
    return read_at(fd_.get(), buf, -1, until, ec);
}
std::size_t File::read(std::span<std::byte> buf, std::error_code& ec) {
    return read(buf, Until(), ec);
}
std::size_t File::read(std::span<std::byte> buf, const Until& until) {
    std::error_code ec;
    const std::size_t n = read(buf, until, ec);
    throw_if(ec, "File::read");
    return n;
}

std::size_t File::pread(std::span<std::byte> buf, std::int64_t offset, const Until& until,
                        std::error_code& ec) {
    return read_at(fd_.get(), buf, offset, until, ec);
}
std::size_t File::pread(std::span<std::byte> buf, std::int64_t offset, std::error_code& ec) {
    return pread(buf, offset, Until(), ec);
}
std::size_t File::pread(std::span<std::byte> buf, std::int64_t offset, const Until& until) {
    std::error_code ec;
    const std::size_t n = pread(buf, offset, until, ec);
    throw_if(ec, "File::pread");
    return n;
}

std::size_t File::write(std::span<const std::byte> buf, const Until& until, std::error_code& ec) {
    return write_at(fd_.get(), buf, -1, until, ec);
}
std::size_t File::write(std::span<const std::byte> buf, std::error_code& ec) {
    return write(buf, Until(), ec);
}
std::size_t File::write(std::span<const std::byte> buf, const Until& until) {
    std::error_code ec;
    const std::size_t n = write(buf, until, ec);
    throw_if(ec, "File::write");
    return n;
}

std::size_t File::pwrite(std::span<const std::byte> buf, std::int64_t offset, const Until& until,
                         std::error_code& ec) {
    return write_at(fd_.get(), buf, offset, until, ec);
}
std::size_t File::pwrite(std::span<const std::byte> buf, std::int64_t offset, std::error_code& ec) {
    return pwrite(buf, offset, Until(), ec);
}
std::size_t File::pwrite(std::span<const std::byte> buf, std::int64_t offset, const Until& until) {
    std::error_code ec;
    const std::size_t n = pwrite(buf, offset, until, ec);
    throw_if(ec, "File::pwrite");
    return n;
}

std::size_t File::readv(std::span<const iovec> bufs, const Until& until, std::error_code& ec) {
    return vector_io(fd_.get(), Way::kRead, bufs, until, ec);
}
std::size_t File::readv(std::span<const iovec> bufs, std::error_code& ec) {
    return readv(bufs, Until(), ec);
}
std::size_t File::readv(std::span<const iovec> bufs, const Until& until) {
    std::error_code ec;
    const std::size_t n = readv(bufs, until, ec);
    throw_if(ec, "File::readv");
    return n;
}

std::size_t File::writev(std::span<const iovec> bufs, const Until& until, std::error_code& ec) {
    return vector_io(fd_.get(), Way::kWrite, bufs, until, ec);
}
std::size_t File::writev(std::span<const iovec> bufs, std::error_code& ec) {
    return writev(bufs, Until(), ec);
}
std::size_t File::writev(std::span<const iovec> bufs, const Until& until) {
    std::error_code ec;
    const std::size_t n = writev(bufs, until, ec);
    throw_if(ec, "File::writev");
    return n;
}

void File::fsync(std::error_code& ec) { plain_call(fd_.get(), ec, __NR_fsync); }
void File::fsync() {
    std::error_code ec;
    fsync(ec);
    throw_if(ec, "File::fsync");
}

void File::fdatasync(std::error_code& ec) { plain_call(fd_.get(), ec, __NR_fdatasync); }
void File::fdatasync() {
    std::error_code ec;
    fdatasync(ec);
    throw_if(ec, "File::fdatasync");
}

void File::ftruncate(std::int64_t size, std::error_code& ec) {
    plain_call(fd_.get(), ec, __NR_ftruncate, size);
}
void File::ftruncate(std::int64_t size) {
    std::error_code ec;
    ftruncate(size, ec);
    throw_if(ec, "File::ftruncate");
}

void File::fallocate(int mode, std::int64_t offset, std::int64_t size, std::error_code& ec) {
    plain_call(fd_.get(), ec, __NR_fallocate, mode, offset, size);
}
void File::fallocate(int mode, std::int64_t offset, std::int64_t size) {
    std::error_code ec;
    fallocate(mode, offset, size, ec);
    throw_if(ec, "File::fallocate");
}

struct statx File::stat(std::error_code& ec) const {
    struct statx st {};
    plain_call(fd_.get(), ec, __NR_statx, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st);
    return st;
}
struct statx File::stat() const {
    std::error_code ec;
    const struct statx st = stat(ec);
    throw_if(ec, "File::stat");
    return st;
}

void File::close() noexcept {
    if (fd_) fd_->close();
}

int File::release() noexcept {
    const int fd = fd_ ? fd_->release() : -1;
    fd_.reset();
    return fd;
}

int File::fd() const noexcept { return fd_ ? fd_->fd() : -1; }

} // namespace baton
