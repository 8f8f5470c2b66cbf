// SPDX-License-Identifier: Apache-2.0
//
// Names. getaddrinfo blocks for seconds at times, inside libraries that hold locks and
// thread_locals of their own. So it runs bracketed on a goroutine made for it, with the stack that
// such libraries expect, and whoever asked may go away meanwhile.
//
// Rejected: a resolver of our own, which would have to follow nsswitch.conf and what stands behind
// it. c-ares, which needs no thread, for the same reason: of nsswitch.conf's sources it knows files
// and dns, so that a name of another (resolve, mymachines, mdns, LDAP) would be found by every
// program but ours. The bound of 64 is 3,200 look-ups a second where each takes 20 ms. No bound:
// one dead name server would turn every dial into a thread.
#include <cerrno>
#include <memory>
#include <string>

#include <netdb.h>

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/run.hpp"
#include "baton/semaphore.hpp"
#include "io/resolve.hpp"
#include "runtime/limit.hpp"
#include "runtime/runtime.hpp"

namespace baton {

namespace {

constexpr std::ptrdiff_t kLookupsMax = 64;
constexpr std::size_t kStackBytes = 512 << 10; // glibc's modules take it for granted

Semaphore& lookups() {
    static Semaphore permits(kLookupsMax);
    return permits;
}

class ResolveCategory : public std::error_category {
public:
    const char* name() const noexcept override { return "baton.resolve"; }
    std::string message(int code) const override { return ::gai_strerror(code); }
};

struct Answer {
    std::vector<SocketAddress> list;
    std::error_code ec;
};

std::error_code error_of_gai(int code, int err) {
    if (code == EAI_SYSTEM) return {err, std::generic_category()};
    return {code, resolve_category()};
}

Answer look_up(const std::string& name, std::uint16_t port, const detail::Network& net) {
    addrinfo hints{};
    hints.ai_family = net.family;
    hints.ai_socktype = net.type;
    hints.ai_flags = AI_ADDRCONFIG;
    addrinfo* found = nullptr;
    int err = 0;
    const int code = blocking([&] {
        const int rc = ::getaddrinfo(name.c_str(), nullptr, &hints, &found);
        err = errno;
        return rc;
    });
    Answer answer;
    if (code != 0) {
        answer.ec = error_of_gai(code, err);
        return answer;
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
    for (const addrinfo* a = found; a; a = a->ai_next) {
        SocketAddress address;
        if (a->ai_addrlen > sizeof address.un) continue;
        __builtin_memcpy(&address.sa, a->ai_addr, a->ai_addrlen);
        address.len = a->ai_addrlen;
        if (!address.is_ip()) continue;
        (address.family() == AF_INET ? address.in4.sin_port : address.in6.sin6_port) = htons(port);
        answer.list.push_back(address);
    }
    answer.list = detail::interleave(std::move(answer.list));
    return answer;
}

std::vector<SocketAddress> ask(const detail::AddressList& parsed, const detail::Network& net,
                               const Until& until, std::error_code& ec) {
    // Nothing here can be done at once.
    ec = detail::wait_error(rt::over(until));
    if (ec || !lookups().acquire(until, ec)) return {};
    Chan<Answer> answers(1);
    try {
        go(GoOptions{kStackBytes},
           [answers, name = std::string(parsed.name), port = parsed.port, net]() mutable {
               struct Release {
                   ~Release() { lookups().release(); }
               } release;
               answers.send(look_up(name, port, net));
           });
    } catch (...) {
        lookups().release();
        throw;
    }
    std::optional<Answer> answer = answers.recv(until, ec);
    if (!answer) return {};
    ec = answer->ec;
    return std::move(answer->list);
}

} // namespace

namespace detail {

std::vector<SocketAddress> interleave(std::vector<SocketAddress> list) {
    std::vector<SocketAddress> by[2];
    for (const SocketAddress& a : list) by[a.family() == AF_INET].push_back(a);
    list.clear();
    for (std::size_t i = 0; i < by[0].size() || i < by[1].size(); i++) {
        for (const auto& family : by)
            if (i < family.size()) list.push_back(family[i]);
    }
    return list;
}

std::vector<SocketAddress> resolve_for(AddressUse use, std::string_view network,
                                       std::string_view address, const Until& until,
                                       std::error_code& ec) {
    const AddressList parsed = parse_address(network, address, use);
    if (parsed.name.empty()) {
        ec = {parsed.error, std::generic_category()};
        return {parsed.at, parsed.at + parsed.n};
    }
    try {
        return ask(parsed, network_of(network), until, ec);
    } catch (const std::system_error& e) { // no goroutine to be had
        ec = e.code();
        return {};
    }
}

} // namespace detail

const std::error_category& resolve_category() noexcept {
    static const ResolveCategory category;
    return category;
}

std::vector<SocketAddress> resolve(std::string_view network, std::string_view address,
                                   const Until& until, std::error_code& ec) {
    rt::must_park("resolve");
    return detail::resolve_for(detail::AddressUse::kDial, network, address, until, ec);
}

std::vector<SocketAddress> resolve(std::string_view network, std::string_view address,
                                   const Until& until) {
    std::error_code ec;
    std::vector<SocketAddress> list = resolve(network, address, until, ec);
    if (ec) throw std::system_error(ec, "resolve " + std::string(address));
    return list;
}

} // namespace baton
