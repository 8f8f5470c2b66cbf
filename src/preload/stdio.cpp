// SPDX-License-Identifier: Apache-2.0
#include "preload/stdio.hpp"

#include "preload/fd.hpp"

namespace baton::preload {

namespace {

using Next = Wait::Next;

// Of FILE::_flags, as libc has them.
constexpr int kUnbuffered = 0x2, kNoReads = 0x4, kNoWrites = 0x8, kEof = 0x10, kBackup = 0x100,
              kLines = 0x200;
constexpr std::size_t kBuffer = 4096; // as libc makes them for what is no file

// relaxed: guesses; another thread may be in a call on this stream.
char* at(char* const& pointer) {
    return std::atomic_ref(const_cast<char*&>(pointer)).load(std::memory_order_relaxed);
}
int flags_of(FILE* f) {
    return std::atomic_ref(f->_flags).load(std::memory_order_relaxed); // relaxed: as above
}

/// Parks until there is news, where that is what the call would do. With a timeout on the socket
/// the time to wait is the call's alone.
void await(int fd, bool for_write) {
    Descriptor* d = fd >= 0 ? descriptor_of(fd) : nullptr;
    long err = 0;
    if (!d || kind_of(d, fd, &err) == Kind::kFile || err != 0) return;
    const short events = for_write ? POLLOUT : POLLIN;
    if (is_ready(fd, events) || (!for_write && ends_unready(fd, kBuffer))) return;
    Wait wait(d, fd, for_write);
    if (!wait.may_wait() || wait.deadline() != kNever) return;
    while (wait() == Next::kTryAgain && !is_ready(fd, events)) {
    }
}

/// Is the call sure to write? To wait where it would return at once may be for ever: whoever is to
/// read what is there may be up to the caller. Of lines it is not known whether they are whole.
bool will_write(FILE* f, std::size_t n) {
    if (flags_of(f) & kUnbuffered) return n != kAll;
    const std::ptrdiff_t pending = at(f->_IO_write_ptr) - at(f->_IO_write_base);
    if (n == kAll) return pending > 0;
    if (flags_of(f) & kLines) return false;
    const std::ptrdiff_t room = at(f->_IO_write_end) - at(f->_IO_write_ptr);
    if (room > 0 || pending > 0) return n > static_cast<std::size_t>(room);
    // Nothing has been written yet, nor may there be a buffer.
    const std::ptrdiff_t size = at(f->_IO_buf_end) - at(f->_IO_buf_base);
    return n >= (size > 0 ? static_cast<std::size_t>(size) : kBuffer);
}

} // namespace

void await_input(FILE* f) {
    if (!f || (flags_of(f) & (kNoReads | kEof | kBackup))) return;
    if (at(f->_IO_read_ptr) < at(f->_IO_read_end)) return;
    await(f->_fileno, false);
}

void await_room(FILE* f, std::size_t n) {
    if (f && n != 0 && !(flags_of(f) & kNoWrites) && will_write(f, n)) await(f->_fileno, true);
}

void g_flockfile(FILE* f) {
    rt->pin();
    blocking(real_flockfile(), f);
}

int g_ftrylockfile(FILE* f) {
    rt->pin();
    const int rc = real_ftrylockfile()(f);
    if (rc != 0) rt->unpin();
    return rc;
}

void g_funlockfile(FILE* f) {
    real_funlockfile()(f);
    rt->unpin();
}

} // namespace baton::preload
