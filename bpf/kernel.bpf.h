/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The kernel's types, as far as we read them. Offsets are found at load time (CO-RE), so a kernel
 * that moved a field is no concern, and one that lost it refuses to load the program.
 *
 * Rejected: a generated vmlinux.h. Three megabytes, for four fields.
 */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "baton_shared.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct {
	struct bpf_local_storage *bpf_storage; /* null: no program keeps anything for this task */
};

struct pt_regs {
	unsigned long orig_ax; /* x86: number of the system call, -1 in a fault or interrupt */
};

/* Iterators. */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 seq_num;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
};

#pragma clang attribute pop

/* Loads and stores that are one access, made where they stand. */
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))
