// SPDX-License-Identifier: Apache-2.0
//
// Calls on paths.
#include "baton/file.hpp"

#include "file/call.hpp"

namespace baton {

using detail::error_of_result;
using detail::file_call;
using detail::throw_if;

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
