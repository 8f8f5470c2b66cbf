/* Who owns a P, and who is woken for work: the ownership word (src/assist/ownership.hpp) and the
 * wake-ups around it, for spin. README.md beside this says how to run it and what it found.
 *
 * Purpose: every move of a word is here under its name in the code, and so is every rule that makes
 * the moves safe. Each rule has a switch NO_xxx that drops it; check.sh proves that spin then finds
 * an error, so no rule is there for nothing and the model is not blind.
 *
 * Threads: NM, all alike. With a P a thread is an M. Parked, it is also what acts for it: the take
 * of the understudy and the retake of sysmon are made by a parked thread, which then runs as the M
 * that they would have woken. A thread can be on either CPU at each step (migration is everywhere);
 * which one only matters where the code reads cpu_id.
 *
 * One step (atomic) is what the machine makes one: a CAS, the commit of a restartable sequence, the
 * owner's plain store, a counter's change. A sequence is two steps: load and compare, commit.
 * seq[t] is the CPU it runs on; what makes the kernel restart it clears that: a membarrier for that
 * CPU, its thread losing the CPU, so also another thread's sequence on that CPU. Taking a marked
 * word is two steps as well: load, CAS against what was loaded, all of it. (The owner's own is one:
 * what it saw marked can only be taken from it.) A look at queues and words behind a fence is one
 * step too: reading them one by one would, for one publication, only move the moment at which that
 * one is read.
 *
 * Marked (OUT): P_BLOCKED and P_OFFCPU, which only the probe stores. The owner is, or was, off its
 * CPU, so it is in no sequence: everybody, the owner too, moves the word on by one CAS, from any
 * CPU. A word in P_SYSCALL may be in the owner's sequence: who else wants it puts its id in taker,
 * stops the sequences on word.cpu by a membarrier, and finishes by a CAS.
 *
 * Sleepers (-DSLEEPERS, without a probe; src/assist/asleep.hpp): the P of an M in G code is claimed,
 * the M looked at, the P taken. asleep[] there is a call or a page fault that nobody announced, in
 * the runtime a lock. That the M was seen asleep is all that orders it and the taker, so its entry
 * into the runtime has a store buffer, which drains when it falls asleep.
 *
 * Store buffers: a word changes only by CAS, commit and its owner's store, and the takers' CAS and
 * membarrier order those: sequential consistency will do. Where a plain store must be seen before
 * the next load there is a fence: (A) publish, then wakep; (B) release, then re-check; (C) the M
 * that comes back without a P queues its G, then looks again. Dropping one puts the store into a
 * one-entry buffer: the load goes first, the store drains after it.
 *
 * Ghosts: a G may wait until all others are done (a read from a pipe that they write to, a loop on
 * a flag that they set). So work that nobody runs although there are a P and a thread to be had
 * ends in a deadlock, which spin reports as an invalid end state. There is no preemption here, so
 * only one G waits with its P.
 *
 * Left out: queues are counters, their operations one step; npidle is the number of idle words;
 * cpu in P_RUN, which nobody reads; starting and ending threads; stop-the-world; locked Ms; a taker
 * that blocks between its two CAS (the P waits for it).
 */
#ifndef NM
#define NM 3 /* threads, 2 to 4 */
#endif
#ifndef NG
#define NG 3 /* goroutines; the first runs on P 1 and any of them starts the others */
#endif
#ifndef NSYS
#define NSYS 1 /* syscalls they make, all together */
#endif
#ifndef NBLOCK
#define NBLOCK 2 /* times the kernel blocks one of their threads, in a syscall or in G code */
#endif
#ifndef NWAIT
#define NWAIT (NM - 1) /* times a G waits for all others; a thread is always left to run them */
#endif
#ifndef NHANDOFF
#define NHANDOFF 0 /* syscalls that give the P up first */
#endif

#define P_IDLE 0
#define P_RUN 1
#define P_SYSCALL 2
#define P_BLOCKED 3
#define P_OFFCPU 4

typedef word {
    unsigned owner : 3;
    unsigned taker : 3;
    unsigned cpu : 2;
    unsigned state : 3
};

word w[3];                 /* of P 1 and P 2; 0 means none, as in the code */
byte runq[3], globq;       /* how many Gs wait there */
byte nmspinning, nblocked; /* as in struct sched_rec */
bit asked[3];              /* the understudy saw work for this blocked P and wakes an M */
byte seq[5];               /* CPU of the sequence a thread has in flight; 0 = none, restarted */
byte seen[5];              /* the marked word that a thread is about to take, as loaded */
bit parked[5];             /* on the list of idle Ms */
byte nextp[5];             /* the P with which a waker woke this thread */
#ifdef SLEEPERS
bit ingcode[5];            /* its state is M_RUNNING, as others see it */
bit asleep[5];             /* the kernel has it off its CPU, in G code or in the runtime */
#endif

/* What is still to come, and what came. */
byte tospawn = NG - 1, nsys = NSYS, nblock = NBLOCK, nwait = NWAIT, nhandoff = NHANDOFF;
byte waiting, done, nexit;
bit onehog; /* a G has waited with its P */

#include "rules.pml"

/* What a G comes into the runtime for. */
inline call()
{
    assert(HOLDS(p));
    if
    :: tospawn > 0 -> tospawn--; goto publish
    :: tospawn == 0 -> assert(done < NG); done++; g = 0; goto schedule
    :: nsys > 0 -> nsys--; goto enter
    :: nhandoff > 0 -> nhandoff--; goto handoff
    fi
}

#ifdef SLEEPERS
/* Runtime entry where Ps are taken from Ms asleep in G code: store the state, look at the word. No
 * fence is between the two: the store may come out after the load, but not after the M has lost its
 * CPU. It can lose it between the two and after them. */
inline enter_runtime()
{
    if
    :: ingcode[me] = 0;
       if
       :: atomic { nblock > 0 -> nblock--; asleep[me] = 1 }; asleep[me] = 0
       :: true
       fi;
       held = MINE(p)
    :: held = MINE(p);
       ingcode[me] = 0
    fi;
    if
    :: atomic { nblock > 0 -> nblock--; asleep[me] = 1 }; asleep[me] = 0
    :: true
    fi
}

/* Someone has claimed the P of an M that seems to be in G code. Does it sleep? And in G code? */
inline claim_asleep()
{
#ifndef NO_ASLEEP
#ifdef NO_STATE_LAST
    if
    :: ingcode[o]
    :: !ingcode[o] -> goto unclaim
    fi;
#endif
    if
    :: asleep[o]
    :: !asleep[o] -> goto unclaim
    fi;
#endif
#if !defined(NO_STATE) && !defined(NO_STATE_LAST)
    if
    :: ingcode[o]
    :: !ingcode[o] -> goto unclaim
    fi;
#endif
#ifdef NO_CLAIM_FIRST
    atomic {
        if
        :: w[q].owner == o && w[q].state == P_RUN -> w[q].taker = me
        :: else -> o = 0; goto missed
        fi
    }
#endif
}

inline take_claimed() /* CAS */
{
    atomic {
        if
#ifdef NO_CAS_CLAIMED
        :: true -> STORE(q, me, 0, 0, P_RUN)
#else
        :: w[q].owner == o && STILL_CLAIMED(q) -> STORE(q, me, 0, 0, P_RUN)
        :: else -> o = 0; goto missed
#endif
        fi;
        o = 0
    }
}

inline unclaim_p() /* CAS */
{
    atomic {
        if
        :: w[q].owner == o && w[q].taker == me && w[q].state == P_RUN -> w[q].taker = 0
        :: else
        fi;
        o = 0
    }
}
#endif

/* M enters a syscall: the owner's plain store. */
inline entersyscall()
{
    atomic {
        assert(HOLDS(p));
        if
        :: STORE(p, me, 0, 1, P_SYSCALL)
        :: CPU2(p) -> STORE(p, me, 0, 2, P_SYSCALL)
        fi
    }
}

/* The kernel blocks the M in its syscall: raise, CAS, and lower again if that failed. After the
 * CAS, not before, the look for work: a P that becomes takeable must look as a parking M does. */
inline probe_switch()
{
    atomic {
        SWITCHED_OUT;
        if
        :: w[p].owner == me && w[p].state == P_SYSCALL && FREE_PROBE(p)
        :: else -> goto switched
        fi;
#ifndef NO_RAISE_FIRST
        nblocked++;
#endif
#ifdef NO_LOOK_AFTER
        needed = NEEDED_BLOCKED(p)
#endif
    };
    atomic {
        if
#ifdef NO_CAS_PROBE
        :: STORE(p, me, 0, w[p].cpu, P_BLOCKED); goto understudy
#endif
        :: w[p].owner == me && w[p].state == P_SYSCALL && FREE_PROBE(p) ->
           w[p].state = P_BLOCKED; goto understudy
        :: else
        fi
    };
#ifdef NO_LOOK_AFTER
    needed = 0;
#endif
#if !defined(NO_LOWER) && !defined(NO_RAISE_FIRST)
    nblocked--;
#endif
    goto switched
}

/* The kernel blocks the M in G code: nobody else can change a word in P_RUN, so one step. */
inline probe_switch_offcpu()
{
    atomic {
        nblock > 0 && MINE(p) -> nblock--; nblocked++;
        if
        :: STORE(p, me, 0, 1, P_OFFCPU)
        :: CPU2(p) -> STORE(p, me, 0, 2, P_OFFCPU)
        fi
    }
}

/* M leaves the syscall, or settles its credit. Marked: by CAS, wherever it is now. Not: a sequence,
 * on the CPU where it entered; load, compare. */
inline exitsyscall()
{
    atomic {
        if
        :: MINE(p) -> goto gcode
#ifdef NO_CAS_BACK
        :: CLAIMED(p) -> goto back
#elif defined(SLEEPERS) && !defined(NO_TAKE_BACK)
        :: CLAIMED(p) -> w[p].taker = 0; goto gcode /* CAS */
#endif
#ifdef NO_CAS_LEAVE
        :: WENT(p) && OUT(p) && w[p].taker == 0 && w[p].cpu == 1 -> SEQUENCE(1); goto exit_marked
        :: WENT(p) && OUT(p) && w[p].taker == 0 && w[p].cpu == 2 -> SEQUENCE(2); goto exit_marked
#else
        :: WENT(p) && OUT(p) && w[p].taker == 0 -> STORE(p, me, 0, 0, P_RUN); goto counted
#endif
        :: IN_CALL(p) && FREE_EXIT(p) && CPU_EXIT(p, 1) && MAY_RUN(1) -> SEQUENCE(1); goto exit_fast
        :: IN_CALL(p) && FREE_EXIT(p) && CPU_EXIT(p, 2) && MAY_RUN(2) -> SEQUENCE(2); goto exit_fast
        :: IN_CALL(p) && FREE_EXIT(p) -> w[p].taker = me; goto exit_slow
        :: w[p].owner != me || (!FREE_EXIT(p) && !TAKES_BACK(p)) -> goto lost
        fi
    }
}

/* ... commit, if nothing restarted the sequence; the kernel can still block the M before it. */
inline exitsyscall_fast()
{
    if
    :: atomic { seq[me] != 0 -> STORE(p, me, 0, 0, P_RUN); seq[me] = 0 }
    :: atomic { seq[me] == 0 -> goto leave }
    :: atomic {
           PROBED && nblock > 0 && seq[me] != 0 && w[p].state == P_SYSCALL -> nblock--; goto blocked
       }
    fi;
    goto gcode;
#ifdef NO_CAS_LEAVE
exit_marked:
    if
    :: atomic { seq[me] != 0 -> STORE(p, me, 0, 0, P_RUN); seq[me] = 0 }
    :: atomic { seq[me] == 0 -> goto leave }
    fi;
    goto counted;
#endif
}

/* ... or on another CPU: as a taker of its own P. */
inline exitsyscall_slow()
{
#ifndef NO_MEMBARRIER_EXIT
    atomic { MEMBARRIER(w[p].cpu) };
#endif
    atomic {
        if
#ifdef NO_CAS_EXIT
        :: true -> STORE(p, me, 0, 0, P_RUN)
#else
        :: w[p].owner == me && STILL_TAKER(p) -> STORE(p, me, 0, 0, P_RUN)
        :: else -> goto lost
#endif
        fi
    }
}

/* Someone takes P q: idle by CAS; marked by CAS; in P_SYSCALL where no probe is and on its CPU by
 * load and compare, else by the taker's CAS. */
inline take()
{
    if
    :: IDLE(q) -> STORE(q, me, 0, 0, P_RUN); goto got
    :: OUT(q) -> seen[me] = WORD(q); goto marked
    :: w[q].state == P_SYSCALL && SEQUENCE_TAKES && FREE_HERE(q) && CPU_HERE(q, 1) && MAY_RUN(1) ->
       SEQUENCE(1); goto here
    :: w[q].state == P_SYSCALL && SEQUENCE_TAKES && FREE_HERE(q) && CPU_HERE(q, 2) && MAY_RUN(2) ->
       SEQUENCE(2); goto here
    :: w[q].state == P_SYSCALL && FREE_REMOTE(q) -> w[q].taker = me; goto remote
    fi
}

inline take_marked() /* CAS, of what the load saw */
{
    atomic {
        if
#ifdef NO_CAS_TAKE
        :: true -> STORE(q, me, 0, 0, P_RUN); seen[me] = 0
#else
        :: WORD(q) == seen[me] && w[q].taker == 0 -> STORE(q, me, 0, 0, P_RUN); seen[me] = 0
        :: else -> goto missed
#endif
        fi
    }
}

inline take_here() /* the understudy's, no probe: commit */
{
    atomic {
        if
        :: seq[me] != 0 -> STORE(q, me, 0, 0, P_RUN); seq[me] = 0
        :: else -> goto missed
        fi
    }
}

inline take_remote() /* membarrier and final CAS */
{
#ifndef NO_MEMBARRIER_REMOTE
    atomic { MEMBARRIER(w[q].cpu) };
#endif
    atomic {
        if
#ifdef NO_CAS_REMOTE
        :: true -> STORE(q, me, 0, 0, P_RUN)
#else
        :: STILL_TAKER(q) -> STORE(q, me, 0, 0, P_RUN)
        :: else -> goto missed
#endif
        fi
    }
}

/* The counter falls after its word changed, by whoever changed it. */
inline lower_nblocked()
{
    atomic { assert(nblocked > 0); nblocked-- }
}

/* Publish a G on the own queue, (A) fence; the look whether to wake somebody is in wakep. */
inline ready()
{
#ifdef NO_FENCE_WAKEP
    if
    :: atomic { !(nmspinning == 0 && (NPIDLE > 0 || NBLOCKED > 0)) };
       atomic { assert(HOLDS(p)); runq[p]++; goto gcode }
    :: nmspinning == 0 && (NPIDLE > 0 || NBLOCKED > 0)
    fi;
#endif
    atomic { assert(HOLDS(p)); runq[p]++ }
}

/* One waker at a time: it claims nmspinning, then looks for a P, idle or blocked. */
inline wakep()
{
    atomic {
        if
        :: nmspinning == 0 && (NPIDLE > 0 || NBLOCKED > 0) -> nmspinning = 1; waking = 1
        :: else -> goto gcode
        fi
    };
    atomic {
        if
        :: CAN_TAKE(1) -> q = 1
        :: CAN_TAKE(2) -> q = 2
        :: else -> goto nothing
        fi;
        take()
    }
}

/* The waker found no P. While its claim stood others left theirs to it, so it looks once more. */
inline wakep_nothing()
{
    atomic { assert(nmspinning > 0); nmspinning--; waking = 0 };
#ifndef NO_RELOOK
    if
    :: CAN_TAKE(1) || CAN_TAKE(2) -> goto wake
    :: else
    fi;
#endif
    goto gcode
}

/* Give P q to a parked M. The runtime would start a thread where none is parked; here all are then
 * running, and look for work before they park. */
inline startm()
{
    atomic {
        assert(HOLDS(q));
        if
        :: FIRST(1) -> parked[1] = 0; nextp[1] = q; w[q].owner = 1
        :: FIRST(2) -> parked[2] = 0; nextp[2] = q; w[q].owner = 2
        :: FIRST(3) -> parked[3] = 0; nextp[3] = q; w[q].owner = 3
        :: FIRST(4) -> parked[4] = 0; nextp[4] = q; w[q].owner = 4
        :: else -> STORE(q, 0, 0, 0, P_IDLE); assert(nmspinning > 0); nmspinning--
        fi;
        q = 0; waking = 0
    }
}

inline release() /* pidleput and, if I was spinning, no more */
{
    assert(HOLDS(p));
    STORE(p, 0, 0, 0, P_IDLE);
    p = 0; nmspinning = nmspinning - spinning; spinning = 0
}

/* Nothing to do: release the P, (B) fence, look at the queues again (look_again), park. */
inline stopm()
{
#ifdef NO_FENCE_RECHECK
    if
    :: WORK -> goto schedule
    :: !WORK -> atomic { release(); parked[me] = 1; goto idle }
    fi;
#endif
    atomic { release() };
#ifdef NO_RECHECK
    atomic { parked[me] = 1; goto idle };
#endif
}

/* The M knows that it will block long: release, (B) fence, and wake someone if there is work. */
inline handoffp()
{
    atomic { release() };
#ifndef NO_RECHECK_HANDOFF
    if
    :: WORK -> goto wake
    :: !WORK
    fi;
#endif
}

/* The M that comes back without a P: any it can have, else its G to the global queue, (C) fence,
 * look again, park. */
inline exit_lost()
{
    atomic {
        p = 0;
        if
        :: CAN_TAKE(1) -> q = 1
        :: CAN_TAKE(2) -> q = 2
        :: else -> goto giveup
        fi;
        take()
    };
giveup:
#ifdef NO_SECOND_LOOK
    atomic { g = 0; globq++; parked[me] = 1; goto idle };
#endif
#ifdef NO_FENCE_LOOK
    atomic {
        if
        :: CAN_TAKE(1) || CAN_TAKE(2) -> g = 0; globq++; goto look
        :: else
        fi
    };
    atomic { g = 0; globq++; parked[me] = 1; goto idle };
#endif
    atomic { g = 0; globq++ }
}

inline look_again()
{
    atomic {
        if
        :: WORK && CAN_TAKE(1) -> q = 1
        :: WORK && CAN_TAKE(2) -> q = 2
        :: else -> parked[me] = 1; goto idle
        fi;
        take()
    }
}

proctype thread(byte me)
{
    byte p;       /* the P it holds, or held when it left the runtime */
    byte q;       /* the P it is about to take */
    bit g;        /* it has a G */
    bit spinning; /* counted in nmspinning */
    bit waking;   /* takes q for another M */
#ifdef NO_LOOK_AFTER
    bit needed;
#endif
#ifdef SLEEPERS
    byte o;   /* the owner of q, as this thread claimed it */
    bit held; /* what it saw of its P when it came into the runtime */
#endif

    if
    :: me == 1 -> p = 1; g = 1; goto gcode
    :: else
    fi;

idle: /* parked; also the understudies and sysmon */
    if
    :: atomic { nextp[me] != 0 -> p = nextp[me]; nextp[me] = 0; spinning = 1 }; goto schedule
    :: atomic { FIRST(me) && asked[1] && OUT(1) -> parked[me] = 0; q = 1; take() }
    :: atomic { FIRST(me) && asked[2] && OUT(2) -> parked[me] = 0; q = 2; take() }
    :: atomic { FIRST(me) && SYSMON(1) -> parked[me] = 0; q = 1; take() }
    :: atomic { FIRST(me) && SYSMON(2) -> parked[me] = 0; q = 2; take() }
#ifdef SLEEPERS
    :: atomic { FIRST(me) && SLEEPER(1) -> parked[me] = 0; q = 1; CLAIM }; goto ask
    :: atomic { FIRST(me) && SLEEPER(2) -> parked[me] = 0; q = 2; CLAIM }; goto ask
#endif
    :: atomic { done == NG && parked[me] && nexit == me - 1 -> nexit++; goto exit }
    fi;

schedule:
    atomic {
        assert(HOLDS(p));
        if
        :: runq[p] > 0 -> runq[p]--
        :: runq[p] == 0 && globq > 0 -> globq--
        :: runq[p] == 0 && runq[OTHER(p)] > 0 -> runq[OTHER(p)]-- /* runqsteal */
        :: else -> goto stop
        fi;
        g = 1;
        if
        :: spinning -> spinning = 0; assert(nmspinning > 0); nmspinning--; goto wake
        :: else -> goto gcode
        fi
    };

gcode: /* the G runs; without touching the P, so it may be on credit or have lost it */
#ifdef SLEEPERS
    ingcode[me] = (p != 0);
unnoticed:
#endif
    if
    :: p == 0 -> goto lost /* after handoffp, from its syscall */
#ifdef SLEEPERS
    :: atomic { nblock > 0 && p != 0 -> nblock--; asleep[me] = 1 }; asleep[me] = 0; goto unnoticed
    :: atomic { nwait > 0 && p != 0 -> nwait--; waiting++; asleep[me] = 1 };
       atomic { done + waiting + tospawn >= NG -> waiting--; asleep[me] = 0 }; goto unnoticed
    :: p != 0 -> goto entry
#else
    :: probe_switch_offcpu(); goto understudy
    :: atomic {
           nwait > 0 && !(MINE(p) && onehog) ->
           onehog = onehog || MINE(p); nwait--; waiting++
       };
       goto await
    :: atomic { /* runtime entry: settle, then whatever it came for */
           p != 0;
#ifndef NO_SETTLE
           if
           :: MINE(p)
           :: else -> goto leave
           fi;
#endif
           call()
       }
#endif
    fi;

#ifdef SLEEPERS
entry:
    enter_runtime();
    atomic {
        if
        :: held -> held = 0; call()
        :: else -> goto leave
        fi
    };
#endif

await:
    atomic { done + waiting + tospawn >= NG -> waiting--; goto leave };

enter:
    entersyscall();
leave: /* in the kernel or on the way out */
    if
    :: atomic { nwait > 0 && WENT(p) -> nwait--; waiting++; goto await }
    :: atomic { PROBED && nblock > 0 && IN_CALL(p) -> nblock--; goto blocked }
    :: exitsyscall()
    fi;
exit_fast:
    exitsyscall_fast();
exit_slow:
    exitsyscall_slow();
    goto gcode;
counted:
    lower_nblocked();
    goto gcode;

blocked:
    probe_switch();
understudy: /* what the CPU runs next; or the probe itself, through the ring buffer */
    atomic {
#ifdef NO_RAISE_FIRST
        if
        :: w[p].state == P_BLOCKED -> nblocked++
        :: else
        fi;
#endif
        if
#ifdef NO_LOOK_AFTER
        :: OUT(p) && needed -> asked[p] = 1
#else
        :: OUT(p) && NEEDED_BLOCKED(p) -> asked[p] = 1
#endif
        :: else
        fi;
#ifdef NO_LOOK_AFTER
        needed = 0
#endif
    };
switched: /* back on a CPU, not knowing */
    if
    :: seq[me] != 0 -> goto exit_fast /* only where preemption does not restart it */
    :: atomic { seq[me] == 0 && WENT(p) && w[p].state == P_OFFCPU ->
           STORE(p, me, 0, 0, P_RUN) /* the probe sees it come: CAS, of what it still finds */
       };
       goto counted
    :: seq[me] == 0 && WENT(p) && w[p].state == P_OFFCPU -> goto gcode /* or another had it first */
    :: seq[me] == 0 && !(WENT(p) && w[p].state == P_OFFCPU) -> goto leave
    fi;

lost:
    exit_lost();
look:
    look_again();
stop:
    stopm();
    goto look;

handoff:
    handoffp();
    goto gcode;

publish:
    ready();
wake:
    wakep();
nothing:
    wakep_nothing();
start:
    startm();
    goto gcode;

marked:
    take_marked();
    lower_nblocked();
    goto got;
here:
    take_here();
    goto got;
remote:
    take_remote();
#ifdef SLEEPERS
    goto got;
ask:
    claim_asleep();
    take_claimed();
    goto got;
unclaim:
    unclaim_p();
    goto missed;
#ifdef NO_CAS_BACK
back:
    atomic { STORE(p, me, 0, 0, P_RUN); goto gcode };
#endif
#endif
got:
    if
    :: waking -> goto start
    :: atomic { !waking && g -> p = q; q = 0 }; goto gcode
#ifdef NO_SPIN_AGAIN
    :: atomic { !waking && !g -> p = q; q = 0 }; goto schedule
#else
    :: atomic { !waking && !g -> p = q; q = 0; spinning = 1; nmspinning++ }; goto schedule
#endif
    fi;

missed:
    atomic {
        seen[me] = 0; q = 0;
        if
        :: waking -> goto nothing
        :: !waking && g -> goto lost
        :: else -> goto look
        fi
    };

exit:
    assert(nexit < NM || (NPIDLE == 2 && nblocked == 0 && nmspinning == 0 && !WORK))
}

init
{
    atomic {
        STORE(1, 1, 0, 0, P_RUN);
        parked[2] = 1; parked[3] = NM > 2; parked[4] = NM > 3;
        run thread(1);
        run thread(2);
#if NM > 2
        run thread(3);
#endif
#if NM > 3
        run thread(4)
#endif
    }
}

#define STUCK(x) (OUT(x) && runq[x] > 0)
ltl finishes { <> (done == NG) }
ltl taken1 { [] (STUCK(1) -> <> !STUCK(1)) }
ltl taken2 { [] (STUCK(2) -> <> !STUCK(2)) }
