// SPDX-License-Identifier: Apache-2.0
//
// Calls on paths, and from one descriptor to another.
#include "baton/file.hpp"

#include "file/call.hpp"

namespace baton {

using detail::error_of_result;
using detail::file_call;
using detail::throw_if;

namespace {

constexpr auto kNoTurn = rt::FileCall::Turn::kNone;

std::size_t moved(long result, std::error_code& ec) {
    ec = error_of_result(result);
    return result < 0 ? 0 : static_cast<std::size_t>(result);
}

} // namespace

std::size_t copy_file_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                            std::size_t size, std::error_code& ec) {
    return moved(file_call(__NR_copy_file_range, from, from_at, to, to_at, size, 0), ec);
}
std::size_t copy_file_range(int from, std::int64_t* from_at, int to, std::int64_t* to_at,
                            std::size_t size) {
    std::error_code ec;
    const std::size_t n = copy_file_range(from, from_at, to, to_at, size, ec);
    throw_if(ec, "copy_file_range");
    return n;
}

// These two may wait for who reads or fills a pipe.
std::size_t sendfile(int to, int from, std::int64_t* from_at, std::size_t size,
                     std::error_code& ec) {
    return moved(file_call<kNoTurn>(__NR_sendfile, to, from, from_at, size), ec);
}
std::size_t sendfile(int to, int from, std::int64_t* from_at, std::size_t size) {
    std::error_code ec;
    const std::size_t n = sendfile(to, from, from_at, size, ec);
    throw_if(ec, "sendfile");
    return n;
}

std::size_t splice(int from, std::int64_t* from_at, int to, std::int64_t* to_at, std::size_t size,
                   unsigned flags, std::error_code& ec) {
    return moved(file_call<kNoTurn>(__NR_splice, from, from_at, to, to_at, size, flags), ec);
}
std::size_t splice(int from, std::int64_t* from_at, int to, std::int64_t* to_at, std::size_t size,
                   unsigned flags) {
    std::error_code ec;
    const std::size_t n = splice(from, from_at, to, to_at, size, flags, ec);
    throw_if(ec, "splice");
    return n;
}

struct statx stat(const std::string& path, int flags, std::error_code& ec) {
    struct statx st {};
    ec = error_of_result(
        file_call(__NR_statx, AT_FDCWD, path.c_str(), flags, STATX_BASIC_STATS | STATX_BTIME, &st));
    return st;
}
struct statx stat(const std::string& path, int flags) {
    std::error_code ec;
    const struct statx st = stat(path, flags, ec);
    throw_if(ec, "stat", path);
    return st;
}

void rename(const std::string& from, const std::string& to, unsigned flags, std::error_code& ec) {
    ec = error_of_result(
        file_call(__NR_renameat2, AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags));
}
void rename(const std::string& from, const std::string& to, unsigned flags) {
    std::error_code ec;
    rename(from, to, flags, ec);
    if (ec) throw_if(ec, "rename", from + ' ' + to);
}

void unlink(const std::string& path, std::error_code& ec) {
    ec = error_of_result(file_call(__NR_unlink, path.c_str()));
}
void unlink(const std::string& path) {
    std::error_code ec;
    unlink(path, ec);
    throw_if(ec, "unlink", path);
}

void mkdir(const std::string& path, mode_t mode, std::error_code& ec) {
    ec = error_of_result(file_call(__NR_mkdir, path.c_str(), mode));
}
void mkdir(const std::string& path, mode_t mode) {
    std::error_code ec;
    mkdir(path, mode, ec);
    throw_if(ec, "mkdir", path);
}

void rmdir(const std::string& path, std::error_code& ec) {
    ec = error_of_result(file_call(__NR_rmdir, path.c_str()));
}
void rmdir(const std::string& path) {
    std::error_code ec;
    rmdir(path, ec);
    throw_if(ec, "rmdir", path);
}

} // namespace baton
