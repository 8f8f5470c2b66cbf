/* SPDX-License-Identifier: Apache-2.0
 *
 * Where each register is in arch::Registers: the order of the kernel's signal contexts (gregs).
 * Shared by walk.S and walk.hpp.
 */
#pragma once

#define BATON_REG_R8 0
#define BATON_REG_R9 1
#define BATON_REG_R10 2
#define BATON_REG_R11 3
#define BATON_REG_R12 4
#define BATON_REG_R13 5
#define BATON_REG_R14 6
#define BATON_REG_R15 7
#define BATON_REG_RDI 8
#define BATON_REG_RSI 9
#define BATON_REG_RBP 10
#define BATON_REG_RBX 11
#define BATON_REG_RDX 12
#define BATON_REG_RAX 13
#define BATON_REG_RCX 14
#define BATON_REG_RSP 15
#define BATON_REG_RIP 16
