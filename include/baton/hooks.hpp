// SPDX-License-Identifier: Apache-2.0
//
// libbaton_preload.so: libc calls that would block the thread park the goroutine instead.
#pragma once

#pragma GCC visibility push(default)
namespace baton {

/// Has this process libbaton_preload.so, by LD_PRELOAD or linked in, and does it hook anything
/// (BATON_HOOKS is not none)? False until the runtime has started. Any thread; never parks.
[[nodiscard]] bool hooks_active() noexcept;

} // namespace baton
#pragma GCC visibility pop
