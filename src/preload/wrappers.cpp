// SPDX-License-Identifier: Apache-2.0
//
// The symbols. Off goroutines each is two looks and a tail call. They are defined by their
// assembler names, as libc's headers declare some of them in ways that differ between versions of
// it.
#include "preload/preload.hpp"
#include "preload/stdio.hpp"
#include "preload/turns.hpp"

#define EXPORT [[gnu::visibility("default"), gnu::used]]
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
#define BLOCK(group, type, name, params, args, before, bracket)                                    \
    namespace baton::preload {                                                                     \
    [[gnu::noinline]] static type block_##name params {                                            \
        before;                                                                                    \
        const bracket;                                                                             \
        return real_##name() args;                                                                 \
    }                                                                                              \
    }                                                                                              \
    HOOK(may_park, group, type, name, params, args, block_##name args)
#define CALL(group, type, name, params, args)                                                      \
    BLOCK(group, type, name, params, args, , Bracket bracket)
#define TURN(group, type, name, params, sure, args)                                                \
    BLOCK(group, type, name, params, args, , FileTurn turn([&] { return sure; }))
#define NAME(group, type, name, params, args)                                                      \
    BLOCK(group, type, name, params, args, , NameTurn turn)
#define READS(group, type, name, params, file, args)                                               \
    BLOCK(group, type, name, params, args, await_input(file), Bracket bracket)
#define WRITES(group, type, name, params, file, n, args)                                           \
    BLOCK(group, type, name, params, args, await_room(file, n), Bracket bracket)
#define FORMATS(group, type, name, vname, params, last, args)                                      \
    extern "C" EXPORT type hook_##name(BATON_BARE params, ...) __asm__(#name);                     \
    type hook_##name(BATON_BARE params, ...) {                                                     \
        va_list list;                                                                              \
        va_start(list, last);                                                                      \
        const type r = hook_##vname args;                                                          \
        va_end(list);                                                                              \
        return r;                                                                                  \
    }
#define LAST(group, type, name, params, args)                                                      \
    extern "C" EXPORT type hook_##name params __asm__(#name);                                      \
    type hook_##name params {                                                                      \
        return baton::preload::t_##name(BATON_BARE args, __builtin_return_address(0));             \
    }
// some_... is jumped to, so that its caller is the hook's.
#define SOME(group, type, name, params, when, args)                                                \
    namespace baton::preload {                                                                     \
    [[gnu::noinline]] static type some_##name params {                                             \
        return t_##name(BATON_BARE args, __builtin_return_address(0));                             \
    }                                                                                              \
    }                                                                                              \
    extern "C" EXPORT type hook_##name params __asm__(#name);                                      \
    type hook_##name params {                                                                      \
        using namespace baton::preload;                                                            \
        void* real = known_real(kReal_##name);                                                     \
        if (!real || (when)) return some_##name args;                                              \
        return reinterpret_cast<type(*) params>(real) args;                                        \
    }
// NOLINTEND(bugprone-macro-parentheses)
#include "preload/symbols.def"
