// SPDX-License-Identifier: Apache-2.0
#include "preload/turns.hpp"

#include <sys/stat.h>

#include "preload/locks.hpp"

namespace baton::preload {

namespace {

constexpr int kNamesMost = 64;

Waiters waiters;
std::atomic<int> names_left{kNamesMost};

bool take_name() {
    // relaxed: a guess, which the CAS confirms.
    int left = names_left.load(std::memory_order_relaxed);
    while (left > 0) {
        // seq_cst: a look of park_until's. relaxed on failure: we look again.
        if (names_left.compare_exchange_weak(left, left - 1, std::memory_order_seq_cst,
                                             std::memory_order_relaxed)) // relaxed: as above
            return true;
    }
    return false;
}

/// Before the announced call begins.
Bracket in_turn() {
    if (!take_name()) (void)park_until(waiters, &names_left, kNever, take_name);
    return Bracket();
}

bool is_file_mode(mode_t mode) { return S_ISREG(mode) || S_ISDIR(mode) || S_ISBLK(mode); }

} // namespace

NameTurn::NameTurn() : bracket_(in_turn()) {}

NameTurn::~NameTurn() {
    names_left.fetch_add(1, std::memory_order_seq_cst); // seq_cst: (B) in locks.hpp
    if (waiters.any(&names_left)) rt->wake(&names_left, 1);
}

void forget_turns() {
    names_left.store(kNamesMost, std::memory_order_relaxed); // relaxed: the child has one thread
    waiters.of(&names_left).store(0, std::memory_order_relaxed);
}

bool is_file(int fd) {
    struct stat st;
    return raw_syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) == 0 && is_file_mode(st.st_mode);
}

bool is_path_file(int dir, const char* path) {
    struct stat st;
    return raw_syscall(SYS_newfstatat, dir, path, &st, 0) != 0 || is_file_mode(st.st_mode);
}

} // namespace baton::preload
