// SPDX-License-Identifier: Apache-2.0
//
// The whole public API. Errors: a call that can fail throws std::system_error, and has an overload
// with a std::error_code& that fills that instead, where failing is part of normal work (sockets,
// waits that may be given up, closed channels). Arguments that no program should pass are
// std::invalid_argument, std::length_error or std::logic_error. A broken rule of use (unlock of an
// unlocked mutex, parking inside blocking()) ends the process with one line.
//
// Waits: every call that waits has an overload with an Until (until.hpp), which gives up at a
// deadline, at a std::stop_token's request, or both.
//
// Threads: every call may be made on any thread of the program, a std::thread's or a library's
// callback, as on a goroutine, unless it says otherwise. Where a goroutine parks, such a thread
// sleeps in the kernel; it needs no processor and takes none from the goroutines. None may be made
// in a signal handler.
#pragma once

#include "baton/async_fd.hpp"
#include "baton/chan.hpp"
#include "baton/context.hpp"
#include "baton/debug.hpp"
#include "baton/file.hpp"
#include "baton/future.hpp"
#include "baton/go.hpp"
#include "baton/hooks.hpp"
#include "baton/local.hpp"
#include "baton/net.hpp"
#include "baton/run.hpp"
#include "baton/select.hpp"
#include "baton/stats.hpp"
#include "baton/sync.hpp"
#include "baton/task_group.hpp"
#include "baton/time.hpp"
#include "baton/timer.hpp"
#include "baton/until.hpp"
