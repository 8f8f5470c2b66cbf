// SPDX-License-Identifier: Apache-2.0
//
// Calls by path: what is there, and its names.
#include <cstdlib>

#include <dirent.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "preload/rows/named.hpp"

namespace rows {

namespace {

using Size = std::size_t;

/// A folder with a file of 5 bytes, "file", and a link to it, "link"; removed at the end.
class Folder {
public:
    Folder() {
        char name[] = "/tmp/baton-rows-XXXXXX";
        path_ = ::mkdtemp(name);
        fd_ = Fd(::open(name, O_RDONLY | O_DIRECTORY));
        const Fd file(::openat(fd_, "file", O_CREAT | O_WRONLY, 0640));
        (void)!::write(file, "12345", 5);
        ::symlinkat("file", fd_, "link");
    }
    ~Folder() {
        for (const char* name : {"file", "link", "other"}) ::unlinkat(fd_, name, 0);
        ::unlinkat(fd_, "sub", AT_REMOVEDIR);
        ::rmdir(path_.c_str());
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string operator/(const char* name) const { return path_ + "/" + name; }
    int fd() const { return fd_; }
    Size length() const { return path_.size(); }

private:
    std::string path_;
    Fd fd_;
};

/// What is said of "file", "link" and of what is not there.
template <class F>
void add_row(Rows& rows, const std::string& name, F look) {
    rows.push_back({name, [=] {
                        const Folder folder;
                        std::string what;
                        for (const char* file : {"file", "link", "none"})
                            what += look(folder, file) + ", ";
                        return what;
                    }});
}

template <class Stat>
std::string shown(int rc, const Stat& st) {
    if (rc != 0) return result(rc);
    return std::to_string(S_ISLNK(st.st_mode)) + std::to_string(st.st_size);
}

template <class Stat>
void add_stats(Rows& rows, const std::string& suffix) {
    for (const char* base : {"stat", "lstat"}) {
        const auto f = named<int(const char*, Stat*)>((base + suffix).c_str());
        add_row(rows, base + suffix, [=](const Folder& folder, const char* file) {
            Stat st{};
            return shown(f((folder / file).c_str(), &st), st);
        });
    }
    for (const char* base : {"__xstat", "__lxstat"}) {
        const auto f = named<int(int, const char*, Stat*)>((base + suffix).c_str());
        add_row(rows, base + suffix, [=](const Folder& folder, const char* file) {
            Stat st{};
            return shown(f(1, (folder / file).c_str(), &st), st);
        });
    }
    const auto at = named<int(int, const char*, Stat*, int)>(("fstatat" + suffix).c_str());
    const auto old = named<int(int, int, const char*, Stat*, int)>(("__fxstatat" + suffix).c_str());
    add_row(rows, "fstatat" + suffix, [=](const Folder& folder, const char* file) {
        Stat st{};
        std::string what = shown(at(folder.fd(), file, &st, 0), st);
        what += shown(at(folder.fd(), file, &st, AT_SYMLINK_NOFOLLOW), st);
        return what + shown(old(1, folder.fd(), file, &st, AT_SYMLINK_NOFOLLOW), st);
    });
}

template <class Fs>
void add_fs(Rows& rows, const char* name) {
    const auto f = named<int(const char*, Fs*)>(name);
    add_row(rows, name, [=](const Folder& folder, const char* file) {
        Fs fs{};
        const std::string what = result(f((folder / file).c_str(), &fs));
        return what + std::to_string(fs.f_bsize > 0);
    });
}

void add_looks(Rows& rows) {
    add_stats<struct stat>(rows, "");
    add_stats<struct stat64>(rows, "64");
    add_row(rows, "statx", [](const Folder& folder, const char* file) {
        struct statx st {};
        const int rc = ::statx(folder.fd(), file, AT_SYMLINK_NOFOLLOW, STATX_SIZE, &st);
        return result(rc) + std::to_string(st.stx_size);
    });
    add_fs<struct statfs>(rows, "statfs");
    add_fs<struct statfs>(rows, "__statfs");
    add_fs<struct statfs64>(rows, "statfs64");
    add_fs<struct statvfs>(rows, "statvfs");
    add_fs<struct statvfs64>(rows, "statvfs64");
    for (const char* name : {"access", "eaccess", "euidaccess"}) {
        const auto f = named<int(const char*, int)>(name);
        add_row(rows, name, [=](const Folder& folder, const char* file) {
            return result(f((folder / file).c_str(), R_OK)) +
                   result(f((folder / file).c_str(), X_OK));
        });
    }
    add_row(rows, "faccessat", [](const Folder& folder, const char* file) {
        return result(::faccessat(folder.fd(), file, X_OK, AT_EACCESS));
    });
}

void add_links(Rows& rows) {
    const auto readlink_chk = named<ssize_t(const char*, char*, Size, Size)>("__readlink_chk");
    const auto at_chk = named<ssize_t(int, const char*, char*, Size, Size)>("__readlinkat_chk");
    add_row(rows, "readlink, readlinkat", [=](const Folder& folder, const char* file) {
        char b[16] = {};
        const std::string path = folder / file;
        std::string what = result(::readlink(path.c_str(), b, 2)) + b;
        what += result(::readlinkat(folder.fd(), file, b, 15)) + b;
        what += result(readlink_chk(path.c_str(), b, 3, 16));
        return what + result(at_chk(folder.fd(), file, b, 15, 16)) + b;
    });
    const auto realpath_chk = named<char*(const char*, char*, Size)>("__realpath_chk");
    add_row(rows, "realpath", [=](const Folder& folder, const char* file) {
        char b[4096];
        const std::string path = folder / file;
        char* found = ::realpath(path.c_str(), nullptr);
        std::string what = found ? found + folder.length() : result(-1);
        ::free(found);
        found = realpath_chk(path.c_str(), b, sizeof b);
        return what + (found ? found + folder.length() : result(-1));
    });
}

template <class Entry>
void add_readdir(Rows& rows, const char* name) {
    const auto f = named<Entry*(DIR*)>(name);
    rows.push_back({name, [=] {
                        const Folder folder;
                        DIR* d = ::opendir((folder / ".").c_str());
                        int n = 0, known = 0;
                        while (const Entry* e = f(d)) {
                            n++;
                            known += e->d_name == std::string("link");
                        }
                        ::closedir(d);
                        d = ::opendir((folder / "none").c_str());
                        return std::to_string(n) + std::to_string(known) + (d ? "" : result(-1));
                    }});
}

void add_names(Rows& rows) {
    const auto row = [&](const char* name, std::function<std::string(const Folder&)> body) {
        rows.push_back({name, [=] {
                            const Folder folder;
                            return body(folder);
                        }});
    };
    row("rename", [](const Folder& folder) {
        const std::string file = folder / "file", other = folder / "other";
        std::string what = result(::rename(file.c_str(), other.c_str()));
        what += result(::rename(file.c_str(), other.c_str()));
        what += result(::renameat(folder.fd(), "other", folder.fd(), "file"));
        what += result(::renameat(folder.fd(), "other", folder.fd(), "file"));
        what += result(::renameat2(folder.fd(), "file", folder.fd(), "link", RENAME_NOREPLACE));
        return what + result(::renameat2(folder.fd(), "file", folder.fd(), "link", 0));
    });
    row("link, symlink", [](const Folder& folder) {
        const std::string file = folder / "file", other = folder / "other";
        std::string what = result(::link(file.c_str(), other.c_str()));
        what += result(::linkat(folder.fd(), "file", folder.fd(), "other", 0));
        what += result(::symlink("x", other.c_str())) + result(::unlink(other.c_str()));
        return what + result(::symlink("x", other.c_str())) +
               result(::symlinkat("x", folder.fd(), "other"));
    });
    row("unlink, remove", [](const Folder& folder) {
        const std::string file = folder / "file", link = folder / "link";
        std::string what = result(::unlink(file.c_str())) + result(::unlink(file.c_str()));
        what += result(::unlinkat(folder.fd(), "file", 0));
        return what + result(::remove(link.c_str())) + result(::remove(link.c_str()));
    });
    row("mkdir, rmdir", [](const Folder& folder) {
        const std::string sub = folder / "sub";
        std::string what = result(::mkdir(sub.c_str(), 0700));
        what += result(::mkdirat(folder.fd(), "sub", 0700)) + result(::rmdir(sub.c_str()));
        what += result(::rmdir(sub.c_str())) + result(::mkdirat(folder.fd(), "sub", 0700));
        return what + result(::rmdir((folder / "file").c_str()));
    });
}

} // namespace

void add_paths(Rows& rows) {
    add_looks(rows);
    add_links(rows);
    add_readdir<dirent>(rows, "readdir");
    add_readdir<dirent64>(rows, "readdir64");
    add_names(rows);
}

} // namespace rows
