/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The table of Ms, for `cat /sys/fs/bpf/baton/PID/ms`: a header, and a row for each M that lives.
 * The kernel runs this once per slot of the map `m` whenever the file is read, and once more at the
 * end with no value.
 */
#include "kernel.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* In the order of enum m_state, without the M_. */
static const char names[][16] = {
    "dead",   "idle",    "spinning", "locked",     "runtime", "running", "offcpu",
    "credit", "syscall", "blocked",  "understudy", "sysmon",  "?",
};
#define UNKNOWN (sizeof(names) / sizeof(names[0]) - 1)
_Static_assert(UNKNOWN == M_SYSMON + 1, "a name for each state");

SEC("iter/bpf_map_elem")
int ms(struct bpf_iter__bpf_map_elem *ctx)
{
	struct seq_file *seq = ctx->meta->seq;
	struct m_rec *rec = ctx->value;
	u32 *slot = ctx->key;
	u64 blocked_us = 0;
	u32 state;

	if (ctx->meta->seq_num == 0)
		BPF_SEQ_PRINTF(seq, "%5s %8s %-10s %4s %8s %4s %5s %10s %12s\n", "M", "TID",
			       "STATE", "P", "G", "CPU", "SYSNO", "BLOCKS", "BLOCKED_US");
	if (!rec || !slot)
		return 0;
	/* The process may write anything there. */
	state = rec->state;
	if (state == M_DEAD)
		return 0;
	if (state == M_BLOCKED || state == M_OFFCPU)
		blocked_us = (bpf_ktime_get_ns() - rec->blocked_ns) / 1000;
	if (state > UNKNOWN)
		state = UNKNOWN;
	BPF_SEQ_PRINTF(seq, "%5u %8u %-10s %4u %8llu %4u %5d %10llu %12llu\n", *slot, rec->tid,
		       names[state], rec->p, rec->goid, rec->cpu, rec->sysno, rec->blocks,
		       blocked_us);
	return 0;
}
