// SPDX-License-Identifier: Apache-2.0
//
// The whole public API. Errors: a call that can fail throws std::system_error, and has an overload
// with a std::error_code& where failing is part of normal work (sockets). A broken rule of use
// (unlock of an unlocked mutex, parking inside blocking()) ends the process with one line.
#pragma once

#include "baton/chan.hpp"
#include "baton/go.hpp"
#include "baton/net.hpp"
#include "baton/run.hpp"
#include "baton/stats.hpp"
#include "baton/sync.hpp"
#include "baton/time.hpp"
