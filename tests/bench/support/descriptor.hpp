// SPDX-License-Identifier: Apache-2.0
//
// A descriptor that a measured process passes to the harness, over a Unix socket it inherited.
#pragma once

#include <sys/socket.h>

#include <cstring>

namespace bench {

/// Room for one descriptor beside a message of one byte.
struct DescriptorMessage {
    char byte = 'd';
    iovec text{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};

    DescriptorMessage() {
        header.msg_iov = &text;
        header.msg_iovlen = 1;
        header.msg_control = control;
        header.msg_controllen = sizeof control;
    }
};

inline bool send_descriptor(int socket, int fd) {
    DescriptorMessage message;
    cmsghdr* entry = CMSG_FIRSTHDR(&message.header);
    entry->cmsg_level = SOL_SOCKET;
    entry->cmsg_type = SCM_RIGHTS;
    entry->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(entry), &fd, sizeof fd);
    return ::sendmsg(socket, &message.header, 0) == 1;
}

/// Waits for it; -1 if the other end is closed without one.
inline int receive_descriptor(int socket) {
    DescriptorMessage message;
    if (::recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC) != 1) return -1;
    const cmsghdr* entry = CMSG_FIRSTHDR(&message.header);
    if (entry == nullptr || entry->cmsg_type != SCM_RIGHTS) return -1;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(entry), sizeof fd);
    return fd;
}

} // namespace bench
