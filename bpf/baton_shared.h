/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 OR BSD-2-Clause
 *
 * The records: what the runtime, the probe and bpftool share. One mmapable array map each for Ms,
 * Ps and the scheduler; without BPF the same structs lie in plain memory. Slot 0 of m and p stays
 * unused, so that 0 means "none" everywhere. The enums are what `bpftool map dump` prints.
 */
#pragma once

#ifdef __cplusplus
#include <cstdint>
namespace baton::shared {
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using s32 = std::int32_t;
using u64 = std::uint64_t;
#else
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
#endif

/* kMaxM and kMaxP of the C++ side. Slots are 64 bytes, so both maps together take 1.1 MiB. */
#define BATON_MAX_M 16384
#define BATON_MAX_P 1025
#define BATON_MAX_CPU 1024

/* What an M is at. Written by the M itself, and by the probe on the M's own thread; a view kept for
 * people, but for two things that are decided on it: whether the M is in G code, where its P may be
 * taken from it unannounced (src/runtime/entry.hpp), and whether the thread is an understudy or
 * sysmon, which they are for life. */
enum m_state {
	M_DEAD,
	M_IDLE,
	M_SPINNING,
	M_LOCKED,  /* without a P, waiting until its locked G may run (src/runtime/locked.cpp) */
	M_RUNTIME, /* in the scheduler, or in a call of the runtime's */
	M_RUNNING, /* in G code */
	M_OFFCPU,  /* blocked there, unannounced */
	M_CREDIT,  /* back from that, and has lost its P */
	M_SYSCALL, /* in an announced call */
	M_BLOCKED, /* asleep in it */
	M_UNDERSTUDY,
	M_SYSMON
};

/* The ownership state of a P; the table of legal moves is in src/assist/ownership.hpp. A fixed type
 * is new in C, but clang has it, and it alone keeps the names where the field has two bytes. */
enum p_state : u16 { P_IDLE, P_RUN, P_SYSCALL, P_BLOCKED, P_OFFCPU, P_GCSTOP, P_DEAD };

/* What the kernel was doing for an M when it put it to sleep. */
enum m_cause : u16 { M_NEVER, M_BY_SYSCALL, M_BY_FAULT };

struct m_rec {
	u32 tid;
	enum m_state state; /* what the probe saw last is written by it, the rest by the M */
	u32 p;          /* slot of the P it holds or held when it entered its syscall, 0 = none */
	u32 cpu;        /* CPU where the kernel last blocked it; without a probe, where it was last
			   seen by itself */
	u64 goid;       /* the goroutine on it, 0 = none */
	u64 blocked_ns; /* CLOCK_MONOTONIC of the last block; written by the probe */
	u64 blocks;     /* how often the kernel blocked it with a P; written by the probe */
	u64 credit_ns;  /* since when it runs on credit; written by the probe, or who took its P */
	s32 sysno; /* system call of the last block, -1 in a page fault; written by the probe */
	enum m_cause cause; /* ... and which of the two it was */
	u16 pad;
	u32 faults; /* how many of the blocks were page faults; written by the probe */
	s32 urged;  /* system call that SIGURG alone has broken into, else -1; by the probe */
} __attribute__((aligned(64)));

/* One word decides who owns a P: see src/assist/ownership.hpp. BPF and bpftool see its fields. */
struct p_rec {
#ifdef __cplusplus
	u64 word;
#else
	struct p_word {
		u16 owner; /* M slot, 0 = none */
		u16 taker; /* M slot of who is taking it from another CPU, 0 = none */
		u16 cpu;   /* where its M entered the syscall */
		enum p_state state;
	} word;
#endif
	u32 runq;        /* length of its run queue when its M entered the syscall */
	u32 syscalltick; /* one up at each entersyscall */
	u64 blocked_ns;  /* when the kernel blocked its M; 0 once the handoff is accounted */
	u64 blocks;      /* how often that was */
	u64 handoffs;    /* how often it passed to another M */
	u32 pad[6];
} __attribute__((aligned(64)));

/* One slot: the counters the probe reads to tell whether anybody needs the P of a blocked M. */
struct sched_rec {
	u32 runqsize;   /* global run queue */
	u32 npidle;     /* idle Ps */
	u32 nmspinning; /* Ms looking for work */
	s32 nblocked;   /* Ps in P_BLOCKED or P_OFFCPU; raised by the probe, lowered by who takes or
			   resumes */
	u32 standby;    /* an M waits on the ring buffer: wakes are of use */
	u32 wakes;      /* ring buffer wakes the probe sent */
	u32 unpolled;   /* network or timers are to be waited for, and no M does */
	u32 pad[9];
	/* A line of its own, as the probe reads it at every switch of the machine: Ms that went to
	 * sleep in G code and have not run since. The probe's alone. */
	u32 noffcpu __attribute__((aligned(64)));
} __attribute__((aligned(64)));

/* What the ring buffer carries: a P that needs an M at once. */
struct wake_event {
	u32 p;
	u32 m;
};

#ifdef __cplusplus
static_assert(sizeof(m_rec) == 64 && sizeof(p_rec) == 64 && sizeof(sched_rec) == 128);
} // namespace baton::shared
#else
_Static_assert(sizeof(struct m_rec) == 64 && sizeof(struct p_rec) == 64, "one cache line each");
#endif
