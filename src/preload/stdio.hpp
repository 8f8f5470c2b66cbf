// SPDX-License-Identifier: Apache-2.0
//
// Streams. libc reads and writes their descriptors itself, where no hook is, with the stream's lock
// held, which is a thread's. So a goroutine waits before the call, parked and holding nothing,
// until the first read or write would not wait. What the call needs beyond that blocks its thread.
//
// A goroutine that has locked a stream by flockfile stays on its thread until it unlocks it.
//
// Calls on streams wait for no turn (turns.hpp), as they may wait for the stream's lock.
#pragma once

#include "preload/preload.hpp"

namespace baton::preload {

/// For await_room: what there is will be written.
inline constexpr std::size_t kAll = SIZE_MAX;

/// Until there is something in the stream's buffer or to be read. Null: the call reads nothing.
void await_input(FILE* f);
/// Where writing n bytes more is sure to write some to the descriptor: until that would not wait.
void await_room(FILE* f, std::size_t n);

} // namespace baton::preload
