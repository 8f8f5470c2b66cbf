// SPDX-License-Identifier: Apache-2.0
//
// What goroutines and threads wait for each other with, after Go's sync package, under the names of
// the standard library where it has them. Each parks the goroutine, never its thread; on a plain
// thread, which has none, the thread sleeps. Every wait can be limited (until.hpp), and when it is
// given up it leaves all as if it had never begun.
#pragma once

#include "baton/barrier.hpp"
#include "baton/cond.hpp"
#include "baton/latch.hpp"
#include "baton/mutex.hpp"
#include "baton/once.hpp"
#include "baton/pool.hpp"
#include "baton/rwmutex.hpp"
#include "baton/semaphore.hpp"
#include "baton/wait_group.hpp"
