// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <termios.h>

#include "preload/rows/rows.hpp"

namespace rows {

namespace {

Pair udp() {
    Pair p{Fd(::socket(AF_INET, SOCK_DGRAM, 0)), Fd(::socket(AF_INET, SOCK_DGRAM, 0))};
    sockaddr_in at[2] = {};
    const int fds[2] = {p.a, p.b};
    for (int i = 0; i < 2; i++) {
        at[i].sin_family = AF_INET;
        at[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t len = sizeof at[i];
        ::bind(fds[i], reinterpret_cast<sockaddr*>(&at[i]), len);
        ::getsockname(fds[i], reinterpret_cast<sockaddr*>(&at[i]), &len);
    }
    for (int i = 0; i < 2; i++)
        ::connect(fds[i], reinterpret_cast<sockaddr*>(&at[1 - i]), sizeof at[0]);
    return p;
}

Pair tcp() {
    Listening l = listening();
    Fd to(::socket(AF_INET, SOCK_STREAM, 0));
    ::connect(to, reinterpret_cast<sockaddr*>(&l.at), l.len);
    return {Fd(::accept(l.fd, nullptr, nullptr)), std::move(to)};
}

Pair unix_pair(int type) {
    int fds[2] = {-1, -1};
    ::socketpair(AF_UNIX, type, 0, fds);
    return {Fd(fds[0]), Fd(fds[1])};
}

Pair pty() {
    Fd master(::posix_openpt(O_RDWR | O_NOCTTY));
    ::grantpt(master);
    ::unlockpt(master);
    char name[64];
    ::ptsname_r(master, name, sizeof name);
    Fd slave(::open(name, O_RDWR | O_NOCTTY));
    termios t{};
    ::tcgetattr(slave, &t);
    ::cfmakeraw(&t);
    ::tcsetattr(slave, TCSANOW, &t);
    return {std::move(slave), std::move(master)};
}

} // namespace

Listening listening() {
    Listening l;
    l.fd = Fd(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(l.fd, reinterpret_cast<sockaddr*>(&at), sizeof at);
    ::listen(l.fd, 16);
    ::getsockname(l.fd, reinterpret_cast<sockaddr*>(&l.at), &l.len);
    return l;
}

const char* name_of(Ends ends) {
    constexpr const char* kNames[] = {"unix", "tcp", "udp", "dgram", "seqpacket", "pipe", "pty"};
    return kNames[static_cast<int>(ends)];
}

Pair make(Ends ends) {
    switch (ends) {
    case Ends::kUnix:
        return unix_pair(SOCK_STREAM);
    case Ends::kTcp:
        return tcp();
    case Ends::kUdp:
        return udp();
    case Ends::kDgram:
        return unix_pair(SOCK_DGRAM);
    case Ends::kSeqpacket:
        return unix_pair(SOCK_SEQPACKET);
    case Ends::kPipe: {
        int fds[2] = {-1, -1};
        (void)!::pipe(fds);
        return {Fd(fds[0]), Fd(fds[1])};
    }
    default:
        return pty();
    }
}

} // namespace rows
