/* The comparisons of the words and the other rules that are one expression, each with the switch
 * NO_xxx that drops it. Rules that are a step are switched where they stand, in ownership.pml.
 */
#define STORE(x, o, t, c, s) \
    asked[x] = 0; w[x].owner = o; w[x].taker = t; w[x].cpu = c; w[x].state = s
#define MINE(x) (w[x].owner == me && w[x].taker == 0 && w[x].state == P_RUN)
#ifdef SLEEPERS
#define HOLDS(x) (w[x].owner == me && w[x].state == P_RUN) /* ... though somebody may ask for it */
#else
#define HOLDS(x) MINE(x)
#endif
#define CLAIMED(x) (w[x].owner == me && w[x].taker != 0 && w[x].state == P_RUN)
#define WENT(x) (w[x].owner == me && w[x].state != P_RUN) /* away, not taken */
#define IN_CALL(x) (w[x].owner == me && w[x].state == P_SYSCALL) /* ... nor marked */
#define OUT(x) (w[x].state == P_BLOCKED || w[x].state == P_OFFCPU) /* marked; in nblocked */
#define WORD(x) (w[x].owner * 32 + w[x].cpu * 8 + w[x].state) /* but for the taker */
#define IDLE(x) (w[x].state == P_IDLE)
#define OTHER(x) (3 - x)
#define NPIDLE (IDLE(1) + IDLE(2))
#define WORK (globq + runq[1] + runq[2] > 0)
#define NOBODY (NPIDLE == 0 && nmspinning == 0)

#ifdef NO_MIND_EXIT
#define FREE_EXIT(x) true
#else
#define FREE_EXIT(x) (w[x].taker == 0)
#endif
#ifdef NO_MIND_HERE
#define FREE_HERE(x) true
#else
#define FREE_HERE(x) (w[x].taker == 0)
#endif
#ifdef NO_MIND_REMOTE
#define FREE_REMOTE(x) true
#else
#define FREE_REMOTE(x) (w[x].taker == 0)
#endif
#ifdef NO_MIND_PROBE
#define FREE_PROBE(x) true
#else
#define FREE_PROBE(x) (w[x].taker == 0)
#endif
#ifdef NO_CPU_EXIT
#define CPU_EXIT(x, c) true
#else
#define CPU_EXIT(x, c) (w[x].cpu == c)
#endif
#ifdef NO_CPU_HERE
#define CPU_HERE(x, c) true
#else
#define CPU_HERE(x, c) (w[x].cpu == c)
#endif
#ifdef NO_TAKER_ID
#define STILL_TAKER(x) (w[x].taker != 0 && w[x].state == P_SYSCALL)
#else
#define STILL_TAKER(x) (w[x].taker == me && w[x].state == P_SYSCALL)
#endif
#ifdef NO_CLAIM_FIRST
#define CLAIM o = w[q].owner
#else
#define CLAIM o = w[q].owner; w[q].taker = me /* CAS */
#endif
#ifdef NO_CLAIM_ID
#define STILL_CLAIMED(x) (w[x].taker != 0 && w[x].state == P_RUN)
#else
#define STILL_CLAIMED(x) (w[x].taker == me && w[x].state == P_RUN)
#endif
#ifdef NO_TAKE_BACK
#define TAKES_BACK(x) false
#else
#define TAKES_BACK(x) CLAIMED(x)
#endif
#ifdef NO_WAKEP_BLOCKED
#define NBLOCKED 0
#else
#define NBLOCKED nblocked
#endif
#define CAN_TAKE(x) (IDLE(x) || (OUT(x) && w[x].taker == 0))

/* A P that is away is worth taking for work of its own, or elsewhere if nobody looks for that. */
#ifdef NO_ELSEWHERE_BLOCKED
#define NEEDED_BLOCKED(x) (runq[x] > 0)
#else
#define NEEDED_BLOCKED(x) (runq[x] > 0 || (WORK && NOBODY))
#endif
#ifdef NO_ELSEWHERE_SYSCALL
#define NEEDED_SYSCALL(x) (runq[x] > 0)
#else
#define NEEDED_SYSCALL(x) (runq[x] > 0 || (WORK && NOBODY))
#endif
/* sysmon, the backstop: once it has been so for a while, which the model cannot tell. */
#ifdef PROMPT
#define RETAKE_BLOCKED(x) false
#else
#define RETAKE_BLOCKED(x) (OUT(x) && runq[x] > 0)
#endif
#define FREE_ANY(x) (FREE_REMOTE(x) || (SEQUENCE_TAKES && FREE_HERE(x)))
#define RETAKE_SYSCALL(x) (w[x].state == P_SYSCALL && FREE_ANY(x) && NEEDED_SYSCALL(x))
#define SYSMON(x) (RETAKE_BLOCKED(x) || RETAKE_SYSCALL(x))

/* The P of an M that seems to be in G code, and perhaps asleep there; claimed or not. */
#define SLEEPER(x) (w[x].state == P_RUN && ingcode[w[x].owner] && NEEDED_SYSCALL(x))

#ifdef NOPROBE
#define PROBED false
#else
#define PROBED true
#endif

/* Without a probe nothing is ever P_BLOCKED, and the understudy takes P_SYSCALL by its sequence.
 * With one it must not: the probe's CAS may be on another CPU, where it stops no sequence. */
#if defined(NOPROBE) || defined(NO_PROBE_STATE)
#define SEQUENCE_TAKES true
#else
#define SEQUENCE_TAKES false
#endif

/* Fewer states, none lost: parked threads are alike, so the first of them moves; and so are the
 * CPUs while no word names one, nor what a thread remembers of one. */
#define FIRST(t) \
    (parked[t] && (t == 1 || !parked[1]) && (t <= 2 || !parked[2]) && (t <= 3 || !parked[3]))
#define CPU2(x) (w[OTHER(x)].cpu != 0 || seen[1] + seen[2] + seen[3] + seen[4] != 0)

/* Liveness needs a kernel that does not preempt every sequence for ever: NPREEMPT bounds it. */
#ifdef NPREEMPT
byte npreempt = NPREEMPT;
#define BUSY(c) (seq[1] == c || seq[2] == c || seq[3] == c || seq[4] == c)
#define MAY_RUN(c) (npreempt > 0 || !BUSY(c))
#define PREEMPT(c) npreempt = npreempt - BUSY(c)
#else
#define MAY_RUN(c) true
#define PREEMPT(c) true
#endif

#define RESTART(t, c) if :: seq[t] == c -> seq[t] = 0 :: else fi
#define MEMBARRIER(c) RESTART(1, c); RESTART(2, c); RESTART(3, c); RESTART(4, c)
#ifdef NO_ABORT_PREEMPT
#define SEQUENCE(c) seq[me] = c
#define SWITCHED_OUT true
#else
/* Who begins one on this CPU has preempted those who had one in flight there. */
#define SEQUENCE(c) PREEMPT(c); MEMBARRIER(c); seq[me] = c
#define SWITCHED_OUT seq[me] = 0
#endif
