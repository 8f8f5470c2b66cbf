// SPDX-License-Identifier: Apache-2.0
//
// Memory whose pages are slow to come, by userfaultfd: who touches one for the first time sleeps in
// a page fault until somebody gives it, as one does on a mapped file that lies on a slow disk.
//
//   SlowPages    the memory, in the process that touches it
//   serve_pages  gives each page some time after it was asked for: on any thread, in any process
//   PageServer   a thread that does so
//
// The kernel must allow it: root, or vm.unprivileged_userfaultfd.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace slow_pages {

inline constexpr std::size_t kPage = 4096;
/// What every byte of a page is.
inline constexpr char kByte = 0x5a;

[[noreturn]] inline void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

/// Puts the page there and wakes who waits for it; also where it is there already, as one that was
/// interrupted in its fault and asks again is told twice. Nothing, if its process has ended.
inline void give_page(int fd, std::uintptr_t page) {
    alignas(kPage) static const struct Full {
        char bytes[kPage];
        Full() { std::memset(bytes, kByte, sizeof bytes); }
    } full;
    for (;;) {
        uffdio_copy copy{page, reinterpret_cast<std::uintptr_t>(full.bytes), kPage, 0, 0};
        if (::ioctl(fd, UFFDIO_COPY, &copy) == 0 || errno == ESRCH) return;
        if (errno == EEXIST) break;
        if (errno != EAGAIN) fail("UFFDIO_COPY");
    }
    uffdio_range range{page, kPage};
    if (::ioctl(fd, UFFDIO_WAKE, &range) != 0 && errno != ESRCH) fail("UFFDIO_WAKE");
}

/// So many pages, none of them there.
class SlowPages {
public:
    explicit SlowPages(std::size_t pages)
        : bytes_(pages * kPage),
          fd_(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK))) {
        if (fd_ < 0) fail("userfaultfd");
        uffdio_api api{UFFD_API, 0, 0};
        if (::ioctl(fd_, UFFDIO_API, &api) != 0) fail("UFFDIO_API");
        void* at =
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) fail("mmap");
        memory_ = static_cast<char*>(at);
        // With huge pages one fault would bring 512.
        (void)::madvise(memory_, bytes_, MADV_NOHUGEPAGE);
        uffdio_register range{
            {reinterpret_cast<std::uintptr_t>(memory_), bytes_}, UFFDIO_REGISTER_MODE_MISSING, 0};
        if (::ioctl(fd_, UFFDIO_REGISTER, &range) != 0) fail("UFFDIO_REGISTER");
    }
    ~SlowPages() {
        ::munmap(memory_, bytes_);
        ::close(fd_);
    }
    SlowPages(const SlowPages&) = delete;
    SlowPages& operator=(const SlowPages&) = delete;

    /// Reads from page `i`: sleeps until it is there.
    [[nodiscard]] char touch(std::size_t i) const {
        return *const_cast<const volatile char*>(page(i));
    }
    [[nodiscard]] char* page(std::size_t i) const { return memory_ + i * kPage; }
    void give(std::size_t i) const { give_page(fd_, reinterpret_cast<std::uintptr_t>(page(i))); }
    /// Waits until somebody has asked for a page.
    void wait_asked() const {
        pollfd asked{fd_, POLLIN, 0};
        while (::poll(&asked, 1, -1) != 1) {
        }
    }
    /// All are gone again.
    void take_back() const {
        if (::madvise(memory_, bytes_, MADV_DONTNEED) != 0) fail("madvise");
    }
    [[nodiscard]] int fd() const { return fd_; }

private:
    std::size_t bytes_;
    int fd_;
    char* memory_ = nullptr;
};

/// Gives each page of a userfaultfd `after` it was asked for, less than a second, until `hangup`, a
/// pipe or a socket, is closed at its other end.
inline void serve_pages(int fd, std::chrono::nanoseconds after, int hangup) {
    using Clock = std::chrono::steady_clock;
    struct Asked {
        std::uintptr_t page;
        Clock::time_point due;
    };
    std::deque<Asked> asked;
    ::prctl(PR_SET_TIMERSLACK, 1UL);
    for (;;) {
        pollfd fds[] = {{fd, POLLIN, 0}, {hangup, 0, 0}};
        timespec wait{};
        if (!asked.empty()) {
            const auto left = asked.front().due - Clock::now();
            wait.tv_nsec = std::max<long>(0, left / std::chrono::nanoseconds(1));
        }
        (void)::ppoll(fds, 2, asked.empty() ? nullptr : &wait, nullptr);
        if (fds[1].revents != 0) return;
        for (uffd_msg msg; ::read(fd, &msg, sizeof msg) == sizeof msg;)
            asked.push_back({msg.arg.pagefault.address & ~(kPage - 1), Clock::now() + after});
        for (; !asked.empty() && asked.front().due <= Clock::now(); asked.pop_front())
            give_page(fd, asked.front().page);
    }
}

/// serve_pages on a thread of its own.
class PageServer {
public:
    PageServer(const SlowPages& pages, std::chrono::nanoseconds after) {
        if (::pipe2(pipe_, O_CLOEXEC) != 0) fail("pipe");
        thread_ = std::thread(serve_pages, pages.fd(), after, pipe_[0]);
    }
    ~PageServer() {
        ::close(pipe_[1]);
        thread_.join();
        ::close(pipe_[0]);
    }
    PageServer(const PageServer&) = delete;
    PageServer& operator=(const PageServer&) = delete;

private:
    int pipe_[2];
    std::thread thread_;
};

} // namespace slow_pages
