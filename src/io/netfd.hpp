// SPDX-License-Identifier: Apache-2.0
//
// NetFd: a socket that parks; what Conn, Listener and PacketConn are made of.
//
// Threads: as ParkFd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "baton/listener.hpp"
#include "baton/packet.hpp"
#include "io/address.hpp"
#include "io/parkfd.hpp"

struct msghdr;

namespace baton::detail {

/// So many parts of a vector, or datagrams of a batch, go into one system call.
inline constexpr std::size_t kPartsMax = 64;
inline constexpr std::size_t kBatchMax = 32;

class NetFd : public ParkFd {
public:
    NetFd(int fd, rt::PollDesc* pd, int family, int type)
        : ParkFd(fd, pd), family_(static_cast<std::uint16_t>(family)),
          type_(static_cast<std::uint16_t>(type)) {}
    ~NetFd() { close(); }

    // netfd.cpp: streams
    IoResult read(std::byte* buf, std::size_t size, const Until* until);
    IoResult write(const std::byte* buf, std::size_t size, const Until* until);
    IoResult readv(std::span<const std::span<std::byte>> bufs, const Until* until);
    IoResult writev(std::span<const std::span<const std::byte>> bufs, const Until* until);
    IoResult write_zero_copy(const std::byte* buf, std::size_t size, const Until* until);
    // netfd_file.cpp
    IoResult send_file(int from, std::int64_t* from_at, std::size_t size, const Until* until);
    // netfd_accept.cpp
    /// The next connection, in *peer_fd.
    int accept(OwnedFd* peer_fd, SocketAddress* peer, const Until* until);
    /// After a connect that answered EINPROGRESS.
    int wait_connected(const Until& until);
    // netfd_message.cpp: messages with descriptors, datagrams
    IoResult send_fds(std::span<const std::byte> bytes, std::span<const int> fds,
                      const Until* until);
    IoResult recv_fds(std::span<std::byte> buf, std::vector<int>& fds, const Until* until);
    IoResult send(std::span<const std::byte> buf, const SocketAddress* to, const Until* until);
    IoResult recv(std::span<std::byte> buf, SocketAddress* from, const Until* until);
    IoResult send_batch(std::span<const Packet> packets, const Until* until);
    IoResult recv_batch(std::span<Packet> packets, const Until* until);

    int set_deadline(const Deadline& d, bool read, bool write);
    int shutdown(int how);
    void close() noexcept;

    SocketAddress local();
    SocketAddress peer() const;
    void set_peer(const SocketAddress& peer);
    const char* network() const;
    int family() const { return family_; }
    int type() const { return type_; }

    /// The Unix socket file that close removes, unless another has taken its place.
    void own_path(std::string path);

private:
    template <class Attempt>
    long receive(std::size_t want, const Until* until, Attempt attempt);
    template <class Send>
    long send_to_any(const Until* until, Send send);
    int pause(Side side, std::int64_t pause_ns, const Until* until);
    int reap_zero_copies();
    void remove_path() noexcept;

    const std::uint16_t family_;
    const std::uint16_t type_;
    // The last read left nothing behind: the next one waits first. The reader's.
    bool drained_ = false;
    // SO_ZEROCOPY is set; how many sends are not known to be done with. The writer's.
    bool zero_copy_ = false;
    std::uint32_t zero_copies_ = 0;
    sockaddr_in6 ip_peer_{}; // or a sockaddr_in; family 0: none
    // Unix: the file that is ours to remove, or the peer's name.
    struct Path {
        std::string text;
        std::uint64_t ino = 0;
        std::uint64_t dev = 0;
    };
    std::unique_ptr<Path> path_;
};

/// Fills `*ec`, or throws std::system_error if that is null and there is an error:
/// "read tcp 127.0.0.1:80: Connection reset by peer". Returns r.n.
std::size_t result_of(const char* operation, const NetFd* fd, const IoResult& r,
                      std::error_code* ec);
[[noreturn]] void throw_net_error(const char* operation, const NetFd* fd, std::error_code ec);

/// A socket of the runtime's kind, IPv6 ones for both families unless `v6only`. -errno on failure.
int open_socket(int family, int type, bool v6only) noexcept;
int set_option(int fd, int level, int name, int value) noexcept;
int set_keep_alive(int fd, const std::optional<KeepAlive>& keep_alive) noexcept;
/// The user's socket, made non-blocking; on failure null and *err, and it stays his.
std::unique_ptr<NetFd> adopt_socket(int fd, int type, int* err);

} // namespace baton::detail
