// SPDX-License-Identifier: Apache-2.0
//
// Directory: getdents64 into a buffer, entry by entry.
#include <cstring>

#include <dirent.h>

#include "baton/file.hpp"
#include "file/call.hpp"

namespace baton {

using detail::DirFd;
using detail::error_of_result;
using detail::file_call;
using detail::throw_if;

namespace {

bool is_self_or_parent(const char* name) {
    return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0;
}

} // namespace

class detail::DirFd {
public:
    explicit DirFd(int fd) : fd_(fd) {}
    DirFd(const DirFd&) = delete;
    DirFd& operator=(const DirFd&) = delete;
    ~DirFd() { (void)file_call(__NR_close, fd_); }

    /// Null at the end or with an error.
    const dirent64* next(std::error_code& ec) {
        ec.clear();
        for (;;) {
            if (at_ == end_) {
                const long n = file_call(__NR_getdents64, fd_, bytes_, sizeof bytes_);
                ec = error_of_result(n);
                if (n <= 0) return nullptr;
                at_ = 0;
                end_ = static_cast<std::size_t>(n);
            }
            const auto* entry = reinterpret_cast<const dirent64*>(bytes_ + at_);
            at_ += entry->d_reclen;
            if (!is_self_or_parent(entry->d_name)) return entry;
        }
    }

private:
    int fd_;
    std::size_t at_ = 0;
    std::size_t end_ = 0;
    alignas(dirent64) std::byte bytes_[32 << 10];
};

Directory::Directory() noexcept = default;
Directory::Directory(Directory&&) noexcept = default;
Directory& Directory::operator=(Directory&&) noexcept = default;
Directory::~Directory() = default;
Directory::Directory(std::unique_ptr<DirFd> fd) noexcept : fd_(std::move(fd)) {}

Directory Directory::open(const std::string& path, std::error_code& ec) {
    const long fd =
        file_call(__NR_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    ec = error_of_result(fd);
    if (fd < 0) return {};
    return Directory(std::make_unique<DirFd>(static_cast<int>(fd)));
}

Directory Directory::open(const std::string& path) {
    std::error_code ec;
    Directory directory = open(path, ec);
    throw_if(ec, "Directory::open", path);
    return directory;
}

std::optional<DirEntry> Directory::readdir(std::error_code& ec) {
    if (!fd_) {
        ec = error_of_result(-EBADF);
        return std::nullopt;
    }
    const dirent64* entry = fd_->next(ec);
    if (!entry) return std::nullopt;
    return DirEntry{entry->d_name, entry->d_ino, entry->d_type};
}

std::optional<DirEntry> Directory::readdir() {
    std::error_code ec;
    auto entry = readdir(ec);
    throw_if(ec, "Directory::readdir");
    return entry;
}

} // namespace baton
