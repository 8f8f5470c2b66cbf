// SPDX-License-Identifier: Apache-2.0
//
// The probe: loads bpf/handoff.bpf.c, which marks a P blocked at the instant the kernel blocks its
// M, and gives the runtime the records it shares with it. Each process loads its own: no process
// sees another's records. How the marking works is told in the program itself.
//
// Threads: load, pin and the destructor by one thread while no other uses the probe.
// register_thread and unregister_thread by each M for itself. consume by any one thread at a time.
// The rest by anyone. No signal handlers.
//
// Invariants:
//   I1  after load() every thread of every process is watched, but acted on only if registered
//   I2  a registration ends with its thread; it is not inherited by fork, nor by a new thread
//   I3  the descriptors are close-on-exec
//
// Fork: the child shares the parent's records until it calls after_fork_in_child(), which has to
// come before anything of the runtime runs there. It then has empty ones.
//
// Rejected: a compare with the process's id in the program: what it knows inside a pid namespace is
// not what the kernel calls it, and task storage needs no number at all. A hook on every
// system call's entry: 90 ns on each call of each process (the switch alone tells everything).
// libbpf's automatic mapping of globals instead of maps: they cannot be named for bpftool.
#pragma once

#include <memory>
#include <string>

#include "assist/records.hpp"
#include "baton_shared.h"

struct handoff_bpf; // build/gen/handoff.skel.h
struct table_bpf;   // build/gen/table.skel.h
struct ring_buffer;

namespace baton::assist {

class Probe {
public:
    /// Loads and attaches. Null when it cannot be; then `why` is one line, reason and cure.
    [[nodiscard]] static std::unique_ptr<Probe> load(std::string& why);

    /// Unpins and detaches, and unmaps the records: no M may run any more.
    ~Probe();
    Probe(const Probe&) = delete;
    Probe& operator=(const Probe&) = delete;

    [[nodiscard]] const Records& records() const noexcept { return records_; }

    /// From now on the probe knows the calling thread as this M. 0 or -errno. By pidfd, which takes
    /// no capability, or on kernels before 6.9 by a program run in this thread, which takes
    /// CAP_BPF.
    [[nodiscard]] int register_thread(shared::u32 m_slot) noexcept;
    /// The calling thread is no M any more. Comes before its slot goes to another: a thread on its
    /// way out still sleeps. 0, or -errno, and then the slot must go to nobody.
    [[nodiscard]] int unregister_thread() noexcept;

    /// Readable while events wait to be consumed, for poll and epoll.
    [[nodiscard]] int events_fd() const noexcept;

    /// Calls fn(ctx, event) for each wake_event there is: how many, or -errno. Does not wait.
    int consume(void (*fn)(void* ctx, const shared::wake_event&), void* ctx) noexcept;

    /// Shows the records to people: maps m, p, sched and the table ms under /sys/fs/bpf/baton/PID,
    /// until the destructor or exit (pins.hpp). 0 or -errno, and then `why` is one line; the probe
    /// works the same without.
    [[nodiscard]] int pin(std::string& why);

    /// In the child of a fork: the records become its own, at the same addresses and empty, and
    /// the probe ends for it; nobody is registered, nothing pinned, no event comes.
    /// Async-signal-safe. 0 or -errno; after an error the child must not run the runtime.
    [[nodiscard]] int after_fork_in_child() noexcept;

    /// The two ways of register_thread, for tests.
    enum class Via : unsigned char { kPidfd, kProgram };
    [[nodiscard]] int register_thread_via(Via via, shared::u32 m_slot) noexcept;

private:
    Probe() = default;
    int note_thread(Via via, shared::u32 m_slot) noexcept;
    bool map_records(std::string& why);

    handoff_bpf* skel_ = nullptr;
    table_bpf* table_ = nullptr;
    ring_buffer* events_ = nullptr;
    Records records_{};
    bool pinned_ = false;
    bool forked_ = false;

    // For the one consumer, while it is in consume.
    void (*fn_)(void*, const shared::wake_event&) = nullptr;
    void* ctx_ = nullptr;
};

} // namespace baton::assist
