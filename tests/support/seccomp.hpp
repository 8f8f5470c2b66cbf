// SPDX-License-Identifier: Apache-2.0
//
// System calls that answer what a test wants, as in a container that filters them or on a machine
// that is short of something. For a child process: what is filtered stays so until its end.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <optional>
#include <thread>
#include <utility>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

namespace seccomp_test {

/// Whatever calls `nr`, with `second` as its second argument if that is said, meets `action`.
inline int install(int nr, std::optional<std::uint32_t> second, std::uint32_t action,
                   unsigned flags) {
    const auto test = static_cast<std::uint16_t>(second ? BPF_JEQ : BPF_JGE);
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(nr), 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | test | BPF_K, second.value_or(0), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{std::size(code), code};
    REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    return static_cast<int>(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter));
}

/// From here on it answers `err` on every thread; 0: that it is done.
inline void refuse(int nr, int err, std::optional<std::uint32_t> second = {}) {
    REQUIRE(install(nr, second, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(err),
                    SECCOMP_FILTER_FLAG_TSYNC) == 0);
}

/// From here on it answers answer(n) the nth time, from 0: an errno, or 0 for what the kernel does.
/// Of this thread and those it makes.
class Answers {
public:
    Answers(int nr, std::function<int(int)> answer) : answer_(std::move(answer)) {
        calls_ = install(nr, {}, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
        REQUIRE(calls_ >= 0);
        std::thread([this] { serve(); }).detach(); // until the process ends
    }
    Answers(const Answers&) = delete;
    Answers& operator=(const Answers&) = delete;
    /// How often it was called.
    int calls() const { return n_; }

private:
    [[noreturn]] void serve() {
        for (;;) {
            seccomp_notif call{};
            if (::ioctl(calls_, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;
            const int err = answer_(n_++);
            seccomp_notif_resp answer{call.id, 0, -err, 0};
            if (err == 0) answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
            (void)::ioctl(calls_, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        }
    }
    std::function<int(int)> answer_;
    std::atomic<int> n_{0};
    int calls_ = -1;
};

} // namespace seccomp_test
