// SPDX-License-Identifier: Apache-2.0
//
// Dialling, by RFC 8305 where there are several addresses: each gets a head start before the next
// one is tried beside it, or less if it fails; the first to connect wins.
//
// The caller itself tries the first one. Only an attempt that its head start was not enough for
// goes to a goroutine of its own, so most dials need none.
#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/semaphore.hpp"
#include "io/netfd.hpp"
#include "io/resolve.hpp"
#include "kernel/clock.hpp"
#include "kernel/syscall.hpp"
#include "runtime/limit.hpp"
#include "runtime/runtime.hpp"

namespace baton {

using detail::error_of;
using detail::NetFd;
using kernel::raw_syscall;

namespace {

constexpr int kSelfConnectRetries = 3;
constexpr std::ptrdiff_t kWaitsForRoomMax = 16;
constexpr std::int64_t kWaitForRoomNs = 50'000'000;

/// How many wait for room with a listener at once, each with a thread.
Semaphore& waits_for_room() {
    static Semaphore permits(kWaitsForRoomMax);
    return permits;
}

/// A Unix socket whose listener's queue is full answers EAGAIN, and no event will ever tell when
/// there is room: only a blocking connect waits for it. So that is what we make, announced, and
/// short ones: the next one has another's turn, and the stop token is looked at between them.
/// Rejected: looking again and again. Of many who wait all look at once, and one finds room.
int connect_blocking(int fd, const SocketAddress& to, const Until& until) {
    const long flags = raw_syscall(__NR_fcntl, fd, F_GETFL, 0);
    if (flags < 0) return static_cast<int>(-flags);
    for (;;) {
        std::error_code ec;
        if (!waits_for_room().acquire(until, ec)) return ec.value();
        const std::int64_t ns = std::min(until.when_ns() - kernel::nanotime(), kWaitForRoomNs);
        const timeval tv{0, std::max<std::int64_t>(ns / 1000, 1)};
        (void)raw_syscall(__NR_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
        (void)raw_syscall(__NR_fcntl, fd, F_SETFL, flags & ~O_NONBLOCK);
        const long rc = blocking([&] { return raw_syscall(__NR_connect, fd, &to.sa, to.len); });
        waits_for_room().release();
        (void)raw_syscall(__NR_fcntl, fd, F_SETFL, flags);
        if (const auto end = rt::over(until); end != detail::WaitEnd::kDone && rc == -EAGAIN)
            return detail::wait_error(end).value();
        if (rc == -EAGAIN || rc == -EINTR) continue;
        const timeval never{};
        (void)raw_syscall(__NR_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &never, sizeof never);
        return static_cast<int>(-rc);
    }
}

/// A dial to a free local port in the ephemeral range may be given that very port and connect to
/// itself. Nobody wants that.
bool self_connected(int fd) {
    const SocketAddress here = detail::socket_address(__NR_getsockname, fd);
    return here.is_ip() && here == detail::socket_address(__NR_getpeername, fd);
}

/// A connection under way.
struct Attempt {
    std::unique_ptr<NetFd> net;
    int err = 0; // net is null then
    bool pending = false;
};

void set_options(int fd, const DialOptions& options) {
    if (options.no_delay) (void)detail::set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (options.keep_alive) (void)detail::set_keep_alive(fd, options.keep_alive);
}

/// Waits only for the queue of a Unix listener.
Attempt begin(const SocketAddress& to, const Until& until, const DialOptions& options) {
    Attempt a;
    detail::OwnedFd fd(detail::open_socket(to.family(), SOCK_STREAM, false));
    if (fd.get() < 0) {
        a.err = -fd.get();
        return a;
    }
    if (to.is_ip()) set_options(fd.get(), options);
    long rc = raw_syscall(__NR_connect, fd.get(), &to.sa, to.len);
    if (rc == -EAGAIN && to.family() == AF_UNIX) rc = -connect_blocking(fd.get(), to, until);
    // Interrupted or not, it goes on without us.
    a.pending = rc == -EINPROGRESS || rc == -EINTR;
    if (rc < 0 && !a.pending) {
        a.err = static_cast<int>(-rc);
        return a;
    }
    // Registered only now: an unconnected TCP socket counts as hung up.
    a.net = detail::ParkFd::adopt<NetFd>(fd, &a.err, to.family(), SOCK_STREAM);
    if (a.net) a.net->set_peer(to);
    return a;
}

/// The same, and again if it has reached itself.
Attempt begin_apart(const SocketAddress& to, const Until& until, const DialOptions& options) {
    Attempt a = begin(to, until, options);
    for (int again = 0; again < kSelfConnectRetries; again++) {
        if (!a.net || a.pending || !self_connected(a.net->fd())) break;
        a = begin(to, until, options);
    }
    return a;
}

/// Waits for its end. True: connected, or failed for good. False: `until` was over, it goes on.
bool finish(Attempt& a, const Until& until) {
    if (a.net && a.pending) {
        const int err = a.net->wait_connected(until);
        if (err != 0 && rt::over(until) != detail::WaitEnd::kDone) return false;
        a.pending = false;
        a.err = err;
    }
    if (a.net && a.err == 0 && self_connected(a.net->fd())) a.err = ECONNREFUSED;
    if (a.err != 0) a.net.reset();
    return true;
}

/// Attempts that go on by themselves.
class Race {
public:
    explicit Race(std::size_t n) : ends_(n) {}
    ~Race() { stop_.request_stop(); }
    Race(const Race&) = delete;
    Race& operator=(const Race&) = delete;

    void add(Attempt a) {
        going_++;
        go([a = std::move(a), ends = ends_, token = stop_.get_token()]() mutable {
            if (!finish(a, token)) return;
            ends.send(std::move(a));
        });
    }
    std::size_t going() const { return going_; }
    /// The next to end; nothing if `until` is over first.
    std::optional<Attempt> next(const Until& until) {
        std::error_code ec;
        std::optional<Attempt> a = ends_.recv(until, ec);
        if (a) going_--;
        return a;
    }

private:
    Chan<Attempt> ends_; // room for all: none waits
    std::stop_source stop_;
    std::size_t going_ = 0;
};

/// What dial() is about, and what came of it.
struct Dial {
    std::span<const SocketAddress> to;
    const Until& until;
    const DialOptions& options;
    std::unique_ptr<NetFd> net;
    int err = 0; // the last one's

    bool over() {
        const auto end = rt::over(until);
        if (end != detail::WaitEnd::kDone) err = detail::wait_error(end).value();
        return end != detail::WaitEnd::kDone;
    }
    /// True if it is the one.
    bool take(Attempt a) {
        err = a.err;
        net = std::move(a.net);
        return net != nullptr;
    }
    Until head_start() const;
    void run();
};

/// When the next address is to be tried as well.
Until Dial::head_start() const {
    using std::chrono::steady_clock;
    const steady_clock::time_point end{std::chrono::nanoseconds(until.when_ns())};
    return {std::min<steady_clock::time_point>(end, steady_clock::now() + options.head_start),
            until.token()};
}

void Dial::run() {
    std::unique_ptr<Race> race; // made when it begins
    const auto racing = [&race] { return race && race->going() > 0; };
    for (std::size_t i = 0; i < to.size(); i++) {
        if (over()) return;
        Attempt a = begin_apart(to[i], until, options);
        if (!a.net) {
            err = a.err;
            continue;
        }
        const Until patience = i + 1 == to.size() ? until : head_start();
        if (!racing() && finish(a, patience)) {
            if (take(std::move(a))) return;
            continue;
        }
        const bool alone = !racing();
        if (!race) race = std::make_unique<Race>(to.size());
        race->add(std::move(a));
        if (alone) continue; // it has had its start
        if (std::optional<Attempt> end = race->next(patience); end && take(std::move(*end))) return;
    }
    while (racing() && !over()) {
        std::optional<Attempt> end = race->next(until);
        if (end && take(std::move(*end))) return;
    }
}

} // namespace

Conn Conn::dial(std::span<const SocketAddress> addresses, const Until& until, std::error_code& ec,
                const DialOptions& options) {
    rt::must_park("Conn::dial");
    Dial dial{addresses, until, options, nullptr, addresses.empty() ? EINVAL : 0};
    try {
        dial.run();
    } catch (const std::system_error& e) { // no goroutine to be had
        dial.net.reset();
        dial.err = e.code().value();
    }
    ec = error_of(dial.net ? 0 : dial.err);
    return Conn(std::move(dial.net));
}

Conn Conn::dial(std::span<const SocketAddress> addresses, const Until& until,
                const DialOptions& options) {
    std::error_code ec;
    Conn conn = dial(addresses, until, ec, options);
    if (ec)
        throw std::system_error(ec,
                                addresses.empty() ? "dial" : "dial " + addresses.front().text());
    return conn;
}

Conn Conn::dial(std::string_view network, std::string_view address, const Until& until,
                std::error_code& ec, const DialOptions& options) {
    rt::must_park("Conn::dial");
    if (detail::network_of(network).type != SOCK_STREAM) {
        ec = error_of(EINVAL);
        return {};
    }
    const auto list = detail::resolve_for(detail::AddressUse::kDial, network, address, until, ec);
    return ec ? Conn() : dial(list, until, ec, options);
}

Conn Conn::dial(std::string_view network, std::string_view address, const Until& until,
                const DialOptions& options) {
    std::error_code ec;
    Conn conn = dial(network, address, until, ec, options);
    if (!ec) return conn;
    std::string what = "dial " + std::string(network) + ' ' + std::string(address);
    const auto list = detail::parse_address(network, address, detail::AddressUse::kDial);
    if (list.hint) what += std::string(" (") + list.hint + ')';
    throw std::system_error(ec, what);
}

} // namespace baton
