// SPDX-License-Identifier: Apache-2.0
//
// Announced calls of which there are so many at once at most, each of them on a thread: for their
// turn goroutines wait parked.
//
//   files   BATON_FILE_THREADS, together with the runtime's own calls on files
//   names   64, as the runtime's own look-ups have, which are counted apart
//
// Who holds a turn may wait for the disk, or for a name server, but not for what another goroutine
// does, as that one may need a turn for it. What a descriptor or a path leads to is not known for
// sure, though (a guess may be out of date, a FIFO may be opened by its path), and to ask costs as
// much as a short read. So it is asked only when half the turns are taken: the other half goes to
// calls on files alone, which end by themselves.
#pragma once

#include "preload/preload.hpp"

namespace baton::preload {

/// Is that a regular file, a directory or a block device; is it, or is nothing there yet?
bool is_file(int fd);
bool is_path_file(int dir, const char* path);

/// Around a call on a file, of a goroutine that may park.
class FileTurn {
public:
    template <class Sure>
    explicit FileTurn(Sure sure) {
        rt->file_enter(&call_, !rt->file_busy() || sure());
    }
    ~FileTurn() { rt->file_leave(&call_); }
    FileTurn(const FileTurn&) = delete;
    FileTurn& operator=(const FileTurn&) = delete;

private:
    baton_file_call call_;
};

class NameTurn {
public:
    NameTurn();
    ~NameTurn();
    NameTurn(const NameTurn&) = delete;
    NameTurn& operator=(const NameTurn&) = delete;

private:
    Bracket bracket_;
};
/// In a forked child: nobody asks.
void forget_turns();

} // namespace baton::preload
