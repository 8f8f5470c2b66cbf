// SPDX-License-Identifier: Apache-2.0
//
// Calls on files that may block their thread: bracketed, and so many at once at most, so that a
// slow disk does not have the runtime make threads without end.
//
// Threads: any.
#pragma once

#include <cstdint>

namespace baton::rt {

/// Around such a call, of a G. Waits for its turn, then announces that it may block. On a plain
/// thread and inside blocking() it does nothing. A call that may wait for what another G does, as
/// of a pipe, is to wait for no turn: that G may need one, too.
class FileCall {
public:
    enum class Turn : bool { kNone, kOne };
    explicit FileCall(Turn turn = Turn::kOne);
    ~FileCall();
    FileCall(const FileCall&) = delete;
    FileCall& operator=(const FileCall&) = delete;

private:
    bool counted_ = false;
    Turn turn_;
    void* entered_ = nullptr;
};

/// How many there may be at once.
std::uint32_t file_threads() noexcept;
/// How many there are; each keeps a thread.
std::uint32_t file_calls_now() noexcept;
/// When the runtime starts.
void file_calls_start(std::uint32_t most);
/// In a forked child: none is under way.
void file_calls_forget();

} // namespace baton::rt
