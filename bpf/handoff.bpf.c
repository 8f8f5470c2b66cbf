/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
 *
 * The probe: marks a P blocked at the instant the kernel takes its M off the CPU to sleep.
 *
 * It runs in the scheduler, in the switch from the blocking M (prev) to whatever runs next, with
 * interrupts off. All it does for the handoff is to turn the P's word from P_SYSCALL to P_BLOCKED,
 * or, if the M sleeps in G code that announced nothing (a page fault, a kernel lock, a raw system
 * call), from P_RUN to P_OFFCPU; the switch itself then puts another thread on this CPU, and that
 * takes the P (table of moves: src/assist/ownership.hpp). When an M that slept in G code is put on
 * a CPU again, it gets its P back in the same way, if nobody took it; else it runs on credit.
 * Nothing that is started from here could be as quick: each wakeup from a BPF program goes through
 * an interrupt to ourselves and a second switch (9-14 us against 2).
 *
 * So the one wakeup it has, by the ring buffer, is for the case that `next` will not take the P:
 *   next is an understudy of this process      passes the P on: no wake
 *   next is an M of this process without a P   looks for work and finds the P: no wake
 *   next is anything else                      wake, if an M waits for it and the P is wanted
 * An understudy of another process has nothing in our map `tasks`, so it is anything else.
 *
 * It runs at every switch of the machine, so what it costs everybody else comes first: a preempted
 * task is dismissed by its arguments, one of a foreign process by one load, no helper called. Who
 * comes is looked at only while an M is out there without its bracket (noffcpu).
 *
 * Writers: the M and P records' stamps here and nowhere else, but for blocked_ns of a P, which the
 * new owner zeroes. They are written before the word changes, as who takes the P reads them; a CPU
 * with another order than x86 needs the CAS for that, which is a full barrier.
 *
 * Ordering: (A) the CAS to P_BLOCKED or P_OFFCPU comes before the look at the queues; who queues
 * work puts it there first and then looks at nblocked, with a fence between. One of the two sees
 * the other: else a G would lie in a queue while its P is blocked and everybody sleeps. probe wakep
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

#define SIGURG 23

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
	/* In G code it looks for nothing, whether the P is still its own or not; nor where it waits
	 * for its locked G.
	 */
	if (rec->state == M_SYSMON || rec->state == M_OFFCPU || rec->state == M_CREDIT ||
	    rec->state == M_LOCKED)
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

/* A page fault, like any exception, enters the kernel with no system call's number. */
static __always_inline void note_cause(struct m_rec *mrec, struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	mrec->sysno = (s32)regs->orig_ax;
	mrec->cause = mrec->sysno < 0 ? M_BY_FAULT : M_BY_SYSCALL;
	if (mrec->sysno < 0)
		mrec->faults++;
}

/* What the word becomes when the M in `slot` sleeps; 0 if it is not ours to change. */
static __always_inline u64 marked(u64 seen, u32 slot, struct m_rec *mrec)
{
	u64 rest = seen & 0xffffffffffffULL;

	/* Owner in the low 16 bits, taker above it, then the CPU, state on top. A taker has stopped
	 * the sequences of word.cpu already, and counts on nobody changing the word.
	 */
	if ((u32)seen != slot)
		return 0;
	if (seen >> 48 == P_SYSCALL)
		return rest | (u64)P_BLOCKED << 48;
	if (seen >> 48 == P_RUN && mrec->state == M_RUNNING)
		return (u32)rest | (u64)bpf_get_smp_processor_id() << 32 | (u64)P_OFFCPU << 48;
	return 0;
}

/* The M in `slot` sleeps in the kernel, and P `p_slot` was its. True if the P is marked now. */
static __always_inline bool mark(u32 slot, struct m_rec *mrec, struct p_rec *prec,
				 struct sched_rec *s, struct task_struct *task)
{
	u64 seen = *(volatile u64 *)&prec->word;
	u64 after = marked(seen, slot, mrec);
	u64 was_ns, now;

	if (!after)
		return false;
	now = bpf_ktime_get_ns();
	mrec->cpu = bpf_get_smp_processor_id();
	note_cause(mrec, task);
	mrec->blocked_ns = now;
	mrec->blocks++;
	if (after >> 48 == P_OFFCPU) {
		mrec->state = M_OFFCPU;
		__sync_fetch_and_add(&s->noffcpu, 1);
	} else {
		mrec->state = M_BLOCKED;
	}
	was_ns = prec->blocked_ns;
	prec->blocked_ns = now;
	prec->blocks++;
	__sync_fetch_and_add(&s->nblocked, 1);
	if (__sync_val_compare_and_swap((u64 *)&prec->word, seen, after) == seen)
		return true;

	/* A taker came first, in a call: nobody takes from G code. The P's stamps are its business
	 * now; the M sleeps all the same.
	 */
	__sync_fetch_and_add(&s->nblocked, -1);
	prec->blocked_ns = was_ns;
	prec->blocks--;
	return false;
}

/* An M that slept in G code comes back to it: with its P if that is still there. */
static __always_inline void resume(u32 slot, struct sched_rec *s)
{
	struct m_rec *mrec = bpf_map_lookup_elem(&m, &slot);
	struct p_rec *prec;
	u64 seen;
	u32 its;

	if (!mrec || mrec->state != M_OFFCPU)
		return;
	__sync_fetch_and_add(&s->noffcpu, -1);
	its = READ_ONCE(mrec->p);
	prec = bpf_map_lookup_elem(&p, &its);
	if (!prec)
		return;
	seen = *(volatile u64 *)&prec->word;
	/* {slot, 0, any, P_OFFCPU} to {slot, 0, 0, P_RUN} */
	if ((u32)seen == slot && seen >> 48 == P_OFFCPU &&
	    __sync_val_compare_and_swap((u64 *)&prec->word, seen, slot | (u64)P_RUN << 48) ==
		seen) {
		__sync_fetch_and_add(&s->nblocked, -1);
		mrec->state = M_RUNNING;
		return;
	}
	mrec->credit_ns = bpf_ktime_get_ns();
	mrec->state = M_CREDIT;
}

/* The M in `slot` goes to sleep. */
static __always_inline void leave(u32 slot, struct sched_rec *s, struct task_struct *prev,
				  struct task_struct *next)
{
	struct wake_event ev = {.m = slot};
	struct m_rec *mrec;
	struct p_rec *prec;

	mrec = bpf_map_lookup_elem(&m, &ev.m);
	if (!mrec)
		return;
	ev.p = READ_ONCE(mrec->p);
	if (!ev.p)
		return;
	prec = bpf_map_lookup_elem(&p, &ev.p);
	if (!prec || !mark(ev.m, mrec, prec, s, prev))
		return;

	/* (A): from here on after the barrier. */
	if (!READ_ONCE(s->standby) || !wanted(prec, s) || takes_care(next))
		return;
	if (bpf_ringbuf_output(&events, &ev, sizeof(ev), BPF_RB_FORCE_WAKEUP) == 0)
		__sync_fetch_and_add(&s->wakes, 1);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(handoff, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	struct sched_rec *s;
	u32 zero = 0, slot;

	s = bpf_map_lookup_elem(&sched, &zero);
	if (!s)
		return 0;
	if (READ_ONCE(s->noffcpu)) {
		slot = m_of(next);
		if (slot)
			resume(slot, s);
	}
	/* Preempted or yielding: it goes on by itself. */
	if (preempt || !prev_state)
		return 0;
	slot = m_of(prev);
	if (slot)
		leave(slot, s, prev, next);
	return 0;
}

/* A signal's handler is about to run on this thread. If it is SIGURG's, and no other's with it, it
 * may begin anew the system call that was broken into (src/runtime/preempt.cpp), and must know
 * which.
 */
SEC("tp_btf/signal_deliver")
int BPF_PROG(deliver, int sig)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 slot = m_of(task);
	struct m_rec *mrec;
	struct pt_regs *regs;

	if (!slot)
		return 0;
	mrec = bpf_map_lookup_elem(&m, &slot);
	if (!mrec)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	mrec->urged = sig == SIGURG ? (s32)regs->orig_ax : -1;
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
