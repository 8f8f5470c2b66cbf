// SPDX-License-Identifier: Apache-2.0
#include "assist/pins.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel/syscall.hpp"

namespace baton::assist {
namespace {

constexpr char kBpffs[] = "/sys/fs/bpf";
constexpr char kNamespaceLink[] = "ns";
/// All that is ever created in a process's directory, and so all that is removed from one.
constexpr std::array kNames = {"m", "p", "sched", "ms", kNamespaceLink};

// 0, or the process whose pins these are: a forked child sees its parent's id here.
std::atomic<long> pinned_by{0};

/// A path in fixed memory: remove_pins must not allocate.
struct Path {
    char text[64];
    template <class... Args>
    explicit Path(const char* format, Args... args) {
        std::snprintf(text, sizeof text, format, args...);
    }
};
// "/sys/fs/bpf/baton/" 18, a pid 7 (or any digits, cut), "/sched" 6.
static_assert(sizeof kPinRoot + 1 + 10 + sizeof "/sched" <= sizeof(Path));

// Written before pinned_by is set, read after it is seen: release and acquire.
char own_dir[sizeof(Path)];

/// Empties the directory of all we may have put there, and removes it. 0 or -errno.
/// Async-signal-safe: only system calls, and a path put together by hand.
int remove_dir(const char* dir) noexcept {
    char path[sizeof(Path)];
    const std::size_t length = std::strlen(dir);
    for (const char* name : kNames) {
        if (length + 1 + std::strlen(name) + 1 > sizeof path) return -ENAMETOOLONG;
        char* end = ::stpcpy(path, dir);
        *end++ = '/';
        ::stpcpy(end, name);
        (void)kernel::raw_syscall(__NR_unlinkat, AT_FDCWD, path, 0);
    }
    return static_cast<int>(kernel::raw_syscall(__NR_unlinkat, AT_FDCWD, dir, AT_REMOVEDIR));
}

/// The link's text, empty if it cannot be read: "pid:[4026531836]".
std::string read_link(const char* path) {
    char text[64];
    const ssize_t n = ::readlink(path, text, sizeof text);
    return n > 0 ? std::string(text, static_cast<std::size_t>(n)) : std::string();
}

std::string own_namespace() { return read_link("/proc/self/ns/pid"); }

/// May this namespace judge the directory? One without a link was left half made, by anybody.
bool is_ours(const char* dir, const std::string& ns) {
    const std::string theirs = read_link(Path("%s/%s", dir, kNamespaceLink).text);
    return !ns.empty() && (theirs.empty() || theirs == ns);
}

/// The process a directory is named after, 0 if by its name it is not one of ours.
pid_t pid_of(const char* name) {
    const std::string_view digits = name;
    if (digits.empty() || digits.size() > 9 || digits[0] == '0') return 0;
    if (digits.find_first_not_of("0123456789") != std::string_view::npos) return 0;
    return std::atoi(name);
}

bool is_bpffs() {
    struct statfs fs;
    return ::statfs(kBpffs, &fs) == 0 && static_cast<unsigned>(fs.f_type) == BPF_FS_MAGIC;
}

int fail(std::string& why, const std::string& what, int error, const char* cure = "") {
    why = what + ": " + std::strerror(error) + cure;
    return -error;
}

int ensure_root(std::string& why) {
    // As systemd mounts it.
    constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (!is_bpffs() && ::mount("bpf", kBpffs, "bpf", kFlags, "mode=700") != 0) {
        return fail(why, std::string("no bpffs on ") + kBpffs, errno,
                    "; as root: mount -t bpf bpf /sys/fs/bpf");
    }
    // Like /tmp: everybody may add a directory, and remove their own.
    if (::mkdir(kPinRoot, 0700) == 0) {
        if (::chmod(kPinRoot, 01777) != 0) return fail(why, kPinRoot, errno);
        return 0;
    }
    if (errno != EEXIST) {
        return fail(why, kPinRoot, errno,
                    "; as root: chmod a+x /sys/fs/bpf; mkdir -pm 1777 /sys/fs/bpf/baton");
    }
    struct stat st;
    if (::lstat(kPinRoot, &st) != 0) return fail(why, kPinRoot, errno);
    if (!S_ISDIR(st.st_mode)) return fail(why, kPinRoot, ENOTDIR);
    return 0;
}

int make_own_dir(std::string& why) {
    const std::string ns = own_namespace();
    int r = ::mkdir(own_dir, 0700);
    if (r != 0 && errno == EEXIST && is_ours(own_dir, ns)) {
        // Named by our own id, so of a process that had it before us.
        (void)remove_dir(own_dir);
        r = ::mkdir(own_dir, 0700);
    }
    if (r != 0) return fail(why, own_dir, errno);
    if (!ns.empty() && ::symlink(ns.c_str(), Path("%s/%s", own_dir, kNamespaceLink).text) != 0) {
        return fail(why, own_dir, errno);
    }
    return 0;
}

int fill_own_dir(std::span<const PinObject> objects, std::string& why) {
    for (const PinObject& object : objects) {
        const Path path("%s/%s", own_dir, object.name);
        if (const int r = ::bpf_obj_pin(object.fd, path.text); r != 0) {
            return fail(why, path.text, -r);
        }
    }
    return 0;
}

} // namespace

int pin_objects(std::span<const PinObject> objects, std::string& why) {
    const long pid = ::getpid();
    // acquire: nothing of the last pins is still being removed when own_dir is written.
    if (pinned_by.load(std::memory_order_acquire) == pid) {
        why = "pinned already: one set of pins per process";
        return -EBUSY;
    }
    if (const int r = ensure_root(why); r != 0) return r;
    (void)sweep_pins();
    std::snprintf(own_dir, sizeof own_dir, "%s/%ld", kPinRoot, pid);
    int r = make_own_dir(why);
    if (r == 0) r = fill_own_dir(objects, why);
    if (r != 0) {
        if (r != -EEXIST) (void)remove_dir(own_dir);
        return r;
    }
    pinned_by.store(pid, std::memory_order_release); // release: own_dir is complete
    static const bool at_exit = (std::atexit(remove_pins) | std::at_quick_exit(remove_pins)) == 0;
    (void)at_exit; // without it, the sweep of the next process
    return 0;
}

void remove_pins() noexcept {
    const long pid = kernel::raw_syscall(__NR_getpid);
    long owner = pid;
    // Whoever gets it removes them. acquire: own_dir; relaxed on failure: nothing is read.
    if (!pinned_by.compare_exchange_strong(owner, 0, std::memory_order_acq_rel,
                                           std::memory_order_relaxed)) {
        return;
    }
    (void)remove_dir(own_dir);
}

int sweep_pins() noexcept {
    DIR* root = ::opendir(kPinRoot);
    if (root == nullptr) return 0;
    const std::string ns = own_namespace();
    int swept = 0;
    while (const dirent* entry = ::readdir(root)) {
        const pid_t pid = pid_of(entry->d_name);
        if (pid == 0 || entry->d_type != DT_DIR) continue;
        if (kernel::raw_syscall(__NR_kill, pid, 0) != -ESRCH) continue;
        const Path dir("%s/%d", kPinRoot, pid);
        if (is_ours(dir.text, ns) && remove_dir(dir.text) == 0) ++swept;
    }
    ::closedir(root);
    return swept;
}

} // namespace baton::assist
