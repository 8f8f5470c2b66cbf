// SPDX-License-Identifier: Apache-2.0
//
// BATON_HOOKS: all, none, or some of sockets,files,sleep,names,locks.
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "preload/preload.hpp"

namespace baton::preload {

namespace {

struct Name {
    const char* text;
    unsigned groups;
};
constexpr Name kNames[] = {{"sockets", kGroup_sockets},
                           {"files", kGroup_files},
                           {"sleep", kGroup_sleep},
                           {"names", kGroup_names},
                           {"locks", kGroup_locks}};

iovec piece(const char* text) { return {const_cast<char*>(text), std::strlen(text)}; }

[[noreturn]] void bad_value(const char* value) {
    const iovec line[] = {piece("baton: BATON_HOOKS="), piece(value),
                          piece(": not all, none, or some of sockets,files,sleep,names,locks\n")};
    (void)raw_syscall(SYS_writev, 2, line, 3);
    ::_exit(2);
}

unsigned group_of(const char* word, std::size_t length, const char* value) {
    for (const Name& name : kNames)
        if (std::strlen(name.text) == length && std::strncmp(name.text, word, length) == 0)
            return name.groups;
    bad_value(value);
}

} // namespace

unsigned chosen_groups() {
    const char* value = ::getenv("BATON_HOOKS");
    if (!value || std::strcmp(value, "all") == 0) return kAllGroups;
    if (std::strcmp(value, "none") == 0) return 0;
    unsigned chosen = 0;
    for (const char* word = value;;) {
        const std::size_t length = std::strcspn(word, ",");
        chosen |= group_of(word, length, value);
        if (word[length] == 0) return chosen;
        word += length + 1;
    }
}

} // namespace baton::preload
