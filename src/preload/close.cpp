// SPDX-License-Identifier: Apache-2.0
//
// Closing: who waits for the descriptor is woken first, and gets EBADF. (In the kernel a thread
// that waits goes on waiting, for something that nobody else can name.)
#include <linux/close_range.h>
#include <unistd.h>

#include "preload/fd.hpp"

namespace baton::preload {

int g_close(int fd) {
    closing(fd);
    return blocking(real_close(), fd); // it may linger
}

int g_dup2(int fd, int to) {
    if (fd != to) closing(to);
    return blocking(real_dup2(), fd, to);
}

int g_dup3(int fd, int to, int flags) {
    if (fd != to) closing(to);
    return blocking(real_dup3(), fd, to, flags);
}

int g_close_range(unsigned first, unsigned last, int flags) {
    if (!(flags & CLOSE_RANGE_CLOEXEC)) closing_range(first, last);
    return blocking(real_close_range(), first, last, flags);
}

void g_closefrom(int first) {
    closing_range(first < 0 ? 0 : static_cast<unsigned>(first), UINT32_MAX);
    blocking(real_closefrom(), first);
}

} // namespace baton::preload
