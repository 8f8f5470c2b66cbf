/* A mutex that is biased to a CPU, and one that is shared (src/sync/mutex.cpp), for spin. README.md
 * beside this says how to run it.
 *
 * Purpose: every step of lock, unlock, end_bias and share is here, and so is every rule that makes
 * them exclude. Each rule has a switch NO_xxx that drops it; check.sh proves that spin then finds an
 * error.
 *
 * Threads: NT, all alike. Two CPUs: cpu[t] is the one that t is on, 0 while
 * it is on none. The kernel puts threads on a CPU that is free and takes them off when it likes.
 *
 * One step (atomic) is what the machine makes one: a load, a store, a locked instruction. seq[t]
 * says that t is in a restartable sequence; what makes the kernel restart it clears that: its thread
 * losing the CPU, a membarrier for that CPU.
 *
 * Store buffers: each thread has one, of two entries, its store of the CPU's number and one of the
 * lock's byte, which drain in that order: whenever they like, before a locked instruction, by a
 * membarrier for the CPU, and when the thread loses it. (More entries would let the same stores
 * drain later still; a membarrier drains them all.)
 *
 * Checked in every state: one at most is inside; who unlocks has the lock. And at the end, as spin
 * takes it for an invalid end state: nobody sleeps for a lock that is free.
 *
 * Left out: giving up, starvation mode, unlocking what another locked.
 */
#ifndef NT
#define NT 3 /* threads, 2 or 3 */
#endif
#ifndef TIMES
#define TIMES 2 /* the first of them locks; the others one time less, but once */
#endif
#ifndef WORTH
#define WORTH 1 /* in a row on one CPU: biased */
#endif

#define LOCKED 1
#define WAITERS 2
#define BIASED 4
#define SHARING 1
#define SHARED 2
#define NONE 7 /* no CPU; no entry in a buffer */

byte word = BIASED, flags, how, biased_to = 1, in_a_row; /* the mutex, of which there was use */
bool queue;                                         /* held */
bool asleep[NT], done[NT], seq[NT];
byte cpu[NT], store_cpu[NT] = NONE, store_word[NT] = NONE;
byte inside, ndone;

#define WORD (store_word[me] != NONE -> store_word[me] : word)
#define BIASED_TO (store_cpu[me] != NONE -> store_cpu[me] : biased_to)
#define DRAIN(t) \
    if :: store_cpu[t] != NONE -> biased_to = store_cpu[t]; store_cpu[t] = NONE :: else fi; \
    if :: store_word[t] != NONE -> word = store_word[t]; store_word[t] = NONE :: else fi
#define RUNS cpu[me] != 0
#define EMPTY store_cpu[me] == NONE && store_word[me] == NONE

inline membarrier(c) { /* 0: all */
    i = 0;
    do
    :: i == NT -> break
    :: else ->
        if
        :: cpu[i] != 0 && (c == 0 || cpu[i] == c) -> DRAIN(i); seq[i] = false
        :: else
        fi;
        i++
    od;
    i = 0
}

proctype thread(byte me) {
    byte n, i, c = NONE, left;
lock:
    atomic {
        RUNS;
        if
        :: WORD != BIASED -> goto by_cas
        :: else
        fi
    }
#ifdef NO_CPU_INSIDE
    atomic { RUNS; c = BIASED_TO }
#endif
    atomic { RUNS; seq[me] = true }
#ifdef NO_CPU_LATER
    atomic { RUNS; c = BIASED_TO }
#endif
    atomic {
        RUNS;
        if
        :: !seq[me] -> c = NONE; goto lock
#ifndef NO_WORD_LOOK
        :: seq[me] && WORD != BIASED -> c = NONE; goto end_bias
#endif
        :: else
        fi
    }
    atomic {
        RUNS;
#ifndef NO_CPU_INSIDE
#ifndef NO_CPU_LATER
        c = BIASED_TO;
#endif
#endif
        if
        :: !seq[me] -> c = NONE; goto lock
#ifndef NO_CPU_LOOK
        :: seq[me] && c != cpu[me] -> c = NONE; goto end_bias
#endif
        :: else -> c = NONE
        fi
    }
    atomic {
        RUNS;
        if
        :: !seq[me] -> goto lock
#ifndef NO_SECOND_LOOK
        :: seq[me] && flags != 0 -> goto end_bias
#endif
        :: else
        fi
    }
    atomic {
        RUNS && (EMPTY || !seq[me]);
        if
        :: !seq[me] -> goto lock
        :: else -> store_word[me] = BIASED | LOCKED; seq[me] = false; how = BIASED | LOCKED; goto held
        fi
    }
end_bias:
#ifdef NO_QUEUE
    atomic { RUNS; seq[me] = false; DRAIN(me) }
#else
    atomic { RUNS && !queue; seq[me] = false; DRAIN(me); queue = true }
#endif
    atomic {
        RUNS;
        if
#ifndef NO_LOOK_AGAIN
        :: !(word & BIASED) -> queue = false; goto by_cas
#endif
        :: else
        fi
    }
    atomic { /* (C) */
        RUNS;
        DRAIN(me);
        c = biased_to;
#ifndef NO_CPU_OFF
        biased_to = NONE
#endif
    }
    atomic {
        RUNS;
#ifndef NO_MEMBARRIER_BIAS
        if
        :: c != NONE -> membarrier(c)
        :: else
        fi;
#endif
        c = NONE
    }
    atomic { RUNS; DRAIN(me); word = word & ~BIASED } /* (D) */
    atomic { RUNS; DRAIN(me); queue = false }
by_cas:
    atomic {
        RUNS;
        DRAIN(me);
        if
        :: word == 0 -> word = LOCKED; how = LOCKED; goto held
        :: else
        fi
    }
    if
    :: true -> goto lock /* spins */
    :: true
    fi;
    /* share */
    atomic { RUNS; DRAIN(me); flags = flags | SHARING } /* (A) */
#ifndef NO_MEMBARRIER_SHARE
    atomic { RUNS; membarrier(0) }
#endif
    atomic { RUNS; DRAIN(me); word = word & ~BIASED }
    atomic { RUNS; DRAIN(me); flags = flags | SHARED } /* (B) */
wait:
    atomic {
        RUNS;
        DRAIN(me);
        if
        :: !(word & LOCKED) -> word = word | LOCKED; how = LOCKED; goto held
        :: else -> word = word | WAITERS; asleep[me] = true; cpu[me] = 0
        fi
    }
    atomic { RUNS && !asleep[me]; goto wait }
held:
    atomic { RUNS; inside++; assert(inside == 1) }
    atomic { RUNS; inside-- }
    /* unlock */
    atomic {
        RUNS;
        assert(how != 0);
        left = BIASED;
        if
#ifdef NO_KEEP_CPU
        :: flags == 0 -> skip
#else
        :: how != LOCKED -> how = 0; goto unlock
        :: how == LOCKED && flags == 0 -> left = 0
#endif
        :: how == LOCKED && flags != 0 -> how = 0; left = 0; goto unlock_shared
        :: else
        fi
    }
    atomic {
        RUNS && EMPTY;
        if
        :: BIASED_TO != cpu[me] -> store_cpu[me] = cpu[me]; in_a_row = 0
        :: else
        fi;
        in_a_row++;
        if
        :: how == LOCKED && in_a_row == WORTH -> in_a_row = 0; left = BIASED
        :: else
        fi;
        how = 0
    }
unlock:
    atomic { RUNS; seq[me] = true }
    atomic {
        RUNS;
        if
        :: !seq[me] -> left = 0; goto unlock_shared
#ifndef NO_LOOK_UNLOCK
        :: seq[me] && flags != 0 -> left = 0; seq[me] = false; goto unlock_shared
#endif
        :: else
        fi
    }
    atomic {
        RUNS && (store_word[me] == NONE || !seq[me]);
        if
        :: !seq[me] -> left = 0; goto unlock_shared
        :: else -> store_word[me] = left; left = 0; seq[me] = false; goto next
        fi
    }
unlock_shared:
    atomic {
        RUNS;
        DRAIN(me);
        word = word & ~LOCKED;
        if
        :: word & WAITERS ->
            word = word & ~WAITERS;
            do
            :: i == NT -> break
            :: else -> asleep[i] = false; i++
            od;
            i = 0
        :: else
        fi
    }
next:
    atomic {
        RUNS;
        n++;
        if
        :: n < TIMES - (me > 0 && TIMES > 1) -> goto lock
        :: else -> DRAIN(me); cpu[me] = 0; done[me] = true; ndone++
        fi
    }
}

#ifdef NO_ABORT
#define OFF(t) DRAIN(t); cpu[t] = 0
#else
#define OFF(t) DRAIN(t); cpu[t] = 0; seq[t] = false
#endif

#define FREE(c) (cpu[0] != c && cpu[1] != c && cpu[NT - 1] != c)
#define AWAY(t) (cpu[t] == 0 && !done[t] && !asleep[t])

/* What befalls one of them. */
proctype kernel(byte t) {
    do
    :: atomic { store_cpu[t] != NONE -> biased_to = store_cpu[t]; store_cpu[t] = NONE }
    :: atomic {
           store_cpu[t] == NONE && store_word[t] != NONE ->
           word = store_word[t];
           store_word[t] = NONE
       }
    :: atomic { cpu[t] != 0 -> OFF(t) }
    :: atomic { AWAY(t) && FREE(1) -> cpu[t] = 1 }
    :: atomic { AWAY(t) && FREE(2) -> cpu[t] = 2 }
    :: done[t] -> break
    od
}

init {
    byte t;
    atomic {
        do
        :: t == NT -> break
        :: else -> run thread(t); run kernel(t); t++
        od
    }
    ndone == NT -> assert(!(word & LOCKED) && !(word & WAITERS))
}
