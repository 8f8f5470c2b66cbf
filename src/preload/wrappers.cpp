// SPDX-License-Identifier: Apache-2.0
//
// The symbols. Off goroutines each is two looks and a tail call. They are defined by their
// assembler names, as libc's headers declare some of them in ways that differ between versions of
// it.
#include "preload/preload.hpp"

#define EXPORT [[gnu::visibility("default"), gnu::used]]
#define GROUP(...)
// NOLINTBEGIN(bugprone-macro-parentheses): types and lists of parameters do not take them
#define HOOK(place, group, type, name, params, args, ours)                                         \
    extern "C" EXPORT type hook_##name params __asm__(#name);                                      \
    type hook_##name params {                                                                      \
        using namespace baton::preload;                                                            \
        if (on_m() && place(kGroup_##group, __builtin_return_address(0))) return ours;             \
        return real_##name() args;                                                                 \
    }
#define PARK(group, type, name, params, args)                                                      \
    HOOK(may_park, group, type, name, params, args, g_##name args)
#define SAME(group, type, name, params, target, target_args)                                       \
    HOOK(may_park, group, type, name, params, target_args, g_##target target_args)
#define OWNER(group, type, name, params, args)                                                     \
    HOOK(on_goroutine, group, type, name, params, args, g_##name args)
#define OWNER_SAME(group, type, name, params, target, target_args)                                 \
    HOOK(on_goroutine, group, type, name, params, target_args, g_##target target_args)
#define CALL(group, type, name, params, args)                                                      \
    namespace baton::preload {                                                                     \
    [[gnu::noinline]] static type block_##name params {                                            \
        Bracket bracket;                                                                           \
        return real_##name() args;                                                                 \
    }                                                                                              \
    }                                                                                              \
    HOOK(may_park, group, type, name, params, args, block_##name args)
#define LAST(group, type, name, params, args)                                                      \
    extern "C" EXPORT type hook_##name params __asm__(#name);                                      \
    type hook_##name params {                                                                      \
        return baton::preload::t_##name(BATON_BARE args, __builtin_return_address(0));             \
    }
// NOLINTEND(bugprone-macro-parentheses)
#include "preload/symbols.def"
