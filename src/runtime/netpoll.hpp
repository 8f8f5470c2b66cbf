// SPDX-License-Identifier: Apache-2.0
//
// The netpoller: parks Gs on descriptors until an engine (pollengine.hpp) tells of them (the
// reference's netpoll.go).
//
// Threads: netpoll_* by the scheduler; PollDesc functions by any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/runtime.hpp"
#include "runtime/timer.hpp"

namespace baton::rt {

struct PollDesc; // type-stable: pooled, never freed

// ---- for the scheduler (findrunnable, sysmon) ----

/// Which engine: kAuto is what has measured best, README.md says how much; BATON_POLL.
enum class Poller : std::uint8_t { kAuto, kEpoll, kUring };
/// Starts the engine; where the kernel has no io_uring that is epoll. 0 or -errno.
[[nodiscard]] int netpollinit(Poller poller);
/// "epoll" or "uring"; "" before the start.
const char* netpoll_engine() noexcept;
/// Gs whose descriptors became ready: delay < 0 waits for ever, 0 polls, > 0 waits that many ns
/// (honoured below a millisecond).
GList netpoll(std::int64_t delay_ns);
/// In a forked child: gives up the parent's engine. The next netpollinit takes up in a new one the
/// descriptors that are open, without their deadlines.
void netpoll_forget();
/// Makes a waiting netpoll return. Any thread.
void netpollbreak();
/// Wakes who waits there when this descriptor becomes readable, or is so again. 0 or an errno.
[[nodiscard]] int netpoll_watch(int fd);
/// A G waits for something that such a descriptor tells of; so many do no longer. Any thread.
void netpoll_add_waiter() noexcept;
void netpoll_drop_waiters(std::int32_t n) noexcept;
/// Called when the first G begins to wait (findrunnable.cpp).
void note_unpolled();
/// Called when a plain thread begins to wait: unlike an M it does not see to it itself, before it
/// sleeps, that somebody polls. (findrunnable.cpp)
void wake_poller();
/// Does any G wait on a descriptor or could? Without one nobody needs to poll.
bool netpoll_any_waiters() noexcept;

// ---- for src/io ----

enum class PollMode : char { kRead = 'r', kWrite = 'w' };
/// Registers fd (edge-triggered, both directions). On failure null and *err = errno. An own one is
/// registered as long as it is open: poll_is_own tells others, whose poll_rearm would end that.
PollDesc* poll_open(int fd, int* err, bool own = true);
bool poll_is_own(int fd) noexcept;
/// Forgets the descriptor; nobody may wait on it any more (poll_evict first).
void poll_close(PollDesc* pd);
/// Clears readiness before a fresh attempt; 0, or EBADF when closing, ETIMEDOUT past the deadline.
int poll_reset(PollDesc* pd, PollMode mode);
/// Can the engine do the next? Then with descriptors that are closed without a word.
bool poll_rearms() noexcept;
/// Registers pd's descriptor for `mode` anew, whatever became of the last registration: the number
/// may have been closed and given out again unseen. What is ready by now is noted. 0 or an errno.
/// Until poll_disarm it is for both modes while both are armed.
int poll_rearm(PollDesc* pd, PollMode mode);
void poll_disarm(PollDesc* pd, PollMode mode);
/// Parks until ready: 0, EBADF when closed meanwhile, ETIMEDOUT past the deadline, what poll_cut
/// says.
int poll_wait(PollDesc* pd, PollMode mode);
/// Has an event told of the end of the stream, an error or urgent data? Sticky. What was noted
/// before the last poll_reset or poll_wait of this G is seen.
bool poll_hangup(const PollDesc* pd) noexcept;
/// Deadline for read, write or both; 0 clears, past ones fire at once.
void poll_set_deadline(PollDesc* pd, std::int64_t when_ns, bool read, bool write);
/// From here until poll_limit_end the caller's waits may be given up; returns their number.
std::uint64_t poll_limit_begin(PollDesc* pd, PollMode mode);
void poll_limit_end(PollDesc* pd, PollMode mode);
/// Gives up the waits of `number`: they fail with `err`, ETIMEDOUT or ECANCELED. Too late it does
/// nothing, whoever uses the descriptor by then. Any thread.
void poll_cut(PollDesc* pd, PollMode mode, std::uint64_t number, int err);
/// The word of netpoll.cpp's head, and 0 or why nobody may wait, which is to be looked at after the
/// word has been set: (A) of its ordering.
std::atomic<std::uintptr_t>& poll_word(PollDesc* pd, PollMode mode);
int poll_error(const PollDesc* pd, PollMode mode);
/// Wakes all waiters with EBADF; later waits fail alike.
void poll_evict(PollDesc* pd);

} // namespace baton::rt
