/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The probe: marks a P blocked at the instant the kernel takes its M off the CPU to sleep.
 *
 * It runs in the scheduler, in the switch from the blocking M (prev) to whatever runs next, with
 * interrupts off. All it does for the handoff is to turn the P's word from P_SYSCALL to P_BLOCKED;
 * the switch itself then puts another thread on this CPU, and that takes the P (table of moves:
 * src/assist/ownership.hpp). Nothing that is started from here could be as quick: each wakeup from
 * a BPF program goes through an interrupt to ourselves and a second switch (9-14 us against 2).
 *
 * So the one wakeup it has, by the ring buffer, is for the case that `next` will not take the P:
 *   next is an understudy of this process      passes the P on: no wake
 *   next is an M of this process without a P   looks for work and finds the P: no wake
 *   next is anything else                      wake, if an M waits for it and the P is wanted
 * An understudy of another process has nothing in our map `tasks`, so it is anything else.
 *
 * It runs at every switch of the machine, so what it costs everybody else comes first: a preempted
 * task is dismissed by its arguments, one of a foreign process by one load, no helper called.
 *
 * Writers: the M and P records' stamps here and nowhere else, but for blocked_ns of a P, which the
 * new owner zeroes. They are written before the word changes, as who takes the P reads them; a CPU
 * with another order than x86 needs the CAS for that, which is a full barrier.
 *
 * Ordering: (A) the CAS to P_BLOCKED comes before the look at the queues; who queues work puts it
 * there first and then looks at nblocked, with a fence between. One of the two sees the other:
 * else a G would lie in a queue while its P is blocked and everybody sleeps.
 *         probe                              wakep
 *         nblocked++, CAS (full barrier)     queue G, fence
 *         read runq, runqsize                read nblocked
 * nblocked is raised before the CAS, never after: it may count a P too many for a moment, which
 * costs a look, but none too few.
 *
 * Rejected:
 *   a hook on sys_enter            90 ns on each system call of each process, for nothing new
 *   fentry on a kernel function    not there on every kernel; the tracepoint's arguments are stable
 *   comparing tgid                 wrong inside pid namespaces, and no cheaper than bpf_storage
 *   waking at once, by signal      dearer than the ring buffer, and disturbs whoever gets it
 */
#include "kernel.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What a task is to us: an M's slot. Put there by the M itself (Probe::register_thread). */
struct task_rec {
	u32 m;
};

/* The maps' names are for people: bpftool map dump pinned /sys/fs/bpf/baton/PID/m. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BATON_MAX_M);
	__type(key, u32);
	__type(value, struct m_rec);
} m SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BATON_MAX_P);
	__type(key, u32);
	__type(value, struct p_rec);
} p SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct sched_rec);
} sched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_rec);
} tasks SEC(".maps");

/* Small: one event per P and moment is useful, and if full the standby is awake anyway. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

/* The M slot of a task of ours, else 0. */
static __always_inline u32 m_of(struct task_struct *task)
{
	struct task_rec *rec;

	if (!task->bpf_storage)
		return 0;
	rec = bpf_task_storage_get(&tasks, task, NULL, 0);
	return rec ? rec->m : 0;
}

/* Will this task, which has the CPU next, see to a blocked P by itself? An M that came back from a
 * block and has lost its P still names it: the P's word says whose it is.
 */
static __always_inline bool takes_care(struct task_struct *next)
{
	u32 slot = m_of(next), its;
	struct m_rec *rec;
	struct p_rec *prec;

	if (!slot)
		return false;
	rec = bpf_map_lookup_elem(&m, &slot);
	if (!rec)
		return false;
	if (rec->state == M_UNDERSTUDY)
		return true;
	if (rec->state == M_SYSMON)
		return false;
	its = READ_ONCE(rec->p);
	if (!its)
		return true;
	prec = bpf_map_lookup_elem(&p, &its);
	return prec && READ_ONCE(prec->word.owner) != slot;
}

/* Would anybody use this P? The same question as wanted() in src/runtime/handoff.cpp. */
static __always_inline bool wanted(struct p_rec *prec, struct sched_rec *s)
{
	if (READ_ONCE(prec->runq) || READ_ONCE(s->runqsize))
		return true;
	if (READ_ONCE(s->nmspinning))
		return false;
	return READ_ONCE(s->npidle) == 0 || READ_ONCE(s->unpolled);
}

static __always_inline s32 syscall_of(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	return (s32)regs->orig_ax;
}

/* The M in `slot` sleeps in the kernel, and P `p_slot` was its. True if the P is marked now. */
static __always_inline bool mark(u32 slot, struct m_rec *mrec, struct p_rec *prec,
				 struct sched_rec *s, struct task_struct *task)
{
	u64 seen = *(volatile u64 *)&prec->word;
	u64 blocked, was_ns, now;

	/* Owner in the low 16 bits, taker above it, state on top: {slot, 0, any, P_SYSCALL}. A
	 * taker has stopped the sequences of word.cpu already, and counts on nobody changing the
	 * word.
	 */
	if ((u32)seen != slot || seen >> 48 != P_SYSCALL)
		return false;
	blocked = (seen & 0xffffffffffffULL) | (u64)P_BLOCKED << 48;

	now = bpf_ktime_get_ns();
	mrec->cpu = bpf_get_smp_processor_id();
	mrec->sysno = syscall_of(task);
	mrec->blocked_ns = now;
	mrec->blocks++;
	mrec->state = M_BLOCKED;
	was_ns = prec->blocked_ns;
	prec->blocked_ns = now;
	prec->blocks++;
	__sync_fetch_and_add(&s->nblocked, 1);
	if (__sync_val_compare_and_swap((u64 *)&prec->word, seen, blocked) == seen)
		return true;

	/* A taker came first. The P's stamps are its business now; the M sleeps all the same. */
	__sync_fetch_and_add(&s->nblocked, -1);
	prec->blocked_ns = was_ns;
	prec->blocks--;
	return false;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(handoff, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	struct wake_event ev = {};
	struct sched_rec *s;
	struct m_rec *mrec;
	struct p_rec *prec;
	u32 zero = 0;

	/* Preempted or yielding: it goes on by itself. */
	if (preempt || !prev_state)
		return 0;
	ev.m = m_of(prev);
	if (!ev.m)
		return 0;
	mrec = bpf_map_lookup_elem(&m, &ev.m);
	s = bpf_map_lookup_elem(&sched, &zero);
	if (!mrec || !s)
		return 0;
	ev.p = READ_ONCE(mrec->p);
	if (!ev.p)
		return 0;
	prec = bpf_map_lookup_elem(&p, &ev.p);
	if (!prec || !mark(ev.m, mrec, prec, s, prev))
		return 0;

	/* (A): from here on after the barrier. */
	if (!READ_ONCE(s->standby) || !wanted(prec, s) || takes_care(next))
		return 0;
	if (bpf_ringbuf_output(&events, &ev, sizeof(ev), BPF_RB_FORCE_WAKEUP) == 0)
		__sync_fetch_and_add(&s->wakes, 1);
	return 0;
}

/* Registers the thread that runs it, by BPF_PROG_RUN: for kernels whose pidfds know only processes
 * (before 6.9). The context is the task_rec.
 */
SEC("syscall")
int enlist(struct task_rec *ctx)
{
	struct task_rec *rec = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), NULL,
						    BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!rec)
		return 1;
	rec->m = ctx->m;
	return 0;
}
