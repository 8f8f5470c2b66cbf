// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../../support/key_values.hpp"

void floor_of_bracket(const bench::KeyValues& args);
void floor_of_handoff(const bench::KeyValues& args);
void handoff_load(const bench::KeyValues& args);
void locked(const bench::KeyValues& args);
void mutex(const bench::KeyValues& args);
void serve();
